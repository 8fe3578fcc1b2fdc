"""What definitions and their fields are for, in the words of the API reference.

The table is no part of the source: setting up takes it from a locked package of schemas (`packaging/descriptions.py`).
Where that was not run there are no descriptions, and nothing else differs.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("data") / "descriptions.json.z"


def of(definition: str) -> Mapping[str, str]:
    """The texts of a definition by field name, its own under the empty name; empty when there are none."""
    raw = _raws().get(definition)
    return msgspec.json.decode(raw, type=dict[str, str]) if raw is not None else {}


def picked(fields: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], str]:
    """The texts of single fields, by definition and name; the table that they come from is let go of again."""
    raws = _read()
    wanted: dict[str, list[str]] = {}
    for definition, field in fields:
        wanted.setdefault(definition, []).append(field)
    return {
        (definition, field): texts[field]
        for definition, names in wanted.items()
        if definition in raws and (texts := msgspec.json.decode(raws[definition], type=dict[str, str]))
        for field in names
        if field in texts
    }


@functools.cache
def _raws() -> dict[str, msgspec.Raw]:
    return _read()


def _read() -> dict[str, msgspec.Raw]:
    try:
        packed = FILE.read_bytes()
    except FileNotFoundError:
        return {}
    return msgspec.json.decode(zlib.decompress(packed), type=dict[str, msgspec.Raw])
