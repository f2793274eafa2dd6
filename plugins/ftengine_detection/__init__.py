"""Object detection: the task, its heads, losses and metrics."""
