"""Datasets of files with classes, numbers, boxes or masks, and the handwritten digits that need no download."""

from __future__ import annotations

from collections.abc import Iterable

from ftengine.plugin import DatasetSpec, hookimpl
from ftengine_datasets.annotation_options import CocoOptions, MaskOptions, VocOptions, YoloOptions
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
        name="coco",
        factory="ftengine_datasets.coco:coco",
        summary="Boxes in COCO's format: a folder of images and a JSON file a split.",
        options=CocoOptions,
        fields=("boxes",),
    )
    yield DatasetSpec(
        name="voc",
        factory="ftengine_datasets.voc:voc",
        summary="Boxes in PASCAL VOC's format: an XML file an image, a list of images a split.",
        options=VocOptions,
        fields=("boxes",),
    )
    yield DatasetSpec(
        name="yolo",
        factory="ftengine_datasets.yolo:yolo",
        summary="Boxes in YOLO's format: a text file an image, and data.yaml with the names and splits.",
        options=YoloOptions,
        fields=("boxes",),
    )
    yield DatasetSpec(
        name="masks",
        factory="ftengine_datasets.masks:masks",
        summary="A mask file an image: a picture of class indices or colours.",
        options=MaskOptions,
        fields=("mask",),
    )
    yield DatasetSpec(
        name="digits",
        factory="ftengine_datasets.digits:digits",
        summary="The 1797 handwritten digits that come with scikit-learn: alone, of 8×8 pixels, or several in a scene.",
        options=DigitsOptions,
        fields=("label", "labels", "values", "boxes", "mask"),
    )
