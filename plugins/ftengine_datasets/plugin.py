"""Datasets from image folders, from CSV tables, and the handwritten digits that need no download."""

from __future__ import annotations

from collections.abc import Iterable

from ftengine.plugin import DatasetSpec, hookimpl
from ftengine_datasets.options import CsvOptions, DigitsOptions, FolderOptions

FTENGINE_API = (1, 0)


@hookimpl
def register_datasets() -> Iterable[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        factory="ftengine_datasets.folder:folder",
        summary="A folder a split with one folder a class: train/cat/1.jpg.",
        options=FolderOptions,
        fields=("label",),
    )
    yield DatasetSpec(
        name="csv",
        factory="ftengine_datasets.csv_file:csv_file",
        summary="A CSV file a split: an image column with a class, several tags, or numbers beside it.",
        options=CsvOptions,
        fields=("label", "labels", "values"),
    )
    yield DatasetSpec(
        name="digits",
        factory="ftengine_datasets.digits:digits",
        summary="The 1797 handwritten digits of 8×8 pixels that come with scikit-learn.",
        options=DigitsOptions,
        fields=("label", "values"),
    )
