"""Reading protobuf messages into the JSON form of objects. What callers use is in `wire`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from typing import Any

from k3s.api import times
from k3s.api.object import Object
from k3s.api.object import decode as decode_json
from k3s.api.wiretables import (
    BYTES,
    DURATION,
    FIXED32,
    FIXED64,
    INLINE,
    INT_OR_STRING,
    MAGIC,
    MAX_DEPTH,
    MICRO_TIME,
    PLAIN,
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
    by_number,
    message_of,
)

_MASK64 = (1 << 64) - 1
_GROUP, _GROUP_END = 3, 4
_ZEROS: tuple[Any, ...] = (0, "")


class Malformed(Exception):
    """The bytes are not what the tables say."""


def read_envelope(data: bytes, api_version: str, kind: str, depth: int) -> Object:
    """The object of a `k8s\\0` envelope; raises Malformed, and what Python's own converters raise."""
    if data[:4] != MAGIC:
        raise Malformed("provided data does not appear to be a protobuf message, expected prefix k8s\\0")
    if depth > MAX_DEPTH:
        raise Malformed("objects are nested too deeply")
    raw = b""
    for number, kind_of_wire, value in _tokens(data, 4, len(data)):
        if number == 1 and kind_of_wire == BYTES:
            start, end = value
            meta = _message(TYPE_META, data, start, end, depth + 1)
            api_version, kind = meta.get("apiVersion", api_version), meta.get("kind", kind)
        elif number == 2 and kind_of_wire == BYTES:
            raw = data[value[0] : value[1]]
    message = message_of(api_version, kind)
    if message is None:
        raise Malformed(f'no kind "{kind}" is registered for version "{api_version}"')
    return {"kind": kind, "apiVersion": api_version, **_message(message, raw, 0, len(raw), depth + 1)}


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= end or shift > 63:
            raise Malformed("a number is cut off or too long")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK64, at
        shift += 7


