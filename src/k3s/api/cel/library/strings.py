"""More functions over texts.

Source: CEL's strings extension in the version that Kubernetes has, and `reverse` of the next one.
"""

from __future__ import annotations

from k3s.api.cel.errors import Fault, bounded_list, bounded_text
from k3s.api.cel.library.formatting import format, quote
from k3s.api.cel.overloads import declare

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
_SPACE += "\u205f\u3000"
_LOWER = {ord(upper): ord(upper) + 32 for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_UPPER = {lower: upper for upper, lower in _LOWER.items()}


def _place(text: str, index: int) -> int:
    if not 0 <= index <= len(text):
        raise Fault(f"index out of range: {index}")
    return index


def _char_at(text: str, index: int) -> str:
    return text[_place(text, index) : index + 1]


def _index_of(text: str, part: str, offset: int = 0) -> int:
    return text.find(part, _place(text, offset)) if part or offset else 0


def _last_index_of(text: str, part: str, offset: int | None = None) -> int:
    if offset is None:
        return text.rfind(part)
    return text.rfind(part, 0, _place(text, offset) + len(part))


def _join(parts: list[str], separator: str = "") -> str:
    for part in parts:
        if part.__class__ is not str:
            raise Fault("no such overload")
    bounded_text(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    places = text.count(old) if count < 0 else min(count, text.count(old))
    bounded_text(len(text) + places * len(new))
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    bounded_list(len(text) if not separator else text.count(separator))
    if not separator:
        return list(text) if count < 0 or count >= len(text) else [*text[: count - 1], text[count - 1 :]]
    return text.split(separator, count - 1 if count > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        return text[_place(text, start) :]
    if not 0 <= start <= end <= len(text):
        for index in (start, end):
            _place(text, index)
        raise Fault(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


OVERLOADS = tuple(
    declare(*row)
    for row in (
        ("charAt", "string_char_at_int", ".string int -> string", _char_at),
        ("format", "string_format", ".string list<dyn> -> string", format),
        ("indexOf", "string_index_of_string", ".string string -> int", _index_of),
        ("indexOf", "string_index_of_string_int", ".string string int -> int", _index_of),
        ("join", "list_join", ".list<string> -> string", _join),
        ("join", "list_join_string", ".list<string> string -> string", _join),
        ("lastIndexOf", "string_last_index_of_string", ".string string -> int", _last_index_of),
        ("lastIndexOf", "string_last_index_of_string_int", ".string string int -> int", _last_index_of),
        ("lowerAscii", "string_lower_ascii", ".string -> string", lambda text: text.translate(_LOWER)),
        ("strings.quote", "strings_quote", "string -> string", quote),
        ("replace", "string_replace_string_string", ".string string string -> string", _replace),
        ("replace", "string_replace_string_string_int", ".string string string int -> string", _replace),
        ("reverse", "string_reverse", ".string -> string", lambda text: text[::-1]),
        ("split", "string_split_string", ".string string -> list<string>", _split),
        ("split", "string_split_string_int", ".string string int -> list<string>", _split),
        ("substring", "string_substring_int", ".string int -> string", _substring),
        ("substring", "string_substring_int_int", ".string int int -> string", _substring),
        ("trim", "string_trim", ".string -> string", lambda text: text.strip(_SPACE)),
        ("upperAscii", "string_upper_ascii", ".string -> string", lambda text: text.translate(_UPPER)),
    )
)
