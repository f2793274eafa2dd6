"""Datasets that are wrong in one way, and what the kit says of each."""

import re

import numpy as np
import pytest

SPEC = 'fields=("label",)'
RIGHT = """
import random
import numpy as np
import torch
from ftengine.protocols import Dataset

class Right(Dataset):
    names = {"label": ("dark", "light")}
    labels = [0, 1, 0, 1, 1, 0]
    def __len__(self):
        return len(self.labels)
    def target(self, index):
        return {"label": self.labels[index]}
    def sample_id(self, index):
        return f"constant-{index}"
    def image(self, index):
        return np.full((8 + index, 12, 3), 200 * self.labels[index], np.uint8)
    def size(self, index):
        return 8 + index, 12

class Thing(Right):
"""
END = """

def thing(options, context):
    return Thing()
"""


@pytest.fixture
def thing(component):
    """The subject of a dataset that is right but for `wrong`, the body of a subclass."""

    def make(wrong, spec=SPEC, end=END, **more):
        body = "\n".join(f"    {line}" for line in wrong.splitlines())
        return component("dataset", RIGHT + body + end, spec, **more)

    return make


@pytest.fixture
def found(thing):
    from ftengine.testing.kit import find_check, run_check

    def run(check, wrong, **more):
        return run_check(find_check(check), thing(wrong, **more))

    return run


def test_a_right_dataset_passes_every_check(thing):
    from ftengine.testing.kit import checks_for, run_check

    subject = thing("pass")
    results = [run_check(one, subject) for one in checks_for("dataset") if one.name.startswith("dataset_")]
    assert len(results) == 9
    assert [one.text for one in results if one.status == "failed"] == []
    assert [one.check.name for one in results if one.status == "left out"] == ["dataset_splits"]


