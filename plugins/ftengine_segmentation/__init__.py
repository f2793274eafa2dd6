"""Semantic segmentation: the task, its heads, losses and metrics."""
