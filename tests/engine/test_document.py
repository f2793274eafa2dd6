"""A config file as data with places: lines, overrides, and files that are not what they should be."""

import pytest

from ftengine.document import MAX_NODES, Document, Origin, dotted, override, read, walk
from ftengine.errors import ConfigError


@pytest.fixture
def written(tmp_path):
    def write(text, name="run.yaml"):
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


def problems(error):
    return [(problem.path, problem.line, problem.message) for problem in error.value.problems]


def changed(text, *assignments, written):
    document = read(written(text))
    override(document, assignments)
    return document


# --- reading -----------------------------------------------------------------------------------------------------


def test_every_key_and_item_has_its_line(written):
    file = written(
        "task: classification\n\ntrain:\n  epochs: 3\n  ema: {decay: 0.9,\n    warmup: true}\nmetrics:\n- a\n- b\n"
    )
    document = read(file)
    lines = {dotted(path): origin.line for path, origin in document.origins.items()}
    assert lines == {
        "task": 1,
        "train": 3,
        "train.epochs": 4,
        "train.ema": 5,
        "train.ema.decay": 5,
        "train.ema.warmup": 6,
        "metrics": 7,
        "metrics[0]": 8,
        "metrics[1]": 9,
    }
    assert {origin.source for origin in document.origins.values()} == {str(file)}
    assert document.origin(("metrics", 1, "name", "x")) == Origin(str(file), 9)
    assert document.origin(("nowhere",)) is None


def test_a_problem_without_a_place_still_names_the_file(written):
    document = read(written("a: 1\n"))
    assert str(document.problem(("b",), "is missing")) == f"{document.origins[('a',)].source}: b: is missing"
    assert str(Document().problem((), "is missing")) == "(top level): is missing"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-3e-2", -0.03),
        ("+2e+1", 20.0),
        ("1.5e3", 1500.0),
        ("1.e-3", 1e-3),
        ("1e-4x", "1e-4x"),
    ],
)
def test_numbers_with_an_exponent_are_numbers(written, text, value):
    assert read(written(f"lr: {text}\n")).data == {"lr": value}


def test_an_empty_file_is_an_empty_config(written):
    assert read(written("# nothing\n")).data == {}


def test_a_missing_file_gets_the_nearest_name(written, tmp_path):
    written("", "digits.yaml")
    with pytest.raises(ConfigError, match=r"no such file in .*; did you mean 'digits\.yaml'\?"):
        read(tmp_path / "digit.yaml")
    with pytest.raises(ConfigError, match=r"no such file; there is no folder .*absent"):
        read(tmp_path / "absent" / "digits.yaml")


def test_a_folder_and_a_file_that_is_no_text_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "binary.yaml")


def test_broken_yaml_has_its_line(written):
    with pytest.raises(ConfigError) as error:
        read(written("a: 1\nb: [1, 2\nc: 3\n"))
    ((path, line, message),) = problems(error)
    assert (path, line) == ("", 3)
    assert message.startswith("is not valid YAML: ")


@pytest.mark.parametrize(("text", "found"), [("- 1\n", "list"), ("hello\n", "str"), ("3\n", "int")])
def test_a_file_must_be_a_mapping(written, text, found):
    with pytest.raises(ConfigError, match=f"expected a mapping of names to values, found a {found}"):
        read(written(text))


def test_keys_given_twice_are_all_reported_with_both_lines(written):
    with pytest.raises(ConfigError) as error:
        read(written("train:\n  epochs: 3\n  seed: 1\n  epochs: 4\ntrain: {}\n"))
    assert problems(error) == [
        ("train.epochs", 4, "given twice, first on line 2"),
        ("train", 5, "given twice, first on line 1"),
    ]


@pytest.mark.parametrize("key", ["1", "true", "no", "null", "1.5"])
def test_keys_that_yaml_does_not_read_as_names_are_refused(written, key):
    with pytest.raises(ConfigError) as error:
        read(written(f"a: 1\nloss:\n  {key}: 2\n"))
    ((path, line, message),) = problems(error)
    assert (path, line) == ("loss", 3)
    assert message == f"a key must be a name, and {key} is none in YAML; write it in quotes: '{key}'"
    assert read(written(f"loss:\n  '{key}': 2\n")).data == {"loss": {key: 2}}


def test_a_key_that_is_a_list_is_refused(written):
    with pytest.raises(ConfigError, match="a key must be a name"):
        read(written("? [a, b]\n: 1\n"))


def test_python_objects_are_refused_and_not_made(written, tmp_path):
    target = tmp_path / "made"
    with pytest.raises(ConfigError, match="is not valid YAML: could not determine a constructor"):
        read(written(f"a: !!python/object/apply:os.mkdir ['{target}']\n"))
    assert not target.exists()


# --- aliases -----------------------------------------------------------------------------------------------------


def test_merged_keys_have_the_lines_they_were_written_on(written):
    text = (
        "base: &base\n  epochs: 3\n  seed: 1\ntrain:\n  seed: 2\n  <<: *base\nother:\n  <<: [*base, {seed: 7, x: 1}]\n"
    )
    document = read(written(text))
    assert document.data["train"] == {"epochs": 3, "seed": 2}
    assert document.data["other"] == {"epochs": 3, "seed": 1, "x": 1}
    lines = {dotted(path): origin.line for path, origin in document.origins.items()}
    assert lines["train.epochs"] == 2
    assert lines["train.seed"] == 5
    assert (lines["other.epochs"], lines["other.seed"], lines["other.x"]) == (2, 3, 8)


