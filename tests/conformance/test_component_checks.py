"""Components that say something wrong of themselves, and how the command reports what the kit finds."""

import pytest

LOSS = """
{imports}

from torch.nn import functional as F
from ftengine.protocols import Loss

class thing(Loss):
    def __init__(self, options, context):
        super().__init__()
    def forward(self, output, batch):
        {first}
        return {{"loss": F.cross_entropy(output["logits"].float(), batch.targets["label"])}}
"""
SPEC = 'task="classification", fields=("label",)'


def loss(imports="", first="pass"):
    return LOSS.format(imports=imports, first=first)


@pytest.mark.parametrize(
    ("source", "expected", "text"),
    [
        ("import torch", "a plugin module that imports no torch", "that importing wrong_plugin imports torch"),
        ("import wrong_models", "a plugin module that imports no torch", "that importing wrong_plugin imports torch"),
        (
            "import sys\nif 'torch' not in sys.modules:\n    raise RuntimeError('import torch first')",
            "that wrong_plugin is imported",
            "RuntimeError: import torch first",
        ),
    ],
)
def test_the_plugin_module_is_imported_in_a_process_of_its_own(source, expected, text, component):
    from ftengine.testing.kit import find_check, run_check

    found = run_check(find_check("light_import"), component("loss", loss(), SPEC, source))
    assert (found.status, found.expected, found.found) == ("failed", expected, text)


def test_torch_may_be_imported_where_it_is_needed(component):
    from ftengine.testing.kit import find_check, run_check

    lazy = "def later():\n    import torch"
    assert run_check(find_check("light_import"), component("loss", loss(), SPEC, lazy)).status == "ok"


@pytest.mark.parametrize(
    ("imports", "status"),
    [
        ("import jsonschema", "failed"),
        ("import sys\nif sys.argv:\n    from jsonschema import validate", "failed"),
        ("try:\n    import jsonschema\nexcept ValueError:\n    pass", "failed"),
        ("try:\n    pass\nexcept ImportError:\n    import jsonschema", "failed"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jsonschema", "ok"),
        ("import typing\nif typing.TYPE_CHECKING:\n    import jsonschema", "ok"),
        ("try:\n    import jsonschema\nexcept (ImportError, OSError):\n    jsonschema = None", "ok"),
    ],
)
def test_what_a_module_needs_must_be_named(imports, status, result):
    found = result("requirements_named", "loss", loss(imports), SPEC)
    assert found.status == status, found.text
    if status == "failed":
        assert found.expected.startswith("that jsonschema, which wrong_models imports, is a dependency of wrong-dist")


@pytest.mark.parametrize(
    ("requirement", "status"),
    [("jsonschema>=4", "ok"), ('jsonschema; python_version > "3"', "ok"), ('jsonschema>=4; extra == "all"', "failed")],
)
def test_what_only_an_extra_brings_is_no_dependency(requirement, status, component, tmp_path):
    from ftengine.testing.kit import find_check, run_check

    subject = component("loss", loss("import jsonschema"), SPEC)
    metadata = tmp_path / "site-wrong" / "wrong_dist-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + f"Requires-Dist: {requirement}\n")
    assert run_check(find_check("requirements_named"), subject).status == status


def test_what_needs_a_missing_distribution_is_left_out(component, cli):
    component("loss", loss(), SPEC + ', requires=("no-such-dist",)')
    done = cli("plugins", "check", "wrong")
    assert done.exit_code == 0, done.output
    first, ok, *rest = done.output.splitlines()
    assert (first, ok) == ("loss wrong/thing of classification", "  ok        light_import")
    lacking = "the loss 'wrong/thing' needs a package that is not installed: no-such-dist"
    left_out = [line for line in rest if line.startswith("  ")]
    assert left_out
    assert all(line.startswith("  left out  ") for line in left_out)
    assert all(f": {lacking}; install with: pip install no-such-dist" in line for line in left_out)
    assert rest[-1] == f"1 ok, 0 failed, {len(left_out)} left out"


def test_without_a_factory_the_other_checks_are_left_out(component, cli):
    subject = component("loss", "", SPEC)
    done = cli("plugins", "check", subject.component.name)
    assert done.exit_code == 1
    assert done.output.count("explained in") == 1
    assert "loss wrong/thing of classification: factory_resolves: The factory that the spec names" in done.output
    assert "  left out  loss_terms: there is no factory" in done.output.splitlines()


def test_a_plugin_without_components_cannot_be_checked(install_plugin, cli):
    install_plugin(
        "bare",
        "from ftengine.plugin import hookimpl\n\nFTENGINE_API = (1, 0)\n\n"
        "@hookimpl\ndef run_finished(run, outcome): ...\n",
    )
    done = cli("plugins", "check", "bare")
    assert done.exit_code == 2
    assert "bare registers no components: there is nothing to check" in done.output


def test_a_component_that_ends_the_process_fails(component, cli):
    subject = component("loss", loss("import sys", "sys.exit(0)"), SPEC)
    done = cli("plugins", "check", subject.component.name, "--check", "loss_terms")
    assert done.exit_code == 1
    assert "found: SystemExit: 0 (" in done.output
    assert "0 ok, 1 failed, 0 left out" in done.output


def test_the_command_reports_component_check_expected_and_found(component, cli):
    subject = component("loss", loss("import jsonschema"), SPEC)
    done = cli("plugins", "check", subject.component.name, "--check", "requirements_named")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "loss wrong/thing of classification",
        "  failed    requirements_named",
        "",
        "loss wrong/thing of classification: requirements_named: What the factory's module imports is a dependency of "
        "the plugin's distribution, or in the spec's `requires`.",
        "  expected: that jsonschema, which wrong_models imports, is a dependency of wrong-dist or in `requires`",
        "  found: neither; it belongs to jsonschema",
        "  explained in docs/conformance.md#requirements-named",
        "",
        "0 ok, 1 failed, 0 left out",
    ]


