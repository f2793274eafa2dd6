"""The walls between the engine, the plugins and pluggy."""

import re

import pytest
from source_files import ENGINE, PLUGINS, files, imports, label

from ftengine.host import Host

ENGINE_FILES = files(ENGINE)
PLUGIN_FILES = [path for folder in PLUGINS.values() for path in files(folder)]
PUBLIC = ("ftengine.plugin", "ftengine.protocols", "ftengine.errors", "ftengine.images", "ftengine.pictures")


def within(module, packages):
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_the_sources_are_found():
    assert len(ENGINE_FILES) > 10
    assert {"ftengine_torchvision", "ftengine_freeze"} <= set(PLUGINS)


@pytest.mark.parametrize("path", ENGINE_FILES, ids=label)
def test_the_engine_knows_no_plugin(path):
    # Not even by name: an import by a string would be an import as well.
    names = re.findall(rf"\b({'|'.join(PLUGINS)})\b", path.read_text(encoding="utf-8"))
    assert names == []


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=label)
def test_a_plugin_imports_only_itself_and_the_public_modules(path):
    own = next(name for name, folder in PLUGINS.items() if folder in path.parents)
    ours = {module for module in imports(path) if module.split(".")[0].startswith("ftengine")}
    assert {module for module in ours if not within(module, (own, *PUBLIC))} == set()
    others = re.findall(rf"\b({'|'.join(set(PLUGINS) - {own})})\b", path.read_text(encoding="utf-8"))
    assert others == []


@pytest.mark.parametrize("path", [*ENGINE_FILES, *PLUGIN_FILES], ids=label)
def test_only_the_host_and_the_plugin_interface_import_pluggy(path):
    if path in (ENGINE / "host.py", ENGINE / "plugin.py"):
        assert within("pluggy", imports(path))
    else:
        assert not any(within(module, ["pluggy"]) for module in imports(path))


def test_the_built_in_plugins_have_no_problem_and_no_note():
    builtin = [record for record in Host.discover().plugins if record.builtin]
    assert {f"ftengine_{record.name}" for record in builtin} == set(PLUGINS)
    assert [(record.name, record.cause, record.notes) for record in builtin if record.cause or record.notes] == []