def laughs(first, make, depth=40):
    return "".join([f"a0: &a0 {first}\n", *(f"a{i}: &a{i} {make(f'*a{i - 1}')}\n" for i in range(1, depth))])


@pytest.mark.parametrize(
    "text",
    [
        laughs("[x, x]", lambda alias: f"[{alias}, {alias}]"),
        laughs("{x: 1}", lambda alias: f"{{k: {alias}, l: {alias}}}"),
        laughs("{x: 1}", lambda alias: f"{{k: {alias}, k: {alias}}}"),
        laughs("{x: 1}", lambda alias: f"{{<<: [{alias}, {alias}]}}"),
    ],
    ids=["lists", "mappings", "the same key", "merges"],
)
def test_a_small_file_that_expands_without_end_is_refused(written, text):
    with pytest.raises(ConfigError, match=f"has more than {MAX_NODES} values"):
        read(written(text))


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: " + "[" * 5000 + "]" * 5000])
def test_a_file_that_contains_itself_or_is_very_deep_is_refused(written, text):
    with pytest.raises(ConfigError, match="is nested too deeply, or contains itself"):
        read(written(text))


def test_changing_one_use_of_an_alias_leaves_the_other(written):
    document = changed("a: &x {lr: [1, 2]}\nb: *x\n", "a.lr[0]=5", "b.new=1", written=written)
    assert document.data == {"a": {"lr": [5, 2]}, "b": {"lr": [1, 2], "new": 1}}


# --- overrides ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "assignment", "expected"),
    [
        ("train: {epochs: 3}", "train.epochs=5", {"train": {"epochs": 5}}),
        ("a: 1", "train.ema.decay=1e-2", {"a": 1, "train": {"ema": {"decay": 0.01}}}),
        ("train:", "train.epochs=5", {"train": {"epochs": 5}}),
        ("metrics: [a, b]", "metrics[1]=c", {"metrics": ["a", "c"]}),
        ("metrics: [a, b]", "metrics.0=c", {"metrics": ["c", "b"]}),
        ("weights: {'3': 1.0}", "weights.3=2.0", {"weights": {"3": 2.0}}),
        ("loss: {weights: {'3': {a: 1}}}", "loss.weights.3.a=2", {"loss": {"weights": {"3": {"a": 2}}}}),
        ("metrics: [a, b]", "metrics[1].k=3", {"metrics": ["a", {"name": "b", "k": 3}]}),
        ("head: linear", "head.dropout=0.1", {"head": {"name": "linear", "dropout": 0.1}}),
        ("data: digits", "data.limit=9", {"data": {"format": "digits", "limit": 9}}),
        (
            "backbone: {name: x, weights: default}",
            "backbone.weights.allow=[a]",
            {"backbone": {"name": "x", "weights": {"source": "default", "allow": ["a"]}}},
        ),
        ("head: {name: mlp, hidden: [3]}", "head=linear", {"head": "linear"}),
        ("a: 1", "b={c: [1, x], d: null}", {"a": 1, "b": {"c": [1, "x"], "d": None}}),
        ("a: 1", "a=", {"a": None}),
        ("a: 1", "a=x=y", {"a": "x=y"}),
        ("a: 1", " a =2", {"a": 2}),
        ("a: {b-c: 1}", "a.b-c=2", {"a": {"b-c": 2}}),
    ],
)
def test_overrides_reach_every_kind_of_place(written, text, assignment, expected):
    document = changed(text, assignment, written=written)
    assert document.data == expected
    paths = {path for path in walk(document.data, ()) if path}
    assert set(document.origins) == paths


def test_an_overridden_value_comes_from_the_option_and_its_neighbours_from_the_file(written):
    document = changed("train: {epochs: 3, seed: 1}\nhead: linear", "train.epochs=5", "head.dropout=0", written=written)
    assert str(document.origin(("train", "epochs"))) == "--set train.epochs=5"
    assert document.origin(("train", "seed")).line == 1
    assert document.origin(("head", "name")).line == 2
    assert str(document.problem(("train", "epochs"), "bad")) == "--set train.epochs=5: train.epochs: bad"


def test_replacing_a_part_forgets_where_its_old_contents_came_from(written):
    document = changed("head: {name: mlp, hidden: [3]}", "head={name: linear}", written=written)
    assert {dotted(path) for path in document.origins} == {"head", "head.name"}


def test_later_overrides_win(written):
    assert changed("a: 1", "a=2", "a=3", written=written).data == {"a": 3}


@pytest.mark.parametrize("assignment", ["epochs", "=3", "train..epochs=3", "a[x]=3", ".a=3", "a.=3", "[0]=3"])
def test_an_assignment_of_the_wrong_form_is_refused(written, assignment):
    with pytest.raises(ConfigError) as error:
        changed("a: 1", assignment, written=written)
    assert str(error.value).endswith(f"--set: (top level): expected key.path=value, got {assignment!r}")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("metrics[2]=c", "metrics[2]: 2 is no item of a list of 2; items count from 0"),
        ("metrics.last=c", "metrics.last: 'last' is no item of a list of 2; items count from 0"),
        ("metrics[5].k=c", "metrics[5].k: 5 is no item of a list of 2; items count from 0"),
        ("epochs.x=1", "epochs: is 3, which has no entry 'x'"),
        ("a=[1", "a: the value '[1' is not valid YAML: "),
    ],
)
def test_an_assignment_that_does_not_fit_is_refused(written, assignment, message):
    with pytest.raises(ConfigError) as error:
        changed("metrics: [a, b]\nepochs: 3", assignment, written=written)
    assert "--set" in str(error.value)
    assert message in str(error.value)
