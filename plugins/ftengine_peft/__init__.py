"""A built-in plugin of ftengine."""
