"""Numbers in JSON, which has neither NaN nor infinities: they become null, and null becomes NaN again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with None for NaN and infinities."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with NaN for None."""
    return {key: math.nan if value is None else value for key, value in values.items()}