def _tokens(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """Each field of a message: number, wire type and value; for bytes the value is where they start and end."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("illegal tag 0")
        if wire == VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value
        elif wire == BYTES:
            length, at = _varint(data, at, end)
            if at + length > end:
                raise Malformed("unexpected EOF")
            yield number, wire, (at, at + length)
            at += length
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            if at + size > end:
                raise Malformed("unexpected EOF")
            yield number, wire, data[at : at + size]
            at += size
        elif wire == _GROUP:
            # Nothing of the API is one; what later versions may add is passed over, as Go does.
            at = _after_group(data, at, end)
        else:
            raise Malformed(f"illegal wireType {wire}")


def _after_group(data: bytes, at: int, end: int) -> int:
    """Where an unknown group ends, with all groups inside."""
    depth = 1
    while depth:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == _GROUP:
            depth += 1
        elif wire == _GROUP_END:
            depth -= 1
        elif wire == VARINT:
            _, at = _varint(data, at, end)
        elif wire == BYTES:
            length, at = _varint(data, at, end)
            at += length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise Malformed(f"illegal wireType {wire}")
        if at > end:
            raise Malformed("unexpected EOF")
    return at


def _message(message: str, data: bytes, start: int, end: int, depth: int, into: dict[str, Any] | None = None) -> Any:
    """The JSON form of one message; `into` is what an earlier part of the same field gave, which it adds to."""
    if depth > MAX_DEPTH:
        raise Malformed("messages are nested too deeply")
    special = _READERS.get(message)
    if special is not None:
        return special(data, start, end, depth)
    fields = by_number(message)
    out: dict[str, Any] = into if into is not None else {}
    for number, wire, value in _tokens(data, start, end):
        field = fields.get(number)
        if field is None:
            continue
        _, name, kind, flags = field
        if flags & REPEATED and wire == BYTES and SCALARS.get(kind, BYTES) != BYTES:
            out.setdefault(name, []).extend(_packed(kind, data, value[0], value[1], depth, name))
            continue
        if kind.startswith("map:"):
            _expect(wire, BYTES, name)
            key, inner = _entry(kind[4:], data, value[0], value[1], depth)
            out.setdefault(name, {})[key] = inner
            continue
        if wire == BYTES and not flags and name in out and kind not in SCALARS and kind not in _READERS:
            # The parts of a message that comes in several add up.
            _message(kind, data, value[0], value[1], depth + 1, out[name])
            continue
        read = _value(kind, wire, value, data, depth, name)
        if flags & INLINE:
            out.update(read)
        elif flags & REPEATED:
            out.setdefault(name, []).append(read)
        elif flags & PLAIN and read in _ZEROS:
            out.pop(name, None)
        elif read is not None:
            out[name] = read
    return out


def _packed(kind: str, data: bytes, at: int, end: int, depth: int, name: str) -> Iterator[Any]:
    """The numbers of a repeated field that came in one piece."""
    wire = SCALARS[kind]
    while at < end:
        value: Any
        if wire == VARINT:
            value, at = _varint(data, at, end)
        else:
            if at + 8 > end:
                raise Malformed("unexpected EOF")
            value, at = data[at : at + 8], at + 8
        yield _value(kind, wire, value, data, depth, name)


def _expect(wire: int, wanted: int, name: str) -> None:
    if wire != wanted:
        raise Malformed(f"wrong wireType = {wire} for field {name}")


def _value(kind: str, wire: int, value: Any, data: bytes, depth: int, name: str) -> Any:
    """The JSON form of one field's value."""
    _expect(wire, SCALARS.get(kind, BYTES), name)
    if kind == "string":
        return _text(data[value[0] : value[1]])
    if kind == "bool":
        return value != 0
    if kind == "int32":
        return _int32(value)
    if kind == "int64":
        return value - (1 << 64) if value >> 63 else value
    if kind == "bytes":
        return base64.b64encode(data[value[0] : value[1]]).decode("ascii")
    if kind == "double":
        number = struct.unpack("<d", value)[0]
        if number != number or number in (float("inf"), float("-inf")):
            raise Malformed(f"{name} is not a finite number")
        return number
    return _message(kind, data, value[0], value[1], depth + 1)


def _text(data: bytes) -> str:
    """A text; what is not UTF-8 in it is replaced, as it would be in JSON."""
    return data.decode("utf-8", "replace")


def _int32(value: int) -> int:
    """The lower 32 bits as a number with a sign, which is what Go keeps of a longer one."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _entry(kind: str, data: bytes, start: int, end: int, depth: int) -> tuple[str, Any]:
    """One entry of a map; a missing part is its zero value."""
    key = ""
    found: Any = None
    for number, wire, value in _tokens(data, start, end):
        if number == 1:
            key = _value("string", wire, value, data, depth, "key")
        elif number == 2:
            found = _value(kind, wire, value, data, depth, "value")
    if found is None:
        found = {"string": "", "bytes": ""}.get(kind)
        if found is None:
            found = 0 if kind in SCALARS else _message(kind, b"", 0, 0, depth + 1)
    return key, found


def _numbers(data: bytes, start: int, end: int) -> dict[int, Any]:
    """The last value of each field, bytes cut out: for the few messages that have a form of their own."""
    return {
        number: data[value[0] : value[1]] if wire == BYTES else value
        for number, wire, value in _tokens(data, start, end)
    }


def _int(value: Any) -> int:
    if not isinstance(value, int):
        raise Malformed("a number was expected")
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("bytes were expected")
    return value


def _read_time(data: bytes, start: int, end: int, depth: int) -> str | None:
    return _read_moment(data, start, end, 0)


def _read_micro_time(data: bytes, start: int, end: int, depth: int) -> str | None:
    return _read_moment(data, start, end, 6)


def _read_moment(data: bytes, start: int, end: int, digits: int) -> str | None:
    if start == end:
        return None  # Go's zero time, which JSON leaves out
    numbers = _numbers(data, start, end)
    return times.format_ns(_int(numbers.get(1, 0)) * 10**9 + _int(numbers.get(2, 0)), digits)


def _read_quantity(data: bytes, start: int, end: int, depth: int) -> str:
    return _bytes(_numbers(data, start, end).get(1, b"0")).decode("utf-8") or "0"


def _read_int_or_string(data: bytes, start: int, end: int, depth: int) -> int | str:
    numbers = _numbers(data, start, end)
    if _int(numbers.get(1, 0)) == 1:
        return _text(_bytes(numbers.get(3, b"")))
    return _int32(_int(numbers.get(2, 0)))


def _read_duration(data: bytes, start: int, end: int, depth: int) -> str:
    return times.format_duration_ns(_int(_numbers(data, start, end).get(1, 0)))


def _read_raw(data: bytes, start: int, end: int, depth: int) -> Any:
    raw = _bytes(_numbers(data, start, end).get(1, b""))
    if raw.startswith(MAGIC):
        return read_envelope(raw, "", "", depth + 1)
    return decode_json(raw) if raw else None


def _read_items(data: bytes, start: int, end: int, depth: int) -> list[str]:
    items = [data[v[0] : v[1]] for number, wire, v in _tokens(data, start, end) if number == 1 and wire == BYTES]
    return [_text(item) for item in items]


def _read_schema_or_bool(data: bytes, start: int, end: int, depth: int) -> Any:
    allows, schema = False, None
    for number, wire, value in _tokens(data, start, end):
        if number == 1 and wire == VARINT:
            allows = bool(value)
        elif number == 2 and wire == BYTES:
            schema = _message(SCHEMA, data, value[0], value[1], depth + 1)
    return allows if schema is None else schema


def _read_schema_or_array(data: bytes, start: int, end: int, depth: int) -> Any:
    schema: Any = None
    several: list[Any] = []
    for number, wire, value in _tokens(data, start, end):
        if wire != BYTES:
            continue
        if number == 1:
            schema = _message(SCHEMA, data, value[0], value[1], depth + 1)
        elif number == 2:
            several.append(_message(SCHEMA, data, value[0], value[1], depth + 1))
    return several or schema


def _read_schema_or_texts(data: bytes, start: int, end: int, depth: int) -> Any:
    schema: Any = None
    texts: list[str] = []
    for number, wire, value in _tokens(data, start, end):
        if wire != BYTES:
            continue
        if number == 1:
            schema = _message(SCHEMA, data, value[0], value[1], depth + 1)
        elif number == 2:
            texts.append(_text(data[value[0] : value[1]]))
    return texts if schema is None else schema


_READERS: dict[str, Callable[[bytes, int, int, int], Any]] = {
    TIME: _read_time,
    MICRO_TIME: _read_micro_time,
    QUANTITY: _read_quantity,
    INT_OR_STRING: _read_int_or_string,
    DURATION: _read_duration,
    SCHEMA_OR_BOOL: _read_schema_or_bool,
    SCHEMA_OR_ARRAY: _read_schema_or_array,
    SCHEMA_OR_TEXTS: _read_schema_or_texts,
    **dict.fromkeys(RAW, _read_raw),
    **dict.fromkeys(TEXTS, _read_items),
}
