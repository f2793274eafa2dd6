"""What computes on images and features. Imported when a run is built, and called as ``factory(options, context)``."""

from ftengine.errors import FtengineError
from ftengine.protocols import Adapter, AdapterContext, Backbone, BackboneContext, Batch, Head, HeadContext, Prediction
from torch import Tensor, nn

from my_plugin.plugin import MaxPooledOptions, TinyOptions


def tiny(options: TinyOptions, context: BackboneContext) -> Backbone:
    """Stages run in order; what each gives is a feature level. Freezing and rates by layer follow from the stages."""
    widths = {"c1": options.width, "c2": 2 * options.width, "c3": 4 * options.width}
    stages, inputs = dict[str, nn.Module](), 3
    for level, width in widths.items():
        stages[level] = nn.Sequential(nn.Conv2d(inputs, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        inputs = width
    return Backbone(stages, channels=widths, strides={"c1": 2, "c2": 4, "c3": 8})


class MaxPooled(Head):
    """``{"logits": [B, C]}`` of the last level; for each image ``{"scores": float32 [C]}``, on the CPU."""

    def __init__(self, options: MaxPooledOptions, context: HeadContext) -> None:
        super().__init__()
        self.level, channels = list(context.channels.items())[-1]
        # An image has one class, or, where the task says so, any number of them.
        self.multi_label = context.task.multi_label
        self.classifier = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(channels, len(context.task.labels)))

    def forward(self, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.classifier(features[self.level].amax((2, 3)))}

    def predict(self, output: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        logits = output["logits"].detach().float()  # under autocast they may be bfloat16
        scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        return [{"scores": row} for row in scores.cpu()]


class Scaled(nn.Module):
    """A convolution whose output channels are multiplied by factors that train. They start as 1: nothing changes."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(layer.weight.new_ones(layer.out_channels, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs * self.scale

    def merged(self) -> nn.Conv2d:
        """The convolution alone, with the factors in its own parameters."""
        self.layer.weight.data *= self.scale.data[..., None]
        if self.layer.bias is not None:
            self.layer.bias.data *= self.scale.data.flatten()
        return self.layer


class Scales(Adapter):
    """Every plain convolution becomes a scaled one; nothing else in the backbone trains."""

    def __init__(self, options: object, context: AdapterContext) -> None:
        pass

    def apply(self, backbone: Backbone) -> None:
        backbone.requires_grad_(False)
        # By type, not isinstance: a subclass may compute its weight, and could not be merged.
        replaced: dict[nn.Module, nn.Module] = {
            layer: Scaled(layer) for layer in backbone.modules() if type(layer) is nn.Conv2d
        }
        if not replaced:
            raise FtengineError("adapter scales: the backbone has no convolution to scale")
        _replace(backbone, replaced)

    def merge(self, backbone: Backbone) -> None:
        _replace(backbone, {layer: layer.merged() for layer in backbone.modules() if isinstance(layer, Scaled)})


def _replace(backbone: Backbone, others: dict[nn.Module, nn.Module]) -> None:
    """Put each module's replacement in all the places where the module is."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if child in others:
                setattr(parent, name, others[child])
