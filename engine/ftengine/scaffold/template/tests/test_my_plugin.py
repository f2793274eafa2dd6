import subprocess
import sys
from pathlib import Path

from ftengine.testing import PluginConformance


class TestConformance(PluginConformance):
    """A test for each check of each component."""

    plugin = "my_plugin"


def test_the_example_trains(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "example.yaml"
    command = [sys.executable, "-m", "ftengine", "run", f"--config={example}", f"--output={tmp_path / 'run'}"]
    subprocess.run(command, check=True)
    assert (tmp_path / "run" / "summary.json").exists()
