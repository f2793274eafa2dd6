"""The plugin module of the built-in datasets."""

from __future__ import annotations

import importlib
import subprocess
import sys

from ftengine.plugin import DatasetOptions
from ftengine.protocols import TARGET_FIELDS
from ftengine_datasets import plugin


def test_specs_name_real_factories_fields_and_options():
    specs = {spec.name: spec for spec in plugin.register_datasets()}
    assert set(specs) == {"folder", "csv", "coco", "voc", "yolo", "masks", "digits"}
    for spec in specs.values():
        module, _, name = spec.factory.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert set(spec.fields) <= set(TARGET_FIELDS)
        assert issubclass(spec.options, DatasetOptions)
        assert all(field.description for field in spec.options.model_fields.values())


def test_the_plugin_module_imports_nothing_heavy():
    code = (
        "import sys; from ftengine_datasets import plugin; list(plugin.register_datasets()); "
        "print([name for name in ('torch', 'numpy', 'PIL', 'sklearn') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
