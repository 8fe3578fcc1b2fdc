"""Writing the JSON form of objects as protobuf messages. What callers use is in `wire`.

Fields are written in the order of their numbers and maps in the order of their keys, so equal objects have equal bytes.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

from k3s.api import times
from k3s.api.object import Object
from k3s.api.object import encode as encode_json
from k3s.api.wiretables import (
    DURATION,
    FIXED64,
    INLINE,
    INT_OR_STRING,
    MAGIC,
    MICRO_TIME,
    QUANTITY,
    RAW,
    REPEATED,
    SCALARS,
    SCHEMA,
    SCHEMA_OR_ARRAY,
    SCHEMA_OR_BOOL,
    SCHEMA_OR_TEXTS,
    TEXTS,
    TIME,
    TYPE_META,
    VARINT,
    fields,
)

_MASK64 = (1 << 64) - 1


def write_envelope(obj: Object, message: str) -> bytes:
    """The `k8s\\0` envelope around an object of this message."""
    out = bytearray(MAGIC)
    _chunk(out, 1, _message(TYPE_META, {"apiVersion": obj.get("apiVersion", ""), "kind": obj.get("kind", "")}))
    _chunk(out, 2, _message(message, obj))
    # Empty contentEncoding and contentType, which Go writes too.
    _chunk(out, 3, b"")
    _chunk(out, 4, b"")
    return bytes(out)


def write_frame(event_type: str, body: bytes) -> bytes:
    """A watch event with an encoded object, after its length in four bytes."""
    raw = bytearray()
    _chunk(raw, 1, body)
    event = bytearray()
    _chunk(event, 1, event_type.encode())
    _chunk(event, 2, bytes(raw))
    return struct.pack(">I", len(event)) + bytes(event)


def _varint(out: bytearray, value: int) -> None:
    value &= _MASK64
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _chunk(out: bytearray, number: int, data: bytes | bytearray) -> None:
    _varint(out, number << 3 | 2)
    _varint(out, len(data))
    out += data


def _message(message: str, value: Any) -> bytes:
    special = _WRITERS.get(message)
    if special is not None:
        return special(value)
    out = bytearray()
    for number, name, kind, flags in fields(message):
        if flags & INLINE:
            inner = _message(kind, value)
            if inner:
                _chunk(out, number, inner)
            continue
        found = value.get(name)
        if found is None:
            continue
        if kind.startswith("map:"):
            for key in sorted(found):
                entry = bytearray()
                _field(entry, 1, "string", key)
                _field(entry, 2, kind[4:], found[key])
                _chunk(out, number, entry)
        elif flags & REPEATED:
            for element in found:
                _field(out, number, kind, element)
        else:
            _field(out, number, kind, found)
    return bytes(out)


def _field(out: bytearray, number: int, kind: str, value: Any) -> None:
    wire = SCALARS.get(kind)
    if wire == VARINT:
        _varint(out, number << 3)
        _varint(out, int(value))
    elif wire == FIXED64:
        _varint(out, number << 3 | FIXED64)
        out += struct.pack("<d", value)
    elif kind == "string":
        _chunk(out, number, str(value).encode("utf-8", "replace"))
    elif kind == "bytes":
        _chunk(out, number, base64.b64decode(value))
    else:
        _chunk(out, number, _message(kind, value))


def _numbers(*values: int) -> bytes:
    out = bytearray()
    for number, value in enumerate(values, 1):
        _varint(out, number << 3)
        _varint(out, value)
    return bytes(out)


def _write_moment(value: str) -> bytes:
    second, nanos = divmod(times.parse_ns(value), 10**9)
    return _numbers(second, nanos)


def _write_quantity(value: Any) -> bytes:
    out = bytearray()
    _chunk(out, 1, str(value).encode())
    return bytes(out)


def _write_int_or_string(value: int | str) -> bytes:
    text = isinstance(value, str)
    out = bytearray(_numbers(1 if text else 0, 0 if text else int(value)))
    _chunk(out, 3, str(value).encode() if text else b"")
    return bytes(out)


def _write_duration(value: str) -> bytes:
    return _numbers(times.duration_ns(value))


def _write_raw(value: Any) -> bytes:
    out = bytearray()
    _chunk(out, 1, encode_json(value))
    return bytes(out)


def _write_texts(value: list[str]) -> bytes:
    out = bytearray()
    for text in value:
        _chunk(out, 1, text.encode())
    return bytes(out)


def _write_schema_or_bool(value: Any) -> bytes:
    out = bytearray()
    _field(out, 1, "bool", value if isinstance(value, bool) else True)
    if not isinstance(value, bool):
        _chunk(out, 2, _message(SCHEMA, value))
    return bytes(out)


def _write_schema_or_array(value: Any) -> bytes:
    out = bytearray()
    if isinstance(value, dict):
        _chunk(out, 1, _message(SCHEMA, value))
    else:
        for schema in value:
            _chunk(out, 2, _message(SCHEMA, schema))
    return bytes(out)


def _write_schema_or_texts(value: Any) -> bytes:
    out = bytearray()
    if isinstance(value, dict):
        _chunk(out, 1, _message(SCHEMA, value))
    else:
        for text in value:
            _chunk(out, 2, text.encode())
    return bytes(out)


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    TIME: _write_moment,
    MICRO_TIME: _write_moment,
    QUANTITY: _write_quantity,
    INT_OR_STRING: _write_int_or_string,
    DURATION: _write_duration,
    SCHEMA_OR_BOOL: _write_schema_or_bool,
    SCHEMA_OR_ARRAY: _write_schema_or_array,
    SCHEMA_OR_TEXTS: _write_schema_or_texts,
    **dict.fromkeys(RAW, _write_raw),
    **dict.fromkeys(TEXTS, _write_texts),
}
