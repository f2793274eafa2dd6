"""What plugins may use changes by decision only."""

import difflib

import pytest
import surface

from ftengine.plugin import API_VERSION, SPEC_HOOKS, Hooks

DECIDE = """\
What plugins may use is not what tests/architecture/public_surface.txt says:

{difference}

If this was not meant, mend the code. If it was, decide what it is (docs/compatibility.md):
  - every plugin that works with the released version works with this one (an addition): a new minor version;
  - some would not (a name, an argument or a field is gone, or means something else): a new major version.
Raise API_VERSION in engine/ftengine/plugin.py if it still is the released one; say in CHANGELOG.md what changed; then
  uv run python tests/architecture/surface.py"""


def compare(checked_in, rendered):
    """Fails, saying how to decide, where the two differ."""
    lines = difflib.unified_diff(checked_in.splitlines(), rendered.splitlines(), "checked in", "code", n=1, lineterm="")
    difference = "\n".join(lines)
    if difference:
        pytest.fail(DECIDE.format(difference=difference), pytrace=False)


def test_the_public_surface_is_the_one_that_was_decided_on():
    compare(surface.FILE.read_text(encoding="utf-8"), surface.render())


def test_a_change_is_shown_with_what_is_to_be_decided():
    rendered = surface.render()
    given, left = "run_finished(self, run: RunInfo, outcome: str)", "run_finished(self)"
    with pytest.raises(pytest.fail.Exception) as failure:
        compare(rendered, rendered.replace(given, left))
    text = str(failure.value)
    assert f"-    def {given} -> None\n+    def {left} -> None" in text
    assert "new minor version" in text
    assert "uv run python tests/architecture/surface.py" in text


def test_the_surface_has_each_hook_spec_and_contract():
    rendered = surface.render()
    for hook in [name for name in vars(Hooks) if not name.startswith("_")]:
        assert f"\n    def {hook}(self" in rendered
    for spec in SPEC_HOOKS.values():
        assert f"\n  class {spec.__name__}(Spec)\n" in rendered
    for line in (
        f"plugin API {API_VERSION[0]}.{API_VERSION[1]}",
        "    options: type[Options] = Options  # by keyword",
        "    abstract def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]",
        "    property levels(self) -> tuple[str, ...]",
        "    plugin: ClassVar[str]",
    ):
        assert line in rendered.splitlines()


def test_the_surface_is_the_same_in_every_process():
    assert " at 0x" not in surface.render()
