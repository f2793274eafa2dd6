"""Classification, single-label and multi-label: the task, its heads, losses and metrics."""
