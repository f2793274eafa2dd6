"""Heads that are wrong in one way, and what the kit says of each."""

import textwrap

import pytest

TINY = {"backbone": {"name": "acme/tiny", "weights": "none"}}
CLASSES = {**TINY, "image": {"size": 16}, "data": {"limit": 24}}
SCENES = {**TINY, "data": {"scenes": {"count": 8}}, "train": {"batch_size": 2}}

RIGHT = """
import torch
from torch import nn
from torch.nn import functional as F
from ftengine.protocols import Head, Loss

class Right(Head):
    def __init__(self, options, context):
        super().__init__()
        self.level, channels = list(context.channels.items())[-1]
        self.fc = nn.Linear(channels, len(context.task.labels))
    def pooled(self, features):
        return features[self.level].mean((2, 3))
    def forward(self, features, batch):
        return {"logits": self.fc(self.pooled(features))}
    def predict(self, output, batch):
        return [{"scores": row} for row in output["logits"].detach().float().softmax(-1).cpu()]
"""
PIXELS = """
class Right(Right):
    def __init__(self, options, context):
        super().__init__(options, context)
        self.conv = nn.Conv2d(self.fc.in_features, self.fc.out_features, 1)
        del self.fc
    def forward(self, features, batch):
        maps = self.conv(features[self.level]).float()
        return {"logits": F.interpolate(maps, batch.images.shape[-2:])}
    def predict(self, output, batch):
        restored = [frame.restore(maps) for maps, frame in zip(output["logits"].detach(), batch.frames)]
        return [{"mask": maps.argmax(0).to(torch.uint8)} for maps in restored]
    def merge(self, outputs, windows, size):
        first = outputs[0]["logits"]
        total, count = first.new_zeros(*first.shape[:2], *size), first.new_zeros(size)
        for output, window in zip(outputs, windows):
            rows = slice(window.top, window.top + window.height)
            columns = slice(window.left, window.left + window.width)
            total[..., rows, columns] += output["logits"]
            count[rows, columns] += 1
        return {"logits": total / count}
"""
BOXES = """
class Right(Right):
    def __init__(self, options, context):
        super().__init__(options, context)
        self.box = nn.Linear(self.fc.in_features, 4)
    def forward(self, features, batch):
        pooled = self.pooled(features)
        return {"logits": self.fc(pooled).float(), "boxes": self.box(pooled).float().sigmoid() * 60}
    def predict(self, output, batch):
        found = []
        for logits, box, frame in zip(output["logits"], output["boxes"], batch.frames):
            corners = torch.cat([torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:]) + 1])
            score, label = logits.softmax(-1).max(0)
            boxes = frame.to_original(corners[None])
            found.append({"boxes": boxes, "scores": score[None], "labels": label[None]})
        return found

class Nothing(Loss):
    def forward(self, output, batch):
        boxes = [one.mean(0) for one in batch.targets["boxes"] if len(one)]
        wanted = torch.stack(boxes) if boxes else output["boxes"][:0]
        error = (output["boxes"][: len(wanted)] - wanted).abs().sum() / max(len(wanted), 1)
        return {"box": error + 0.01 * output["logits"].square().mean()}

def loss(options, context):
    return Nothing()
"""
OWN_LOSS = """
@hookimpl
def register_losses():
    yield LossSpec(name="nothing", task="detection", factory="wrong_models:loss", summary="How far boxes are off.")
"""
END = """
def thing(options, context):
    return Thing(options, context)
"""

pytestmark = pytest.mark.usefixtures("third_party")


def arguments(task, wrong="pass", more=""):
    """What `component` takes for a head of `task` that is right but for `wrong`, the body of a subclass."""
    code = RIGHT + {"segmentation": PIXELS, "detection": BOXES}.get(task, "")
    code += "\nclass Thing(Right):\n" + textwrap.indent(wrong, "    ") + "\n" + END
    more = f'task="{task}", ' + ('loss="wrong/nothing", ' if task == "detection" else "") + more
    options = OWN_LOSS if task == "detection" else ""
    return "head", code, more, options, CLASSES if task == "classification" else SCENES


