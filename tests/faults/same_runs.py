"""Whether two runs are the same to the last bit."""

import json

from ftengine.identical import compare_runs

COMPUTED = ("metrics", "start", "best_step", "best_epoch", "mixed", "epochs", "moved", "parameters")
"""What of a summary is computed, and not measured."""


def assert_same(directory, reference):
    """All tensors and values of the last and the best checkpoint, the metrics and the summary are the reference's."""
    comparison = compare_runs(directory, reference)
    assert comparison.differences == []
    assert comparison.tensors > 10
    assert comparison.lines > 3
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (directory, reference))
    for key in COMPUTED:
        assert ours[key] == theirs[key]
    best = [_best(path) for path in (directory, reference)]
    assert best[0].name == best[1].name
    files = sorted(entry.name for entry in best[1].glob("*.safetensors"))
    assert sorted(entry.name for entry in best[0].glob("*.safetensors")) == files
    for name in files:
        assert (best[0] / name).read_bytes() == (best[1] / name).read_bytes()
    left = [entry.name for entry in (directory / "checkpoints").iterdir() if entry.name.startswith(".")]
    assert not left, f"what saves that were killed left behind is removed: {left}"


def _best(directory):
    name = json.loads((directory / "checkpoints" / "best.json").read_text())["checkpoint"]
    return directory / "checkpoints" / name
