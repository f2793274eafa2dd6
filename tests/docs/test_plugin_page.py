"""The package of docs/writing-a-plugin.md works as it stands there."""

import json
import re
import tomllib

import pytest
from doc_pages import ROOT, blocks, text

from ftengine.host import Host

PAGE = ROOT / "docs" / "writing-a-plugin.md"
FILE = re.compile(r"^`([\w./]+)`(, added)?:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page's files in a folder, with the metadata that an installer would write."""
    folder = tmp_path_factory.mktemp("acme")
    for name, added, content in FILE.findall(text(PAGE)):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.read_text() + content if added else content)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"acme_vision-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = [f"{key} = {value}" for key, value in project["entry-points"]["ftengine"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ftengine]", *entries]) + "\n")
    return folder


def test_the_page_has_all_files(site):
    assert {path.name for path in site.rglob("*.*")} >= {
        "pyproject.toml",
        "plugin.py",
        "models.py",
        "dense.py",
        "tuning.py",
        "acme.yaml",
        "dots.yaml",
    }


def test_the_plugin_is_listed_and_shown(site, cli_process):
    listed = json.loads(cli_process("plugins", "--json", path=[site]).stdout)
    (record,) = [plugin for plugin in listed["plugins"] if plugin["name"] == "acme"]
    assert (record["status"], record["cause"], record["notes"]) == ("ok", None, [])
    assert "Channels of the first stage." in cli_process("plugins", "show", "acme/tiny", path=[site]).stdout


@pytest.mark.parametrize(
    ("config", "term"),
    [
        pytest.param("acme.yaml", "tempered", marks=pytest.mark.slow),
        pytest.param("dots.yaml", "dice", marks=pytest.mark.slow),
        pytest.param("quiet.yaml", "regularizer/quiet", marks=pytest.mark.slow),
    ],
)
def test_its_configs_train(config, term, site, cli_process, tmp_path):
    result = cli_process("run", "--config", site / config, "--output", tmp_path / "run", path=[site])
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["epochs"] == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if line["split"] == "train")
    assert first[f"loss/{term}"] > 0


@pytest.mark.slow
def test_it_passes_the_conformance_kit(site, cli_process):
    result = cli_process("plugins", "check", "acme", path=[site])
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 failed" in result.stdout


def test_the_plugin_that_the_readme_shows_loads(install_plugin):
    (source,) = [block for block in blocks(ROOT / "README.md", "python") if "FTENGINE_API" in block]
    install_plugin("acme", source)
    host = Host.discover()
    assert [(record.status, record.cause) for record in host.plugins if record.name == "acme"] == [("ok", None)]
    spec = host.find("backbone", "acme/tiny").spec
    assert spec.options(width=16).width == 16
