"""Components that fail on purpose, for tests."""