@pytest.mark.parametrize(
    ("task", "more", "left_out"),
    [
        ("classification", "", {"empty_targets", "head_windows"}),
        ("segmentation", "windows=True", set()),
        ("detection", "", {"head_windows"}),
    ],
)
def test_a_right_head_passes_every_check(component, task, more, left_out):
    from ftengine.testing.kit import checks_for, run_check

    subject = component(*arguments(task, more=more))
    own = ("ftengine.testing.heads", "ftengine.testing.predictions", "ftengine.testing.sizes")
    results = [run_check(one, subject) for one in checks_for("head") if one.run.__module__ in own]
    assert len(results) == 14
    assert [one.text for one in results if one.status == "failed"] == []
    assert {one.check.name for one in results if one.status == "left out"} == left_out


WRONG = {
    "the channels of one backbone": (
        "head_channels",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.fc = nn.Linear(32, len(context.task.labels))""",
        "other channels: {'c1': 16, 'c2': 32, 'c3': 64} in place of {'c1': 8, 'c2': 16, 'c3': 32}",
        "mat1 and mat2 shapes cannot be multiplied",
    ),
    "ten classes": (
        "one_name_more",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.fc = nn.Linear(self.fc.in_features, 10)""",
        "that it can be made for 11 names of `label` in place of 10",
        "IndexError: Target 10 is out of bounds.",
    ),
    "ten classes of pixels": (
        "one_name_more",
        "segmentation",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.conv = nn.Conv2d(self.conv.in_channels, 11, 1)""",
        "that it can be made for 12 names of `mask` in place of 11",
        "IndexError: Target 11 is out of bounds.",
    ),
    "it does not learn": (
        "loss_falls",
        "classification",
        "def forward(self, features, batch): return {'logits': 1e-6 * super().forward(features, batch)['logits']}",
        "a loss that falls by 10% within 20 steps on one batch",
        "2.303 before the first, 2.30",
    ),
    "a mean over no boxes": (
        "empty_targets",
        "detection",
        """\
def forward(self, features, batch):
    output = super().forward(features, batch)
    if self.training:
        output["boxes"] = output["boxes"] + 0 * torch.cat(batch.targets["boxes"]).mean()
    return output""",
        "a finite output of images without any `boxes`",
        "nan in 'boxes'",
    ),
    "an output that is not learnt": (
        "empty_targets",
        "segmentation",
        """\
def forward(self, features, batch):
    output = super().forward(features, batch)
    return output if (batch.targets["mask"] != 255).any() else {"logits": output["logits"].detach()}""",
        "a loss of images without any `mask` that the weights count in",
        "one that requires no gradient",
    ),
    "a gradient that is not finite": (
        "empty_targets",
        "segmentation",
        """\
def forward(self, features, batch):
    logits = super().forward(features, batch)["logits"]
    known = (batch.targets["mask"] != 255).sum()
    return {"logits": logits * (logits.sum() * 0 + known).sqrt().clamp(max=1)}""",
        "finite gradients of images without any `mask`",
        "nan in that of conv.weight",
    ),
    "a layer that is not used": (
        "head_gradients",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.old = nn.Linear(3, 3)""",
        "a gradient at each of its 4 parameters that train",
        "none in 3 steps at old.bias, old.weight",
    ),
    "a layer behind a detach": (
        "head_gradients",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.first = nn.Linear(self.fc.in_features, self.fc.in_features)
def pooled(self, features): return self.first(super().pooled(features)).detach()""",
        "a gradient at each of its 4 parameters that train",
        "none in 3 steps at first.bias, first.weight",
    ),
    "a weight that counts nothing": (
        "head_gradients",
        "classification",
        """\
def pooled(self, features):
    return super().pooled(features) + 0 * self.fc.weight.mean()
def forward(self, features, batch):
    return {"logits": F.linear(self.pooled(features), self.fc.weight.detach(), self.fc.bias)}""",
        "a gradient at each of its 2 parameters that train",
        "none in 3 steps at fc.weight",
    ),
    "targets are read in evaluation": (
        "head_unlabelled",
        "classification",
        """\
def forward(self, features, batch):
    return {**super().forward(features, batch), "label": batch.targets["label"]}""",
        "a prediction for 4 images without targets",
        "KeyError: 'label'",
    ),
    "a squeeze that takes the batch away": (
        "head_unlabelled",
        "classification",
        """\
def forward(self, features, batch):
    return {"logits": super().forward(features, batch)["logits"].squeeze()}""",
        "a prediction for each of a single image without targets",
        "10",
    ),
    "the batch's statistics": (
        "head_independence",
        "classification",
        """\
def pooled(self, features):
    pooled = super().pooled(features)
    return pooled - pooled.mean(0)""",
        "the same prediction for the first image, whatever the others of the batch are",
        "['scores'][0] 0.",
    ),
    "another level than the declared one": (
        "head_levels",
        "classification",
        "def pooled(self, features): return features['c3'].mean((2, 3)) + features['c1'].mean()",
        "that it needs no level but c3, the last one, as the spec declares none",
        "without the others KeyError: 'c1'",
    ),
    "a tensor beside the state": (
        "head_state",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.shift = torch.randn(self.fc.out_features)
def forward(self, features, batch): return {"logits": super().forward(features, batch)["logits"] + self.shift}""",
        "the same predictions of a new head with the same state dict",
        "image [0]['scores'][0] 0.",
    ),
    "a mean that is noted outside of the state": (
        "head_state",
        "classification",
        """\
def __init__(self, options, context):
    super().__init__(options, context)
    self.register_buffer("seen", torch.zeros(10), persistent=False)
def forward(self, features, batch):
    logits = super().forward(features, batch)["logits"]
    if self.training:
        self.seen = logits.detach().mean(0)
    return {"logits": logits - self.seen}""",
        "the same predictions of a new head with the same state dict",
        "image [0]['scores'][0] 0.",
    ),
    "layers that grow in training": (
        "head_state",
        "classification",
        """\
def forward(self, features, batch):
    if self.training:
        self.late = nn.Linear(2, 2)
    return super().forward(features, batch)""",
        "a state dict that another head of the same options takes",
        'Unexpected key(s) in state_dict: "late.weight", "late.bias"',
    ),
    "by way of NumPy, which has no bf16": (
        "head_bf16",
        "classification",
        """\
def predict(self, output, batch):
    return [{"scores": torch.from_numpy(row.softmax(-1).numpy())} for row in output["logits"]]""",
        "no error",
        "TypeError: Got unsupported ScalarType BFloat16",
    ),
    "a small number that bf16 does not have": (
        "head_bf16",
        "classification",
        """\
def forward(self, features, batch):
    share = super().forward(features, batch)["logits"].softmax(-1)
    return {"logits": (1 + 1e-4 * share - 1).log()}""",
        "a finite output of bf16 autocast",
        "-inf in 'logits'",
    ),
    "one prediction for the batch": (
        "head_predictions",
        "classification",
        "def predict(self, output, batch): return {'scores': output['logits'].softmax(-1)}",
        "a list with a prediction for each of 4 images",
        "dict",
    ),
    "tensors without a name": (
        "head_predictions",
        "classification",
        "def predict(self, output, batch): return list(output['logits'].softmax(-1))",
        "a dict of tensors for each image",
        "tensor float32 [10] for image 0",
    ),
    "numbers": (
        "head_predictions",
        "classification",
        "def predict(self, output, batch): return [{'score': 0.5}] * len(batch)",
        "a dict of tensors for each image",
        "float for 'score' of image 0",
    ),
    "predictions that are not finite": (
        "head_predictions",
        "classification",
        "def predict(self, output, batch): return [{'scores': row.log()} for row in output['logits'] * 0]",
        "finite predictions",
        "'scores' of image 0 with values that are not",
    ),
    "another name than the task's": (
        "head_rows",
        "classification",
        "def predict(self, output, batch): return [{'probabilities': row} for row in output['logits'].softmax(-1)]",
        "a prediction that describe() of the task classification can write",
        "KeyError: 'scores' (image 0: probabilities: tensor float32 [10])",
    ),
    "labels that records cannot name": (
        "head_rows",
        "detection",
        """\
def predict(self, output, batch):
    return [{**one, "scores": 0.1 * one["scores"], "labels": one["labels"] + 10}
            for one in super().predict(output, batch)]""",
        "a prediction that records() of the task detection can write",
        "IndexError",
    ),
    "boxes in the batch's pixels": (
        "head_coordinates",
        "detection",
        """\
def predict(self, output, batch):
    batch.frames[:] = [type(frame).whole(64, 64) for frame in batch.frames]
    return super().predict(output, batch)""",
        "'boxes' that is right for an original twice as high and three times as wide as the batch",
        "image 0: box [0, 0] ",
    ),
    "height for width": (
        "head_coordinates",
        "detection",
        """\
def predict(self, output, batch):
    made = super().predict(output, type(batch)(batch.images, {}, batch.ids, [f.whole(64, 64) for f in batch.frames]))
    for one, frame in zip(made, batch.frames):
        one["boxes"] = one["boxes"] * frame.original[0] / 64
    return made""",
        "'boxes' that is right for an original twice as high and three times as wide as the batch",
        "image 0: box [0, 0] ",
    ),
    "a scale without the offset": (
        "head_coordinates",
        "detection",
        """\
def predict(self, output, batch):
    made = super().predict(output, type(batch)(batch.images, {}, batch.ids, [f.whole(64, 64) for f in batch.frames]))
    for one, frame in zip(made, batch.frames):
        rows, columns = frame.original[0] / frame.content[2], frame.original[1] / frame.content[3]
        one["boxes"] = one["boxes"] * torch.tensor([columns, rows, columns, rows])
    return made""",
        "'boxes' that is right for an original of which the batch shows a part",
        "image 0: box [0, 0] ",
    ),
    "places of its own form that stay": (
        "head_coordinates",
        "detection",
        "def predict(self, output, batch): return [{'points': one.view(2, 2)} for one in output['boxes']]",
        "places in an original twice as high and three times as wide as the batch",
        "image 0: the same as in the batch",
    ),
    "masks of the batch's size": (
        "head_coordinates",
        "segmentation",
        "def predict(self, output, batch): return [{'mask': maps.argmax(0)} for maps in output['logits']]",
        "'mask' that is right for an original twice as high and three times as wide as the batch",
        "image 0: tensor int64 [64, 64], not of [128, 192]",
    ),
    "masks with the margin": (
        "head_coordinates",
        "segmentation",
        """\
def predict(self, output, batch):
    maps = [F.interpolate(one[None], frame.original)[0] for one, frame in zip(output["logits"], batch.frames)]
    return [{"mask": one.argmax(0)} for one in maps]""",
        "'mask' that is right for an original that stands in the batch with a margin around it",
        "image 0: [",
    ),
    "masks as small as the level": (
        "head_coordinates",
        "segmentation",
        "def predict(self, output, batch): return [{'mask': one.argmax(0)[::8, ::8]} for one in output['logits']]",
        "a value for each pixel of the original, [64, 64]",
        "mask: tensor int64 [8, 8]",
    ),
    "scores that the size of the original changes": (
        "head_coordinates",
        "classification",
        """\
def predict(self, output, batch):
    made = super().predict(output, batch)
    return [{"scores": one["scores"] * frame.original[0]} for one, frame in zip(made, batch.frames)]""",
        "'scores' that is right for an original twice as high and three times as wide as the batch",
        "image 0: [0] ",
    ),
    "a merge that is not there": (
        "head_windows",
        "classification",
        "pass",
        "no error",
        "NotImplementedError: Thing cannot merge the outputs of windows",
    ),
    "a sum of windows without their places": (
        "head_windows",
        "segmentation",
        """\
def merge(self, outputs, windows, size):
    return {"logits": torch.cat([output["logits"] for output in outputs], dim=-1)[..., : size[1]]}""",
        "of 3 windows over 64x128 pixels, where only one looks, what that gives",
        "'mask' of the window at 0, 64: [",
    ),
}


@pytest.mark.parametrize(("check", "task", "wrong", "expected", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_head_is_found_out(result, check, task, wrong, expected, text):
    found = result(check, *arguments(task, wrong, "windows=True" if check == "head_windows" else ""))
    assert (found.status, found.check.name) == ("failed", check), found
    assert expected in found.expected
    assert text in found.found


def test_a_head_without_a_place_is_not_checked_for_it(result):
    wrong = """\
def predict(self, output, batch):
    return [{name: value[:0] for name, value in one.items()} for one in super().predict(output, batch)]"""
    found = result("head_coordinates", *arguments("detection", wrong))
    assert (found.status, found.reason) == (
        "left out",
        "an untrained head predicts no place: give it a lower threshold in its options",
    )
