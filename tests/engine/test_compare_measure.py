"""What a strategy's steps take is measured in a run like its own, of which nothing goes on afterwards."""

from threading import Event

from ftengine.compare import measure as module
from ftengine.document import Document
from ftengine.resolve import resolve
from ftengine.saving import Saver

CONFIG = {
    "task": "classification",
    "data": {"format": "digits", "limit": 20},
    "image": {"size": 32},
    "backbone": {"name": "timm", "model": "test_resnet", "weights": "none"},
    "train": {"epochs": 2, "batch_size": 4, "precision": "fp32", "workers": 0},
}


def test_nothing_is_being_written_when_it_has_measured(tmp_path, monkeypatch):
    """A thread that writes while the interpreter ends lets the process abort, and the measurement counts as failed."""
    waited, wait, write = Event(), Saver.wait, Saver._write

    def late(store, *arguments):
        waited.wait(60)  # without anyone who waits for it the file would come after all
        write(store, *arguments)

    def noted(store):
        if store._thread is not None:
            waited.set()
        wait(store)

    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(Saver, "_write", late)
    monkeypatch.setattr(Saver, "wait", noted)
    found = module.measure(resolve(Document(CONFIG)), tmp_path)
    assert (tmp_path / "checkpoints" / "last.json").is_file()
    assert found["measured"] >= found["step"] + found["evaluation"] + found["save"] > 0