def test_one_cause_of_several_failures_is_told_once(component, cli):
    subject = component("loss", loss(), SPEC + ', example={"width": 3}')
    done = cli("plugins", "check", subject.component.name)
    assert done.exit_code == 1
    assert done.output.count("loss.width: unknown key 'width'") == 1
    assert "options_round_trip: Options are described, " in done.output
    failed = (
        "loss_falls, empty_targets, one_name_more, loss_terms, loss_mean, loss_soft_targets, loss_repeats, loss_inputs"
    )
    assert f"  the same in {failed}, run_is_finite, run_repeats, run_resumes" in done.output.splitlines()
    assert done.output.splitlines()[-1] == "3 ok, 12 failed, 0 left out"


def test_a_config_that_suits_no_component_is_a_usage_error(component, cli, tmp_path):
    component("loss", loss(), SPEC)
    (tmp_path / "config.yaml").write_text("image: {sizee: 32}\n")
    done = cli("plugins", "check", "wrong", "--config", tmp_path / "config.yaml")
    assert done.exit_code == 2
    assert f"Error: {tmp_path / 'config.yaml'}: 1 problem in the config:" in done.output
    assert "image.sizee: unknown key 'sizee'; did you mean 'size'?" in done.output
    assert "options_round_trip" not in done.output


def test_a_run_that_breaks_is_told_once(component, cli):
    whole = 'batch.targets["label"])'
    component("loss", loss().replace(whole, whole[:-1] + ', reduction="none")'), SPEC)
    done = cli("plugins", "check", "wrong")
    assert done.output.count("gave a tensor of shape [4] as 'loss'; expected a scalar tensor") == 1
    others = "one_name_more, loss_mean, loss_repeats, loss_inputs, run_is_finite, run_repeats, run_resumes"
    assert f"  the same in {others}" in done.output.splitlines()
    assert "there is no checkpoint yet" not in done.output


