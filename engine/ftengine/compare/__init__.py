"""``ftengine compare``: strategies run on the same data, with the same chances, and judged by their numbers."""
