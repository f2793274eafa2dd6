import json
import pickle

import numpy as np
import pytest
import torch

from ftengine.errors import DataError, FtengineError
from ftengine.protocols import Dataset, TaskContext
from ftengine_classification.options import TaskOptions
from ftengine_classification.task import Classification


class Listed(Dataset):
    def __init__(self, field, names, targets):
        self.names = {field: tuple(names)}
        self.targets = targets
        self.field = field

    def __len__(self):
        return len(self.targets)

    def target(self, index):
        return {self.field: self.targets[index]}

    def image(self, index):
        raise AssertionError("a task must not decode images")

    def sample_id(self, index):
        return f"sample-{index}.png"


def make(field="label", **options):
    return Classification(TaskOptions(**options), TaskContext(field=field))


def fitted(field, names, targets, **options):
    task = make(field, **options)
    task.fit(Listed(field, names, targets))
    return task


def single():
    return fitted("label", ["ants", "bees", "cats"], [0, 1, 1, 2, 2, 2])


def multi():
    return fitted("labels", ["a", "b", "c"], [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_fit_counts_the_samples_of_each_class():
    task = single()
    assert task.labels.names == ("ants", "bees", "cats")
    assert not task.multi_label
    assert task.counts.dtype == np.int64
    assert task.counts.tolist() == [1, 2, 3]
    assert task.samples == 6


def test_fit_counts_the_positives_of_each_class():
    task = multi()
    assert task.multi_label
    assert task.counts.tolist() == [2, 1, 1]
    assert task.samples == 4


@pytest.mark.parametrize("task", [single(), multi()], ids=["label", "labels"])
def test_state_is_json_and_comes_back(task):
    again = make(task.field)
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.labels == task.labels
    assert again.samples == task.samples
    np.testing.assert_array_equal(again.counts, task.counts)
    assert again.counts.dtype == np.int64
    assert again.state() == task.state()


def test_a_state_of_the_other_field_is_refused():
    with pytest.raises(FtengineError, match=r"trained on the target field 'label', and this run's is 'labels'"):
        make("labels").load_state(single().state())


def test_encoder_goes_by_class_name_and_pickles():
    data = Listed("label", ["cats", "ants"], [0, 1, 1])
    encoder = pickle.loads(pickle.dumps(single().encoder(data, "val")))
    encoded = [encoder(data.target(i))["label"] for i in range(3)]
    assert [int(label) for label in encoded] == [2, 0, 0]
    assert all(label.dtype == np.int64 and label.shape == () for label in encoded)


def test_multi_label_encoder_goes_by_class_name_and_pickles():
    data = Listed("labels", ["c", "a"], [np.array([1, 0], np.float32), np.array([1, 1], np.float32)])
    encoder = pickle.loads(pickle.dumps(multi().encoder(data, "val")))
    rows = [encoder(data.target(i))["labels"] for i in range(2)]
    assert [row.tolist() for row in rows] == [[0, 0, 1], [1, 0, 1]]
    assert all(row.dtype == np.float32 for row in rows)


def test_a_class_that_training_lacks_is_refused():
    with pytest.raises(DataError, match=r"^val has a class that the training split lacks: dogs"):
        single().encoder(Listed("label", ["ants", "dogs"], [0, 1]), "val")


@pytest.mark.parametrize(
    ("label", "found"),
    [(3, "label is 3; expected a class index from 0 to 2"), (-1, "label is -1"), (0.5, "label is 0.5"), (None, "None")],
)
def test_a_label_out_of_range_names_place_and_sample(label, found):
    names = ["ants", "bees", "cats"]
    with pytest.raises(DataError, match=r"^test: sample 'sample-1.png': ") as caught:
        single().encoder(Listed("label", names, [0, label]), "test")
    assert found in str(caught.value)
    with pytest.raises(DataError, match=r"^train: sample 'sample-1.png': "):
        make().fit(Listed("label", names, [0, label]))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([1, 0], "shape [2]; expected one number for each of 3 classes"),
        ([1, 2, 0], "labels holds 2; expected only 0 and 1"),
        ([1, float("nan"), 0], "labels holds nan"),
        (None, "shape []"),
    ],
)
def test_bad_labels_name_place_and_sample(labels, found):
    with pytest.raises(DataError, match=r"^train: sample 'sample-0.png': ") as caught:
        make("labels").fit(Listed("labels", ["a", "b", "c"], [labels]))
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("field", "names", "targets", "message"),
    [
        ("label", ["ants", "bees"], [0, 0], "train: label: an empty class: bees; every class needs"),
        ("label", ["a", "b", "c"], [0], "train: label: empty classes: b, c"),
        ("label", ["ants"], [0, 0], "at least 2 classes; found 1: ants"),
        ("label", ["a", "a"], [0, 1], "class names given more than once: a"),
        ("label", ["a", "b"], [], "train: no samples"),
        ("labels", ["a", "b"], [[1, 0]], "train: labels: an empty class: b"),
        ("labels", [], [[]], "at least 1 classes; found 0"),
    ],
)
def test_unusable_training_data(field, names, targets, message):
    with pytest.raises(DataError) as caught:
        make(field).fit(Listed(field, names, targets))
    assert message in str(caught.value)


def test_a_field_that_is_not_there():
    with pytest.raises(DataError, match=r"^val: the data have no target field 'label'; they have: values"):
        single().encoder(Listed("values", ["x"], [[1.0]]), "val")


def test_describe_names_the_most_probable_class():
    row = single().describe({"scores": torch.tensor([0.25, 0.625, 0.125])})
    assert row == {"label": "bees", "score": 0.625, "p(ants)": 0.25, "p(bees)": 0.625, "p(cats)": 0.125}


def test_describe_names_all_classes_from_the_threshold_on():
    scores = torch.tensor([0.5, 0.25, 0.75])
    assert multi().describe({"scores": scores}) == {"labels": "a;c", "p(a)": 0.5, "p(b)": 0.25, "p(c)": 0.75}
    assert make("labels", threshold=0.9).threshold == 0.9
    strict = fitted("labels", ["a", "b", "c"], [[1, 1, 1]], threshold=0.7)
    assert strict.describe({"scores": scores})["labels"] == "c"
    assert strict.describe({"scores": torch.zeros(3)})["labels"] == ""


def test_strata_are_the_labels():
    data = Listed("label", ["a", "b"], [1, 0, 1])
    np.testing.assert_array_equal(make().strata(data), [1, 0, 1])


def test_strata_of_combinations_merge_rare_ones_by_their_rarest_class():
    frequent = [[1, 0, 0]] * 6 + [[1, 1, 0]] * 5
    rare = [[1, 0, 1], [0, 1, 1], [0, 0, 1]]
    strata = make("labels").strata(Listed("labels", ["a", "b", "c"], frequent + rare))
    assert strata.shape == (14,)
    assert len(set(strata[:6])) == 1
    assert len(set(strata[6:11])) == 1
    # Each rare combination holds the rarest class, c.
    assert len(set(strata[11:])) == 1
    assert len(set(strata)) == 3


def test_softened_labels_are_one_hot():
    label = torch.tensor([2, 0])
    soft = single().soften({"label": label})
    assert list(soft) == ["label"]
    assert soft["label"].dtype == torch.float32
    assert soft["label"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_labels_are_soft_already():
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    soft = multi().soften({"labels": labels})
    assert list(soft) == ["labels"]
    assert torch.equal(soft["labels"], labels)
