"""The tables of the protobuf messages: which number, name and type each field has.

Read from `data/wire.json` (made by `packaging/generate/wire.py`) with the first protobuf body, one message at a time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import msgspec

REPEATED, PLAIN, INLINE = 1, 2, 4
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SCALARS = {"bool": VARINT, "int32": VARINT, "int64": VARINT, "double": FIXED64, "string": BYTES, "bytes": BYTES}

MAGIC = b"k8s\0"
MAX_DEPTH = 64

TIME, MICRO_TIME = "meta.v1.Time", "meta.v1.MicroTime"
QUANTITY = "api.resource.Quantity"
INT_OR_STRING = "util.intstr.IntOrString"
DURATION = "meta.v1.Duration"
RAW = ("pkg.runtime.RawExtension", "meta.v1.FieldsV1", "apiextensions.v1.JSON")
SCHEMA = "apiextensions.v1.JSONSchemaProps"
SCHEMA_OR_BOOL, SCHEMA_OR_ARRAY, SCHEMA_OR_TEXTS = SCHEMA + "OrBool", SCHEMA + "OrArray", SCHEMA + "OrStringArray"
TYPE_META = "pkg.runtime.TypeMeta"
#: Messages that are a list of texts in JSON.
TEXTS = (
    "meta.v1.Verbs",
    "authentication.v1.ExtraValue",
    "authorization.v1.ExtraValue",
    "certificates.v1.ExtraValue",
    "certificates.v1beta1.ExtraValue",
)

#: Kinds that belong to every group version, also of custom kinds; other names there are kinds of their own.
_EVERYWHERE = frozenset(
    {"CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"}
)
_DATA = Path(__file__).with_name("data") / "wire.json"


class Field(NamedTuple):
    """One field: flags are REPEATED, PLAIN (zero means not given) and INLINE (its fields stand in the message)."""

    number: int
    name: str
    type: str
    flags: int


@functools.cache
def _raw_tables() -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(_DATA.read_bytes(), type=dict[str, msgspec.Raw])


@functools.cache
def fields(message: str) -> tuple[Field, ...]:
    """The fields of a message in the order of their numbers; raises KeyError for an unknown one."""
    return tuple(Field(*row) for row in msgspec.json.decode(_raw_tables()[message]))


@functools.cache
def by_number(message: str) -> dict[int, Field]:
    """The fields of a message by number."""
    return {field.number: field for field in fields(message)}


def message_of(api_version: str, kind: str) -> str | None:
    """The name of the message of a kind, None when it has none (custom kinds, Table)."""
    group, _, version = api_version.rpartition("/")
    tables = _raw_tables()
    name = f"{group.split('.')[0] or 'core'}.{version}.{kind}"
    if name in tables and (not group or "." not in group or group.endswith(".k8s.io")):
        return name
    everywhere = kind in _EVERYWHERE or not group or group.endswith(".k8s.io")
    return "meta.v1." + kind if everywhere and "meta.v1." + kind in tables else None