def test_a_field_that_is_missed_is_to_be_stated(component, cli):
    component("loss", loss(), 'task="classification"')
    done = cli("plugins", "check", "loss wrong/thing of classification from labels", "--check", "loss_terms")
    assert done.output.splitlines()[:2] == [
        "loss wrong/thing of classification from labels",
        "  failed    loss_terms",
    ]
    assert "KeyError: 'label'" in done.output
    hint = "; what learns from `label` alone, and not from all fields of its task, says so: fields=('label',)"
    assert hint in done.output


def test_a_distribution_without_an_entry_point_is_told_so(cli, monkeypatch, tmp_path):
    info = tmp_path / "twin_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twin-nets\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = "is installed, but registers no plugin: its pyproject.toml needs a table [project.entry-points.ftengine]"
    for name in ("twin_nets", "twin_nets/tiny", "backbone twin_nets/tiny"):
        done = cli("plugins", "check", name)
        assert done.exit_code == 2
        assert f"the distribution twin-nets 1.0 {message}" in done.output


@pytest.mark.parametrize("name", ["loss wrong/thing", "loss wrong/thing of classification"])
def test_kind_and_task_may_be_given(name, component, cli):
    component("loss", loss(), SPEC)
    done = cli("plugins", "check", name, "--check", "factory_resolves")
    assert done.output.splitlines()[:2] == ["loss wrong/thing of classification", "  ok        factory_resolves"]


def test_of_several_components_of_one_name_the_kind_says_which():
    from ftengine.testing.subject import subjects

    assert {one.kind for one in subjects("faster_rcnn")} == {"head", "loss"}
    assert [one.name for one in subjects("head faster_rcnn")] == ["head faster_rcnn of detection"]


def test_an_unknown_name_is_a_usage_error(cli):
    done = cli("plugins", "check", "resnet81")
    assert done.exit_code == 2
    assert "unknown plugin or component 'resnet81'; did you mean 'resnet18'?" in done.output


def test_a_library_is_not_taken_for_the_plugin_of_its_name(cli):
    done = cli("plugins", "check", "timm/resnet81")
    assert done.exit_code == 2
    assert "unknown plugin or component 'timm/resnet81'; " in done.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("metric_mode", "metric_mode is a check of metric, of which wrong has none"),
        ("loss_mea", "unknown check 'loss_mea'; did you mean 'loss_mean'?"),
    ],
)
def test_a_check_that_would_look_at_nothing_is_refused(name, message, component, cli):
    component("loss", loss(), SPEC)
    done = cli("plugins", "check", "wrong", "--check", name)
    assert done.exit_code == 2
    assert message in done.output


OPTIONS = """
from typing import Any
from pydantic import field_serializer, model_validator

class ThingOptions(Options):
    {body}
"""
WRONG_OPTIONS = {
    "an option that JSON does not have": (
        """scale: Any = Field((1, 2), description="A pair.")""",
        "the same options after JSON",
        "others for scale",
    ),
    "an option that is not read as it is written": (
        """share: float = Field(0.5, le=1, description="A part.")
    @field_serializer("share")
    def percent(self, value): return 100 * value""",
        "options that are read from their own JSON",
        "share: Input should be less than or equal to 1",
    ),
    "unknown keys that are dropped": (
        """share: float = Field(0.5, description="A part.")
    @model_validator(mode="before")
    @classmethod
    def known(cls, data): return {key: data[key] for key in data if key in cls.model_fields}""",
        "that an unknown option is refused",
        "that `no_such_option` is taken",
    ),
}


@pytest.mark.parametrize(("body", "expected", "text"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_options_are_read_as_they_were_written(body, expected, text, result):
    options = OPTIONS.replace("{body}", body)
    found = result("options_round_trip", "loss", loss(), f"{SPEC}, options=ThingOptions", options=options)
    assert (found.status, found.expected) == ("failed", expected), found.text
    assert text in found.found


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("thin = None", "its factory 'wrong_models:thing' does not exist; did you mean 'thin'?"),
        ("thing = 3", "its factory 'wrong_models:thing' is a int; expected a callable"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_factory_that_is_not_there_is_named(code, text, result):
    found = result("factory_resolves", "loss", code, SPEC)
    assert (found.status, found.expected) == ("failed", "no error")
    assert text in found.found
