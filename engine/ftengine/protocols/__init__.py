"""The contracts between the engine and the components that plugins bring.

Each class's docstring carries the smallest working implementation. Shapes: B images in a batch, C channels or
classes, H and W pixels. The engine calls factories as ``factory(options, context)``, where `options` is the
component's own options model, validated, and `context` is the dataclass named for the kind below.
"""

from ftengine.protocols.data import Dataset, DatasetContext, LabelMap, Sample, Target
from ftengine.protocols.frame import Frame
from ftengine.protocols.freeze import FreezeContext, FreezePolicy, Progress
from ftengine.protocols.model import (
    Backbone,
    BackboneContext,
    Batch,
    Head,
    HeadContext,
    Loss,
    LossContext,
    Metric,
    MetricContext,
    Output,
    PublishedModel,
    Window,
)
from ftengine.protocols.task import Companions, Encoder, Prediction, Targets, Task, TaskContext
from ftengine.protocols.tuning import Adapter, AdapterContext, Regularizer, RegularizerContext
from ftengine.vocabulary import IGNORE, MAX_CLASSES, SPATIAL_FIELDS, TARGET_FIELDS

__all__ = [
    "IGNORE",
    "MAX_CLASSES",
    "SPATIAL_FIELDS",
    "TARGET_FIELDS",
    "Adapter",
    "AdapterContext",
    "Backbone",
    "BackboneContext",
    "Batch",
    "Companions",
    "Dataset",
    "DatasetContext",
    "Encoder",
    "Frame",
    "FreezeContext",
    "FreezePolicy",
    "Head",
    "HeadContext",
    "LabelMap",
    "Loss",
    "LossContext",
    "Metric",
    "MetricContext",
    "Output",
    "Prediction",
    "Progress",
    "PublishedModel",
    "Regularizer",
    "RegularizerContext",
    "Sample",
    "Target",
    "Targets",
    "Task",
    "TaskContext",
    "Window",
]