WRONG = {
    "a field less": (
        "dataset_names",
        "names = {}",
        "names of label in the train split",
        "of none",
    ),
    "a name twice": (
        "dataset_names",
        'names = {"label": ("dark", "dark")}',
        "a tuple of different names for `label`",
        "('dark', 'dark')",
    ),
    "an id less": (
        "dataset_names",
        'ids = {"label": (3,)}',
        "a different id for each of 2 names of `label`",
        "(3,)",
    ),
    "ids that are numbers": (
        "dataset_ids",
        "def sample_id(self, index): return index",
        "a text as sample_id()",
        "0 for sample 0 of the train split",
    ),
    "an id twice": (
        "dataset_ids",
        "def sample_id(self, index): return f'constant-{index // 2}'",
        "a sample_id() of its own for each sample",
        "'constant-0' for samples 0 and 1 of the train split",
    ),
    "images of floats": (
        "dataset_images",
        "def image(self, index): return super().image(index) / 255",
        "array uint8 [height, width, 3] from image()",
        "array float64 [8, 12, 3] for sample constant-0",
    ),
    "grey images": (
        "dataset_images",
        "def image(self, index): return super().image(index)[..., 0]",
        "array uint8 [height, width, 3] from image()",
        "array uint8 [8, 12] for sample constant-0",
    ),
    "channels first": (
        "dataset_images",
        "def image(self, index): return super().image(index).transpose(2, 0, 1)",
        "array uint8 [height, width, 3] from image()",
        "array uint8 [3, 8, 12] for sample constant-0",
    ),
    "clips that are not announced": (
        "dataset_images",
        "def image(self, index): return super().image(index)[None]",
        "array uint8 [height, width, 3] from image()",
        "array uint8 [1, 8, 12, 3] for sample constant-0",
    ),
    "width before height": (
        "dataset_images",
        "def size(self, index): return 12, 8 + index",
        "(height, width) of the image from size(), (8, 12)",
        "(12, 8) for sample constant-0",
    ),
    "a target without its field": (
        "dataset_targets",
        "def target(self, index): return {'class': 0}",
        "`label` in each target",
        "class for sample constant-0",
    ),
    "a label outside of its names": (
        "dataset_targets",
        "def target(self, index): return {'label': index}",
        "`label` as the vocabulary has it",
        "2, outside of its 2 names, for sample constant-2",
    ),
    "a label by its name": (
        "dataset_targets",
        "def target(self, index): return {'label': 'dark'}",
        "`label` as the vocabulary has it",
        "'dark', which is no int, for sample constant-0",
    ),
    "a sample that depends on how often it is read": (
        "dataset_stable",
        """\
reads = 0
def target(self, index):
    self.reads += 1
    return {"label": self.reads % 2}""",
        "the same a second time",
        "['target']['label'] ",
    ),
    "a sample that depends on the one before": (
        "dataset_stable",
        """\
last = 0
def image(self, index):
    image = super().image(index) + np.uint8(self.last)
    self.last = index
    return image""",
        "the same a second time",
        "['image'][0, 0, 0] ",
    ),
    "images with noise": (
        "dataset_stable",
        "def image(self, index): return np.random.default_rng().integers(0, 256, (8 + index, 12, 3), np.uint8)",
        "the same a second time",
        "['image'][0, 0, ",
    ),
    "an open file inside": (
        "dataset_stable",
        "def __init__(self): self.file = open(__file__)",
        "a dataset that can be pickled, as it is read in worker processes",
        "TypeError: cannot pickle",
    ),
    "a copy that has forgotten": (
        "dataset_stable",
        """\
def __init__(self): self.bright = 50
def __setstate__(self, state): self.bright = 0
def image(self, index): return super().image(index) + np.uint8(self.bright)""",
        "the same from a pickled dataset",
        "['image'][0, 0, 0] 0, not 50",
    ),
    "an order that changes": (
        "dataset_stable",
        """\
made = 0
def __init__(self):
    Thing.made += 1
    self.labels = self.labels if Thing.made % 2 else self.labels[::-1]""",
        "the same from one of the same making",
        "['",
    ),
    "data[index] of another sample": (
        "dataset_stable",
        """\
def __getitem__(self, index):
    sample = super().__getitem__(index)
    return type(sample)(sample.image[::-1] + np.uint8(1), sample.target, sample.id)""",
        "the same from data[index] as from its methods",
        "['image'][0, 0, 0] 1, not 0",
    ),
    "images that it keeps": (
        "dataset_own_arrays",
        """\
kept = {}
def image(self, index):
    return self.kept.setdefault(index, super().image(index))""",
        "arrays that belong to whoever gets them",
        "after they were written to, ['image'][0, 0, 0] 1, not 0",
    ),
    "global random numbers": (
        "dataset_no_randomness",
        "def target(self, index): return {'label': random.randrange(2)}",
        "the same samples with other global seeds",
        "['target']['label'] ",
    ),
    "a factory that shuffles": (
        "dataset_no_randomness",
        "def __init__(self): self.labels = np.random.permutation(self.labels).tolist()",
        "the same samples with other global seeds",
        "of the train split",
    ),
    "numbers that are drawn and not used": (
        "dataset_no_randomness",
        """\
def image(self, index):
    torch.rand(2)
    return super().image(index)""",
        "that global generators are left alone",
        "numbers drawn from torch",
    ),
    "no end": (
        "dataset_end",
        """\
def target(self, index): return super().target(index % 6)
def image(self, index): return super().image(index % 6)""",
        "IndexError from data[6] of 6 samples",
        "a sample, in the train split",
    ),
    "another error at the end": (
        "dataset_end",
        """\
def target(self, index):
    assert index < len(self), "no such sample"
    return super().target(index)""",
        "IndexError from data[6] of 6 samples",
        "AssertionError: no such sample, in the train split",
    ),
}


