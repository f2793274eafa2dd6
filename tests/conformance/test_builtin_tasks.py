"""The built-in heads and losses pass the conformance kit: some of each task by default, all of them when slow."""

import pytest

from ftengine.testing import PluginConformance


class HeadsAndLosses(PluginConformance):
    """The kit for the heads and losses of a plugin.

    By default what all of them say of themselves is checked, and `few` in all ways but whole runs; that the loss falls
    is then seen with the losses, each of which has a head.
    """

    kinds = ("head", "loss")
    few = ()

    def marks(self, subject, check):
        run = check.run.__module__ == "ftengine.testing.runs"
        trained = check.name == "loss_falls" and subject.component.kind == "head"
        names = {subject.name} if subject.further else {*subject.keys}
        few = not names.isdisjoint(self.few) and not run and not trained
        by_default = few or check.run.__module__ == "ftengine.testing.components"
        return () if by_default else (pytest.mark.slow,)


class TestClassification(HeadsAndLosses):
    plugin = "classification"
    few = (
        "mlp",
        "head linear of classification from labels",
        "cross_entropy",
        "binary_cross_entropy",
        "loss focal of classification from labels",
    )


class TestRegression(HeadsAndLosses):
    plugin = "regression"
    few = ("linear", "huber")


class TestDetection(HeadsAndLosses):
    plugin = "detection"
    few = ("faster_rcnn", "head retinanet", "loss fcos")


class TestSegmentation(HeadsAndLosses):
    plugin = "segmentation"
    few = ("fcn", "fpn", "dice", "lovasz")
    configs = {"pan": {"train": {"batch_size": 2}}}  # noqa: RUF012


class TestDetectionOptions(HeadsAndLosses):
    """The other layers and box forms."""

    plugin = "detection"
    configs = {  # noqa: RUF012
        "head faster_rcnn": {"head": {"version": "v2"}},
        "head retinanet": {"head": {"version": "v1"}},
        "loss faster_rcnn": {"loss": {"box": "giou", "rpn_box": "ciou", "classifier": "focal"}},
        "loss retinanet": {"loss": {"box": "giou"}},
        "loss fcos": {"loss": {"box": "ciou"}},
    }


class TestSegmentationOptions(HeadsAndLosses):
    """A second classifier, weights of classes, regions of each image."""

    plugin = "segmentation"
    configs = {  # noqa: RUF012
        "fcn": {"head": {"aux": True}},
        "deeplabv3": {"head": {"aux": True}},
        "pan": {"train": {"batch_size": 2}},
        "cross_entropy": {"task": {"count_pixels": True}, "loss": {"class_weights": "balanced"}},
        "focal": {"loss": {"class_weights": {"background": 0.1}}},
        "lovasz": {"loss": {"per_image": True}},
        "dice": {"loss": {"per_image": True, "smooth": 1.0}},
        "tversky": {"loss": {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}},
    }
    left_out = {  # noqa: RUF012
        f"{name}: head_levels": "with the option aux it needs c4, too" for name in ("head fcn", "head deeplabv3")
    }
