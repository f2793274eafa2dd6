"""``ftengine plugins`` and ``ftengine plugins show``."""

import json
import re

import pytest
from click.testing import CliRunner
from fake_distributions import HEADER

from ftengine.cli import main
from ftengine.plugin import API_VERSION

ACME = """
from pydantic import Field
from typing import Literal

class TinyOptions(Options):
    width: int = Field(32, ge=1, description="Channels of the\\n first stage.")
    norm: Literal["batch", "group"] = "batch"
    depths: tuple[int, ...] = (1, 2)
    path: str = Field(description="A file.")

@hookimpl
def register_backbones():
    yield BackboneSpec(
        name="tiny", factory="acme.models:tiny", summary="Two stages.", options=TinyOptions, levels=("c1", "c2"),
        weights=("V1", "V2"), default_weights="V2", requires=("no-such-dist",), example={"path": "a.txt"},
        example_config={"image": {"size": 75}},
    )
"""


def invoke(*arguments):
    return CliRunner().invoke(main, ["plugins", *arguments], prog_name="ftengine")


def lines(result):
    """The printed lines as lists of words."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_lists_plugins_with_status_and_cause(distributions):
    distributions.plugin("acme", ACME, version="2.1")
    distributions.plugin("faulty", "raise OSError('a cause that is rather long, ' + 'and is shown whole ' * 20)")
    result = invoke()
    assert ["acme", "acme-dist", "2.1", "ok"] in lines(result)
    faulty = next(line for line in result.stdout.splitlines() if line.startswith("faulty"))
    assert "broken  OSError: a cause that is rather long, and is shown whole" in faulty
    assert faulty.rstrip().endswith("(faulty_plugin.py:4)"), "a pipe has no width"


def test_two_plugins_that_claim_one_name_are_both_listed_and_refused(distributions):
    for name in ("first", "second"):
        distributions.install(f"{name}-dist", {"acme": (f"{name}_plugin", HEADER + ACME)})
    rows = [line for line in invoke().stdout.splitlines() if line.startswith("acme ")]
    assert [row.split()[:4] for row in rows] == [
        ["acme", "first-dist", "1.0", "conflict"],
        ["acme", "second-dist", "1.0", "conflict"],
    ]
    assert "second-dist 1.0 (second_plugin) claims the name 'acme' too; uninstall one of them" in rows[0]
    assert "first-dist 1.0 (first_plugin) claims the name 'acme' too; uninstall one of them" in rows[1]
    result = invoke("show", "acme/tiny")
    assert result.exit_code == 2
    assert "the plugin 'acme' (first-dist 1.0) is refused for a conflict" in result.stderr


def test_a_terminal_and_a_pipe_get_the_same_words(distributions, monkeypatch):
    distributions.plugin("acme", ACME)
    piped = invoke().stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
    coloured = invoke().stdout
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == piped.split()
    assert "\x1b[" not in piped


def test_lists_components_by_kind_and_task(distributions):
    distributions.plugin("acme", ACME)
    rows = lines(invoke())
    backbones = rows.index(["Backbones", "(3)"])
    assert rows[backbones + 2] == ["acme/tiny", "acme", "Two", "stages."]
    assert ["Heads", "of", "regression", "(1)"] in rows
    assert ["Losses", "of", "classification", "(1)"] in rows


def test_notes_are_shown(distributions):
    distributions.plugin(
        "acme",
        "@hookimpl\ndef register_heads():\n    yield HeadSpec(name='a', task='poses', factory='m:f', summary='S.')",
    )
    assert "note: acme: no installed plugin has the task 'poses', which these are for: head acme/a" in invoke().stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--kind", "loss"], {("loss", "cross_entropy"), ("loss", "mse")}),
        (["--task", "regression"], {("task", "regression"), ("head", "linear"), ("loss", "mse")}),
        (["--task", "regression", "--kind", "head"], {("head", "linear")}),
        (["--kind", "dataset"], set()),
    ],
)
def test_kind_and_task_select_components(distributions, arguments, expected):
    found = json.loads(invoke("--json", *arguments).stdout)["components"]
    assert {(item["kind"], item["name"]) for item in found} == expected
    text = invoke(*arguments).stdout
    assert ("No components." in text) == (not expected)


def test_an_unknown_task_gets_the_nearest(distributions):
    result = invoke("--task", "regresion")
    assert result.exit_code == 2
    assert result.stderr == "Error: unknown task 'regresion'; did you mean 'regression'?\n"


def test_an_unknown_kind_is_a_usage_error(distributions):
    result = invoke("--kind", "looss")
    assert result.exit_code == 2
    assert "'looss'" in result.stderr


def test_json_has_the_documented_keys(distributions):
    distributions.plugin("acme", "print('noise')\n" + ACME)
    result = invoke("--json")
    data = json.loads(result.stdout)
    assert set(data) == {"api", "plugins", "components"}
    assert data["api"] == list(API_VERSION)
    acme = next(record for record in data["plugins"] if record["name"] == "acme")
    assert acme == {
        "name": "acme",
        "distribution": "acme-dist",
        "version": "1.0",
        "status": "ok",
        "cause": None,
        "builtin": False,
        "module": "acme_plugin",
        "notes": [],
    }
    assert next(item for item in data["components"] if item["plugin"] == "acme") == {
        "name": "acme/tiny",
        "kind": "backbone",
        "task": None,
        "plugin": "acme",
        "summary": "Two stages.",
        "requires": ["no-such-dist"],
    }
    help_text = invoke("--help").stdout
    for key in [*data, *acme, *data["components"][0]]:
        assert key in help_text


# --- show ------------------------------------------------------------------------------------------------------


def test_show_prints_options_and_what_the_kind_adds(distributions):
    distributions.plugin("acme", ACME)
    result = invoke("show", "acme/tiny")
    rows = lines(result)
    assert rows[:2] == [["acme/tiny:", "backbone"], ["Two", "stages."]]
    assert ["levels", "c1,", "c2"] in rows
    assert ["weights", "V1,", "V2"] in rows
    assert ["default", "weights", "V2"] in rows
    assert ["requires", "no-such-dist"] in rows
    assert ["example", '{"path":', '"a.txt"}'] in rows
    assert ["example", "config", '{"image":', '{"size":', "75}}"] in rows
    assert ["width", "int", ">=", "1", "32", "Channels", "of", "the", "first", "stage."] in rows
    assert ["norm", "batch", "|", "group", '"batch"'] in rows
    assert ["depths", "list", "of", "int", "[1,", "2]"] in rows
    assert ["path", "str", "(required)", "A", "file."] in rows


def test_show_prints_all_components_of_a_name_and_can_be_narrowed(distributions):
    assert [row for row in lines(invoke("show", "linear")) if row[:1] == ["linear:"]] == [
        ["linear:", "head", "of", "classification"],
        ["linear:", "head", "of", "regression"],
    ]
    narrowed = lines(invoke("show", "linear", "--task", "regression"))
    assert [row for row in narrowed if row[:1] == ["linear:"]] == [["linear:", "head", "of", "regression"]]


def test_show_says_that_there_are_no_options(distributions):
    assert "It has no options." in invoke("show", "mse").stdout


def test_show_calls_a_kind_by_its_name(distributions):
    source = (
        "@hookimpl\ndef register_freeze_policies():\n    yield FreezeSpec(name='half', factory='m:f', summary='S.')"
    )
    distributions.plugin("acme", source)
    assert lines(invoke("show", "acme/half"))[0] == ["acme/half:", "freeze", "policy"]


def test_show_prints_a_tasks_targets(distributions):
    row = "targets     label: head: linear; loss: cross_entropy; metrics: accuracy"
    assert row in invoke("show", "classification").stdout


def test_show_as_json(distributions):
    distributions.plugin("acme", ACME)
    (found,) = json.loads(invoke("show", "acme/tiny", "--json").stdout)
    assert found["factory"] == "acme.models:tiny"
    assert found["details"]["levels"] == ["c1", "c2"]
    assert (found["example"], found["example_config"]) == ({"path": "a.txt"}, {"image": {"size": 75}})
    assert not {"example", "example_config"} & found["details"].keys()
    assert found["schema"]["additionalProperties"] is False
    assert found["options"][0] == {
        "name": "width",
        "type": "int >= 1",
        "required": False,
        "default": 32,
        "description": "Channels of the first stage.",
    }
    help_text = invoke("show", "--help").stdout
    for key in [*found, *found["options"][0]]:
        assert key in help_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "unknown component 'resnet81'; did you mean 'resnet18'?"),
        ("tiny", "unknown component 'tiny'; did you mean 'acme/tiny'?"),
        ("nets", "'nets' is a plugin; 'show' takes the name of a component, as in 'resnet18'"),
        ("faulty", "the plugin 'faulty' (faulty-dist 1.0) is broken: OSError (faulty_plugin.py:4)"),
        ("faulty/net", "the plugin 'faulty' (faulty-dist 1.0) is broken: OSError (faulty_plugin.py:4)"),
    ],
)
def test_show_of_an_unknown_name_gets_the_nearest(distributions, name, text):
    distributions.plugin("acme", ACME)
    distributions.plugin("faulty", "raise OSError")
    result = invoke("show", name)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {text}\n"


def test_options_of_the_list_are_not_silently_dropped_by_show(distributions):
    result = invoke("--kind", "head", "show", "linear")
    assert result.exit_code == 2
    assert "--kind, --task and --json go after 'show'" in result.stderr


def test_a_terminal_gets_whole_words_in_its_width(distributions, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    distributions.plugin("faulty", "raise OSError('word ' * 40)")
    text = invoke().stdout
    assert text.count("word") == 40, "folded, not cut off"
    assert "…" not in text
