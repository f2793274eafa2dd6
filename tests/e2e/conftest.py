"""Fixtures for tests of whole runs."""

import itertools
import json

import pytest
import yaml
from run_configs import BASE, merged


class Run:
    """A run directory, and what the command printed."""

    def __init__(self, directory, result):
        self.directory = directory
        self.result = result

    @property
    def summary(self):
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def resolved(self):
        return yaml.safe_load((self.directory / "resolved.yaml").read_text())

    def lines(self, split=None):
        """The lines of metrics.jsonl, or those of one split."""
        lines = [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if split in (None, line["split"])]

    def checkpoint(self, pointer="last"):
        name = json.loads((self.directory / "checkpoints" / f"{pointer}.json").read_text())["checkpoint"]
        return self.directory / "checkpoints" / name

    def bytes(self, pointer="last"):
        """The saved model, byte for byte."""
        return (self.checkpoint(pointer) / "model.safetensors").read_bytes()

    def tensors(self, pointer="last", file="model"):
        import safetensors.torch

        return safetensors.torch.load_file(self.checkpoint(pointer) / f"{file}.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cli, third_party):
    """Starts runs: ``runs(changes to the base config)`` is a finished one."""
    folder = tmp_path_factory.mktemp("runs")
    counter = itertools.count()

    def start(changes=None, *arguments, base=BASE, exit_code=0):
        number = next(counter)
        file = folder / f"config-{number}.yaml"
        file.write_text(yaml.safe_dump(merged(base, changes or {})))
        directory = folder / f"run-{number}"
        result = cli("run", "--config", file, "--output", directory, *arguments)
        assert result.exit_code == exit_code, result.output
        return Run(directory, result)

    return start


@pytest.fixture
def config_file(tmp_path):
    """Writes the base config with changes; returns the file."""

    def write(changes=None, base=BASE, name="config.yaml"):
        file = tmp_path / name
        file.write_text(yaml.safe_dump(merged(base, changes or {}), sort_keys=False))
        return file

    return write
