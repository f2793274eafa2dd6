"""Every component passes the conformance kit."""

from ftengine.testing import PluginConformance

# Small enough for a laptop, and what all components are for.
SMALL = {
    "image": {"size": 32},
    "head": {"name": "metric_learning/embedding", "size": 16},
    "train": {"batch_size": 8},
}


class TestMetricLearning(PluginConformance):
    plugin = "metric_learning"
    config = SMALL
