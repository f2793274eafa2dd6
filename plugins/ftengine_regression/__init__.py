"""Regression of one or several numbers: the task, its heads, losses and metrics."""
