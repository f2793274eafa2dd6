"""Losses that are wrong in one way, and what the kit says of each."""

import textwrap

import pytest

TINY = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 24}}
LABELS = {**TINY, "data": {"limit": None, "scenes": {"count": 16, "digits": [1, 3], "seed": 6}}, "image": {"size": 32}}

RIGHT = """
import torch
from torch.nn import functional as F
from ftengine.protocols import Loss

class Right(Loss):
    def each(self, output, batch):
        label = batch.targets["label"]
        return F.cross_entropy(output["logits"].float(), label, reduction="none")
    def forward(self, output, batch):
        return {"right": self.each(output, batch).mean()}
"""
OF_LABELS = """
class Right(Right):
    def each(self, output, batch):
        labels = batch.targets["labels"]
        return F.binary_cross_entropy_with_logits(output["logits"].float(), labels, reduction="none")
"""
END = """
def thing(options, context):
    return Thing()
"""

pytestmark = pytest.mark.usefixtures("third_party")


def arguments(wrong="pass", field="label"):
    """What `component` takes for a loss of `field` that is right but for `wrong`, the body of a subclass."""
    code = RIGHT + (OF_LABELS if field == "labels" else "")
    code += "\nclass Thing(Right):\n" + textwrap.indent(wrong, "    ") + "\n" + END
    more = f'task="classification", fields=("{field}",), soft=True'
    return "loss", code, more, "", LABELS if field == "labels" else TINY


@pytest.mark.parametrize(("field", "left_out"), [("label", {"empty_targets"}), ("labels", set())])
def test_a_right_loss_passes_every_check(component, field, left_out):
    from ftengine.testing.kit import checks_for, run_check

    subject = component(*arguments(field=field))
    own = ("ftengine.testing.heads", "ftengine.testing.losses", "ftengine.testing.sizes")
    results = [run_check(one, subject) for one in checks_for("loss") if one.run.__module__ in own]
    assert len(results) == 8
    assert [one.text for one in results if one.status == "failed"] == []
    assert {one.check.name for one in results if one.status == "left out"} == left_out


WRONG = {
    "the wrong sign of the gradient": (
        "loss_falls",
        """\
def each(self, output, batch):
    loss = super().each(output, batch)
    return 2 * loss.detach() - loss""",
        "label",
        "a loss that falls by 10% within 20 steps on one batch",
        " before the first, ",
    ),
    "a weight for each of ten classes": (
        "one_name_more",
        """\
def each(self, output, batch):
    label = batch.targets["label"]
    return F.cross_entropy(output["logits"].float(), label, weight=torch.ones(10), reduction="none")""",
        "label",
        "that it can be made for 11 names of `label` in place of 10",
        "weight tensor should be defined either for all 11 classes",
    ),
    "a mean over no classes": (
        "empty_targets",
        """\
def forward(self, output, batch):
    return {"right": self.each(output, batch)[batch.targets["labels"] > 0].mean()}""",
        "labels",
        "a finite loss of images without any `labels`",
        "right nan",
    ),
    "a constant where there is nothing": (
        "empty_targets",
        """\
def forward(self, output, batch):
    return super().forward(output, batch) if batch.targets["labels"].any() else {"right": torch.zeros(())}""",
        "labels",
        "a loss of images without any `labels` that the weights count in",
        "one that requires no gradient",
    ),
    "no dict": (
        "loss_terms",
        "def forward(self, output, batch): return self.each(output, batch).mean()",
        "label",
        "a dict of named terms",
        "tensor float32 []",
    ),
    "no terms": (
        "loss_terms",
        "def forward(self, output, batch): return {}",
        "label",
        "a dict of named terms",
        "an empty dict",
    ),
    "a number": (
        "loss_terms",
        "def forward(self, output, batch): return {'right': self.each(output, batch).mean().item()}",
        "label",
        "a tensor for each name",
        "float for 'right'",
    ),
    "a value an image": (
        "loss_terms",
        "def forward(self, output, batch): return {'right': self.each(output, batch)}",
        "label",
        "a floating-point scalar for each name",
        "tensor float32 [4] for 'right'",
    ),
    "a term that is not finite": (
        "loss_terms",
        "def forward(self, output, batch): return {'right': (0 * self.each(output, batch).mean()).log()}",
        "label",
        "finite terms",
        "-inf for 'right'",
    ),
    "a term for the log only": (
        "loss_terms",
        """\
def forward(self, output, batch):
    return {**super().forward(output, batch), "share": (output["logits"].argmax(1) == 0).float().mean()}""",
        "label",
        "terms with a gradient, as all of them are minimised",
        "'share' without one",
    ),
    "a sum": (
        "loss_mean",
        "def forward(self, output, batch): return {'right': self.each(output, batch).sum()}",
        "label",
        "the same 'right', to within 0.1%, of a batch as of that batch twice over",
        "of 4 images, ",
    ),
    "the size of the batch as it was": (
        "loss_mean",
        "def forward(self, output, batch): return {'right': self.each(output, batch).sum() / 4}",
        "label",
        "the same 'right', to within 0.1%, of a batch as of that batch twice over",
        "of 4 images, ",
    ),
    "a division by one less": (
        "loss_mean",
        "def forward(self, output, batch): return {'right': self.each(output, batch).sum() / (len(batch) - 1)}",
        "label",
        "the same 'right', to within 0.1%, of a batch as of that batch twice over",
        "of 4 images, ",
    ),
    "class ids only": (
        "loss_soft_targets",
        """\
def each(self, output, batch):
    return F.nll_loss(output["logits"].log_softmax(-1), batch.targets["label"], reduction="none")""",
        "label",
        "no error",
        "RuntimeError",
    ),
    "the likeliest class": (
        "loss_soft_targets",
        """\
def each(self, output, batch):
    label = batch.targets["label"]
    label = label.argmax(-1) if label.is_floating_point() else label
    return F.cross_entropy(output["logits"], label, reduction="none")""",
        "label",
        "another loss where 30% of each image's target are another image's",
        "the same: right 2.",
    ),
    "a mean over the classes, too": (
        "loss_soft_targets",
        """\
def each(self, output, batch):
    label = batch.targets["label"]
    if label.is_floating_point():
        return -(label * output["logits"].log_softmax(-1)).flatten()
    return super().each(output, batch)""",
        "label",
        "the same of one-hot probabilities as of class ids",
        "['right'] 0.2",
    ),
    "a draw": (
        "loss_repeats",
        """\
def each(self, output, batch):
    return super().each({"logits": F.dropout(output["logits"])}, batch)""",
        "label",
        "the same of the same output and targets",
        "['right'] ",
    ),
    "logits that are scaled in place": (
        "loss_inputs",
        """\
def each(self, output, batch):
    output["logits"] = output["logits"] / 2
    return super().each(output, batch)""",
        "label",
        "output and targets as they were",
        "['output']['logits'][0, 0] ",
    ),
    "targets that are smoothed in place": (
        "loss_inputs",
        """\
def each(self, output, batch):
    batch.targets["labels"].clamp_(0.1, 0.9)
    return super().each(output, batch)""",
        "labels",
        "output and targets as they were",
        "['targets']['labels'][0, 0] 0.89",
    ),
}


@pytest.mark.parametrize(("check", "wrong", "field", "expected", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_loss_is_found_out(result, check, wrong, field, expected, text):
    found = result(check, *arguments(wrong, field))
    assert (found.status, found.check.name) == ("failed", check), found
    assert expected in found.expected
    assert text in found.found