@pytest.mark.parametrize(("check", "wrong", "expected", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_dataset_is_found_out(found, check, wrong, expected, text):
    result = found(check, wrong)
    assert (result.status, result.check.name) == ("failed", check)
    assert result.expected == expected
    assert text in result.found


def test_a_dataset_that_needs_files_says_what_it_lacks(found):
    options = """
class ThingOptions(DatasetOptions):
    train: str = Field(description="Where it is.")
"""
    result = found("dataset_images", "pass", spec=SPEC + ", options=ThingOptions", options=options)
    assert result.expected.startswith("a run that can be made of what its spec says")
    assert "data.train" in result.found


def test_options_may_not_promise_what_the_spec_does_not(found):
    options = """
class ThingOptions(DatasetOptions):
    def target_fields(self): return frozenset({"label", "values"})
"""
    result = found("dataset_names", "pass", spec=SPEC + ", options=ThingOptions", options=options)
    assert (result.expected, result.found) == ("that the options promise fields of the spec: label", "values")


def test_what_a_target_holds_beside_its_fields_may_be_anything(found):
    wrong = "def target(self, index): return {**super().target(index), 'places': np.array(['a', None], object)}"
    assert found("dataset_own_arrays", wrong).status == "ok"


def test_what_the_check_writes_does_not_stay_in_a_file(found, tmp_path):
    pixels = np.arange(6 * 8 * 12 * 3, dtype=np.uint8)
    pixels.tofile(tmp_path / "pixels.bin")
    wrong = f"""\
def image(self, index): return np.memmap({str(tmp_path / "pixels.bin")!r}, np.uint8, shape=(6, 8, 12, 3))[index]
def size(self, index): return 8, 12"""
    assert found("dataset_own_arrays", wrong).status == "failed"
    assert np.array_equal(np.fromfile(tmp_path / "pixels.bin", np.uint8), pixels)


def test_splits_have_the_same_fields(found):
    end = """

def thing(options, context):
    data = Thing()
    data.names = data.names if context.split == "train" else {}
    return data
"""
    result = found("dataset_names", "pass", end=end, changes={"data": {"val": "there"}})
    assert (result.expected, result.found) == ("names of label in the val split", "of none")


OWN_SAMPLES = """

def thing(options, context):
    data = Thing()
    if context.split == "val":
        data.sample_id = lambda index: f"{NAME}-{index}"
        data.labels = LABELS
    return data
"""


@pytest.mark.parametrize(
    ("val", "name", "labels", "status"),
    [
        ("there", "constant", "data.labels", "failed"),
        ("there", "constant", "[1 - label for label in data.labels]", "ok"),
        ("there", "other", "data.labels", "ok"),
        ("here", "constant", "data.labels", "left out"),
    ],
)
def test_splits_have_samples_of_their_own(found, val, name, labels, status):
    end = OWN_SAMPLES.replace("{NAME}", name).replace("LABELS", labels)
    result = found("dataset_splits", "pass", end=end, changes={"data": {"train": "here", "val": val}})
    assert result.status == status
    if status == "failed":
        assert result.expected == "other samples in the val split, 'there', than in the train split"
        assert result.found.startswith("the same ones, as constant-0, constant-1, ")


def test_what_changes_by_itself_is_not_taken_for_a_shared_array(found):
    result = found(
        "dataset_own_arrays", "def image(self, index): return np.random.randint(0, 255, (8, 12, 3), np.uint8)"
    )
    assert result.expected == "a sample that is the same when it is read again"
    assert result.found.endswith(": see dataset_stable")


@pytest.mark.parametrize(("frames", "status"), [(4, "ok"), (3, "failed")])
def test_clips_have_the_frames_that_their_options_announce(thing, frames, status):
    from ftengine.plan import Part
    from ftengine.testing.kit import find_check, run_check

    options = """
class ThingOptions(DatasetOptions):
    def clip_frames(self): return 4
"""
    clips = f"def image(self, index): return np.stack([super(Thing, self).image(index)] * {frames})"
    subject = thing(clips, spec=SPEC + ", options=ThingOptions", options=options)
    # A whole run would need a backbone that takes clips.
    vars(subject)["part"] = Part(subject.component, subject.component.spec.options(), ("data",))
    result = run_check(find_check("dataset_images"), subject)
    assert result.status == status
    if frames == 3:
        assert result.expected == "array uint8 [4, height, width, 3] from image()"
        assert result.found == "array uint8 [3, 8, 12, 3] for sample constant-0"


SIZE = (20, 30)
BOXES = {
    "boxes": np.array([[1.0, 2.0, 10.0, 20.0]]),
    "box_labels": np.array([1]),
    "box_crowd": np.array([False]),
    "box_areas": np.array([80.0]),
}
GOOD = {
    "label": ({"label": 1}, "label"),
    "labels": ({"labels": np.array([0, 1], np.float32)}, "labels"),
    "values": ({"values": np.array([0.5, -3], np.float32)}, "values"),
    "boxes": (BOXES, "boxes"),
    "no boxes": ({name: value[:0] for name, value in BOXES.items()}, "boxes"),
    "mask": ({"mask": np.full(SIZE, 255, np.uint8)}, "mask"),
}
BAD = {
    "label of True and False": ({"label": 0.0}, "label", "0.0, which is no int"),
    "labels as indices": ({"labels": np.array([1])}, "labels", "array int64 [1] where array float32 [2] is due"),
    "labels by halves": ({"labels": np.array([0, 0.5], np.float32)}, "labels", "0.5, neither 0 nor 1"),
    "values in double": ({"values": np.zeros(2)}, "values", "array float64 [2] where array float32 [2] is due"),
    "a value that is none": (
        {"values": np.array([1, np.nan], np.float32)},
        "values",
        "[1.0, nan], which is not finite",
    ),
    "boxes with width and height": (
        BOXES | {"boxes": np.array([[10.0, 5.0, 4.0, 4.0]])},
        "boxes",
        "a box [10.0, 5.0, 4.0, 4.0] without x1 < x2 and y1 < y2",
    ),
    "a box beyond its image": (
        BOXES | {"boxes": np.array([[1.0, 2.0, 21.0, 25.0]])},
        "boxes",
        "a box [1.0, 2.0, 21.0, 25.0] outside of its image of 30×20 pixels",
    ),
    "boxes without areas": (
        {name: value for name, value in BOXES.items() if name != "box_areas"},
        "boxes",
        "no `box_areas` beside them",
    ),
    "a class less than boxes": (
        BOXES | {"box_labels": np.zeros(0, np.int64)},
        "boxes",
        "`box_labels` is array int64 [0] where array int64 [1] is due",
    ),
    "a class outside of its names": (
        BOXES | {"box_labels": np.array([2])},
        "boxes",
        "`box_labels` from 2 to 2, outside of its 2 names",
    ),
    "an area below 0": (BOXES | {"box_areas": np.array([-1.0])}, "boxes", "an area of -1 square pixels"),
    "boxes of integers": (
        BOXES | {"boxes": np.array([[1, 2, 3, 4]])},
        "boxes",
        "array int64 [1, 4] where array float64 [1, 4] is due",
    ),
    "a mask of another size": (
        {"mask": np.zeros((30, 20), np.uint8)},
        "mask",
        "array uint8 [30, 20] where array uint8 [20, 30] is due",
    ),
    "a mask with another value": (
        {"mask": np.full(SIZE, 7, np.uint8)},
        "mask",
        "7, which is neither one of its 2 names nor 255",
    ),
}


@pytest.mark.parametrize(("target", "field"), GOOD.values(), ids=GOOD)
def test_a_field_as_the_vocabulary_has_it(target, field):
    from ftengine.testing.fields import FIELD_CHECKS

    FIELD_CHECKS[field](target[field], target, ("a", "b"), SIZE)


@pytest.mark.parametrize(("target", "field", "text"), BAD.values(), ids=BAD)
def test_a_field_that_is_something_else(target, field, text):
    from ftengine.testing.fields import FIELD_CHECKS

    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        FIELD_CHECKS[field](target[field], target, ("a", "b"), SIZE)


def test_every_field_of_the_vocabulary_is_checked():
    from ftengine.protocols import TARGET_FIELDS
    from ftengine.testing.fields import FIELD_CHECKS

    assert set(FIELD_CHECKS) == set(TARGET_FIELDS)
