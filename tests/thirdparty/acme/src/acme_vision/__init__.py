"""A third party's components for ftengine."""
