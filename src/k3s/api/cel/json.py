"""From values of expressions to values of JSON."""

from __future__ import annotations

import base64
import math
from typing import Any

from k3s.api.cel import times
from k3s.api.cel.errors import EvaluationError
from k3s.api.cel.values import NOTHING, Duration, Optional, Timestamp, Uint, keys, type_name


def to_json(value: Any) -> Any:
    """The value for JSON: moments and spans as texts, bytes as base64; raises EvaluationError for what has no form."""
    kind = value.__class__
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if kind is Uint:
        return int(value)
    if kind is float and math.isfinite(value):
        return value
    if isinstance(value, list):
        return [to_json(element) for element in value]
    if isinstance(value, dict):
        return {_key(key): to_json(inner) for key, inner in zip(keys(value), value.values(), strict=True)}
    if kind is Timestamp:
        return times.timestamp_text(value)
    if kind is Duration:
        return times.duration_text(value)
    if kind is bytes:
        return base64.b64encode(value).decode()
    if kind is Optional:
        return None if value.value is NOTHING else to_json(value.value)
    raise EvaluationError(f"type conversion error from '{type_name(value)}' to 'google.protobuf.Value'")


def _key(key: Any) -> str:
    if key.__class__ is bool:
        return "true" if key else "false"
    return str(key)
