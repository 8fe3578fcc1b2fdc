"""A protobuf codec driven by a table: message -> field -> [number, type, label]; values are plain dicts.

Pure. Encoding leaves out what is absent or zero, as proto3 does, except inside wrapper-like messages that were given
explicitly (a message field is written whenever its key is present). Decoding fills every scalar, list and map field
with its zero value, so that readers need no defaults; a message that was not sent is None.
Wire format: the protobuf encoding specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NUMBERS = frozenset({"int32", "int64", "uint32", "uint64", "bool"})
_U64 = (1 << 64) - 1

Field = list[Any]


class Codec:
    """Encodes and decodes the messages of one table. Raises KeyError for unknown names, ValueError for broken bytes."""

    def __init__(self, messages: Mapping[str, Mapping[str, Field]], enums: Mapping[str, Mapping[str, int]]) -> None:
        self._messages = messages
        self._enums = enums
        self._names = {enum: {number: name for name, number in values.items()} for enum, values in enums.items()}
        self._readers: dict[str, tuple[dict[int, tuple[str, str, bool]], dict[str, Any]]] = {}

    def encode(self, message: str, value: Mapping[str, Any]) -> bytes:
        """The bytes of a message; a key that the message does not have is an error (KeyError)."""
        out = bytearray()
        fields = self._messages[message]
        for key, item in value.items():
            if item is None:
                continue
            row = fields[key]
            number, kind = row[0], row[1]
            if kind.startswith("map<"):
                for name, data in item.items():
                    entry = _text(1, name) + _sized(2, data.encode() if isinstance(data, str) else data)
                    out += _tag(number, _BYTES) + _varint(len(entry)) + entry
            elif len(row) > 2:
                self._repeated(out, number, kind, item)
            else:
                self._single(out, number, kind, item)
        return bytes(out)

    def _repeated(self, out: bytearray, number: int, kind: str, items: Any) -> None:
        if kind in _NUMBERS:
            packed = b"".join(_varint(int(item) & _U64) for item in items)
            if packed:
                out += _tag(number, _BYTES) + _varint(len(packed)) + packed
            return
        for item in items:
            if kind == "string":
                out += _text(number, item)
            else:
                body = self.encode(kind, item)
                out += _tag(number, _BYTES) + _varint(len(body)) + body

    def _single(self, out: bytearray, number: int, kind: str, item: Any) -> None:
        if kind == "string":
            if item:
                out += _text(number, item)
        elif kind in _NUMBERS:
            if item:
                out += _tag(number, _VARINT) + _varint(int(item) & _U64)
        elif kind in self._enums:
            if code := self._enums[kind][item]:
                out += _tag(number, _VARINT) + _varint(code)
        elif kind == "bytes":
            if item:
                data = item.encode() if isinstance(item, str) else item
                out += _tag(number, _BYTES) + _varint(len(data)) + data
        elif kind == "double":
            out += _tag(number, _FIXED64) + struct.pack("<d", item)
        else:
            body = self.encode(kind, item)
            out += _tag(number, _BYTES) + _varint(len(body)) + body

    def _reader(self, message: str) -> tuple[dict[int, tuple[str, str, bool]], dict[str, Any]]:
        found = self._readers.get(message)
        if found is None:
            rows = self._messages[message]
            by_number = {row[0]: (key, row[1], len(row) > 2) for key, row in rows.items()}
            zero = {key: self._zero(row) for key, row in rows.items()}
            found = self._readers[message] = (by_number, zero)
        return found

    def _zero(self, row: Field) -> Any:
        kind = row[1]
        if len(row) > 2:
            return []
        if kind.startswith("map<"):
            return {}
        if kind in self._enums:
            return self._names[kind].get(0, "")
        return {"string": "", "bytes": b"", "bool": False, "double": 0.0}.get(kind, 0 if kind in _NUMBERS else None)

    def decode(self, message: str, data: bytes) -> dict[str, Any]:
        """The message as a dict with every field of the table; unknown fields are skipped."""
        by_number, zero = self._reader(message)
        value = {k: (v.copy() if isinstance(v, (list, dict)) else v) for k, v in zero.items()}
        at, end = 0, len(data)
        while at < end:
            tag, at = _read_varint(data, at)
            raw: Any
            wire = tag & 7
            if wire == _VARINT:
                raw, at = _read_varint(data, at)
            elif wire == _BYTES:
                size, at = _read_varint(data, at)
                if at + size > end:
                    raise ValueError(f"Cannot decode {message}: it ends in the middle of a field")
                raw, at = data[at : at + size], at + size
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
                raw, at = data[at : at + size], at + size
            else:
                raise ValueError(f"Cannot decode {message}: wire type {wire} is not used in proto3")
            field = by_number.get(tag >> 3)
            if field is not None:
                self._put(value, field, wire, raw)
        return value

    def _put(self, value: dict[str, Any], field: tuple[str, str, bool], wire: int, raw: Any) -> None:
        key, kind, repeated = field
        if kind.startswith("map<"):
            name, data = _read_entry(raw)
            value[key][name.decode()] = data if kind.endswith(",bytes>") else data.decode()
        elif repeated and kind in _NUMBERS and wire == _BYTES:
            at = 0
            while at < len(raw):
                number, at = _read_varint(raw, at)
                value[key].append(_number(kind, number))
        elif repeated:
            value[key].append(self._convert(kind, raw))
        else:
            value[key] = self._convert(kind, raw)

    def _convert(self, kind: str, raw: Any) -> Any:
        if kind == "string":
            return raw.decode()
        if kind in _NUMBERS:
            return _number(kind, raw)
        if kind in self._names:
            return self._names[kind].get(raw, str(raw))
        if kind == "bytes":
            return raw
        if kind == "double":
            return struct.unpack("<d", raw)[0]
        return self.decode(kind, raw)


def _number(kind: str, raw: int) -> int | bool:
    if kind == "bool":
        return bool(raw)
    if kind.startswith("int"):
        raw &= _U64
        return raw - (1 << 64) if raw >> 63 else raw
    return raw


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _text(number: int, text: str) -> bytes:
    return _sized(number, text.encode())


def _sized(number: int, data: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(data)) + data


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("Cannot decode: a number is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _read_entry(data: bytes) -> tuple[bytes, bytes]:
    parts = {1: b"", 2: b""}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        size, at = _read_varint(data, at)
        parts[tag >> 3] = data[at : at + size]
        at += size
    return parts[1], parts[2]
