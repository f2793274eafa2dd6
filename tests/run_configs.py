"""The smallest config of a whole run, and configs that differ from it."""

import copy

BASE = {
    "task": "classification",
    "data": {"format": "digits", "limit": 64, "val_fraction": 0.25},
    "image": {"size": 16},
    "backbone": {"name": "acme/tiny", "weights": "none"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "train": {"epochs": 2, "batch_size": 16, "precision": "fp32", "workers": 0, "log_every": 1},
}
"""A run of six steps: 48 digits to train on, 16 to validate on."""


def merged(base, changes):
    """`base` with `changes` laid over it, mapping by mapping; a value of None takes a key away."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result
