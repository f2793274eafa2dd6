"""What the built-in tasks hand on by name, as the docstrings of their tasks and heads say it."""

from __future__ import annotations

import inspect
from typing import Any

from ftengine.protocols import Task
from ftengine_classification import heads as classification_heads
from ftengine_classification import task as classification
from ftengine_detection import faster_rcnn, one_stage
from ftengine_detection import task as detection
from ftengine_regression import heads as regression_heads
from ftengine_regression import task as regression
from ftengine_segmentation import heads as segmentation_heads
from ftengine_segmentation import task as segmentation
from reference.markdown import docstring, prose

TASKS: dict[str, tuple[type[Task], dict[str, Any]]] = {
    "classification": (classification.Classification, {"The heads": classification_heads.ClassificationHead}),
    "regression": (regression.Regression, {"The heads": regression_heads.RegressionHead}),
    "detection": (
        detection.Detection,
        {"The head `faster_rcnn`": faster_rcnn.FasterRcnn, "The heads `retinanet`, `fcos`": one_stage.OneStageHead},
    ),
    "segmentation": (segmentation.Segmentation, {"The heads": segmentation_heads.SegmentationHead}),
}
"""Each task's class, and the classes that say what its heads give."""


def tasks(_: str) -> str:
    """Of each task: the fitted task's attributes, the targets of a batch, the outputs of heads, the predictions."""
    parts = []
    for name, (task, heads) in TASKS.items():
        parts.append(f"### Task `{name}`\n\n{docstring(task)}")
        batch = _sentence(task.collate) if "collate" in vars(task) else "These, stacked: a dimension B comes first."
        parts.append(f"**Encoded targets:** {_sentence(task.encoder)} **In `batch.targets`:** {batch}")
        parts += [f"**{title}:** {docstring(head)}" for title, head in heads.items()]
    return "\n\n".join(parts)


def _sentence(method: object) -> str:
    return prose(" ".join((inspect.getdoc(method) or "").split("\n\n")[0].split()))
