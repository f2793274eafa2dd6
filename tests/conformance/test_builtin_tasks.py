"""The built-in heads and losses pass the conformance kit: some of each task by default, all of them when slow."""

import pytest

from ftengine.testing import PluginConformance

SCENES = {"count": 16, "size": 64, "digits": [1, 3], "seed": 6}


class HeadsAndLosses(PluginConformance):
    """The kit for the heads and losses of a plugin. By default whole runs are made with none of them, and the other
    checks of `few`; that the loss falls is then seen with the losses, each of which has a head.
    """

    few = ()
    field = ""
    """Only the losses that take this target field, where there is one."""

    def _cases(self):
        return [case for case in super()._cases() if self._wanted(case.values[0][0].component)]

    def _wanted(self, component):
        if component.kind == "loss":
            return not self.field or self.field in component.spec.fields
        return component.kind == "head"

    def marks(self, subject, check):
        run = check.run.__module__ == "ftengine.testing.runs"
        trained = check.name == "loss_falls" and subject.component.kind == "head"
        by_default = not {*subject.keys}.isdisjoint(self.few) and not run and not trained
        return () if by_default else (pytest.mark.slow,)


class TestClassification(HeadsAndLosses):
    plugin = "classification"
    few = ("mlp", "cross_entropy", "binary_cross_entropy")


class TestSeveralClasses(HeadsAndLosses):
    """Where an image has any number of classes."""

    plugin = "classification"
    field = "labels"
    few = ("linear", "focal")
    config = {"data": {"limit": None, "scenes": SCENES}}  # noqa: RUF012


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
