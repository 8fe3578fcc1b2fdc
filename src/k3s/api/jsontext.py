"""JSON of clients, and what is wrong with it, in the words of Go's package encoding/json, which they know.

The words are only looked for after a decoder has refused a text, so that may be slow.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from k3s.api.object import decode

_SPACE = " \t\r\n"
_ESCAPES = '"\\/bfnrt'
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_END = "unexpected end of JSON input"
_MAX_DEPTH = 10000


class Malformed(ValueError):
    """A text that is not JSON; says why."""


class _Wrong(Exception):
    pass


def value(data: bytes) -> Any:
    """The value of a client's text; what is not UTF-8 in it is replaced, as Go does. Raises Malformed."""
    try:
        return decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise Malformed(complaint(data)) from None
    except UnicodeDecodeError:
        return value(data.decode("utf-8", "replace").encode())


def complaint(data: bytes | str) -> str:
    """The message about the first mistake of a text that is not JSON; empty when there is none."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        at = _value(text, _skip(text, 0), 0)
        at = _skip(text, at)
        if at < len(text):
            return f"invalid character {_shown(text[at])} after top-level value"
    except _Wrong as wrong:
        return str(wrong)
    except RecursionError:
        return "exceeded max depth"
    return ""


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys."""


def keys(data: bytes) -> list[tuple[str, bool]]:
    """The paths (`spec.containers[0].name`) of all keys in the order of the text, and whether each came before."""
    found: list[tuple[str, bool]] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                at = f"{path}.{key}" if path else key
                found.append((at, key in seen))
                seen.add(key)
                walk(inner, at)
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                walk(inner, f"{path}[{i}]")

    walk(json.loads(data.decode("utf-8", "replace"), object_pairs_hook=_Pairs), "")
    return found


def kind_of(value: Any) -> str:
    """What Go calls the kind of a JSON value: object, array, string, number, bool or null."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "null"


def _shown(c: str) -> str:
    if c == "'":
        return r"'\''"
    if c == '"':
        return "'\"'"
    return "'" + c.encode("unicode_escape").decode() + "'" if ord(c) < 32 or c == "\\" else f"'{c}'"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _need(text: str, at: int) -> str:
    if at >= len(text):
        raise _Wrong(_END)
    return text[at]


def _value(text: str, at: int, depth: int) -> int:
    """The position after the value that starts here."""
    c = _need(text, at)
    if depth > _MAX_DEPTH:
        raise _Wrong("exceeded max depth")
    if c == "{":
        return _object(text, at + 1, depth + 1)
    if c == "[":
        return _array(text, at + 1, depth + 1)
    if c == '"':
        return _string(text, at + 1)
    if c == "-" or c.isdigit():
        return _number(text, at)
    for word in ("true", "false", "null"):
        if word[0] == c:
            return _word(text, at, word)
    raise _Wrong(f"invalid character {_shown(c)} looking for beginning of value")


def _object(text: str, at: int, depth: int) -> int:
    at = _skip(text, at)
    if _need(text, at) == "}":
        return at + 1
    while True:
        c = _need(text, at)
        if c != '"':
            raise _Wrong(f"invalid character {_shown(c)} looking for beginning of object key string")
        at = _skip(text, _string(text, at + 1))
        c = _need(text, at)
        if c != ":":
            raise _Wrong(f"invalid character {_shown(c)} after object key")
        at = _skip(text, _value(text, _skip(text, at + 1), depth))
        c = _need(text, at)
        if c == "}":
            return at + 1
        if c != ",":
            raise _Wrong(f"invalid character {_shown(c)} after object key:value pair")
        at = _skip(text, at + 1)


def _array(text: str, at: int, depth: int) -> int:
    at = _skip(text, at)
    if _need(text, at) == "]":
        return at + 1
    while True:
        at = _skip(text, _value(text, at, depth))
        c = _need(text, at)
        if c == "]":
            return at + 1
        if c != ",":
            raise _Wrong(f"invalid character {_shown(c)} after array element")
        at = _skip(text, at + 1)


def _string(text: str, at: int) -> int:
    while True:
        c = _need(text, at)
        if c == '"':
            return at + 1
        if ord(c) < 32:
            raise _Wrong(f"invalid character {_shown(c)} in string literal")
        at += 1
        if c != "\\":
            continue
        c = _need(text, at)
        at += 1
        if c == "u":
            for _ in range(4):
                c = _need(text, at)
                if c not in "0123456789abcdefABCDEF":
                    raise _Wrong(f"invalid character {_shown(c)} in \\u hexadecimal character escape")
                at += 1
        elif c not in _ESCAPES:
            raise _Wrong(f"invalid character {_shown(c)} in string escape code")


def _number(text: str, at: int) -> int:
    match = _NUMBER.match(text, at)
    if match is None:
        c = _need(text, at + 1)
        raise _Wrong(f"invalid character {_shown(c)} in numeric literal")
    end = match.end()
    rest = text[end : end + 2]
    if rest[:1] == ".":
        raise _Wrong(f"invalid character {_shown(_need(text, end + 1))} after decimal point in numeric literal")
    if rest[:1] in ("e", "E") and "e" not in match.group().lower():
        raise _Wrong(f"invalid character {_shown(_need(text, end + 1))} in exponent of numeric literal")
    return end


def _word(text: str, at: int, word: str) -> int:
    for i in range(1, len(word)):
        c = _need(text, at + i)
        if c != word[i]:
            raise _Wrong(f"invalid character {_shown(c)} in literal {word} (expecting {_shown(word[i])})")
    return at + len(word)
