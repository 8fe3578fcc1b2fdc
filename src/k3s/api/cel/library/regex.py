"""Regular expressions: RE2's, whose work follows the length of text and pattern."""

from __future__ import annotations

from typing import Any

from k3s.api import pattern
from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import declare


def _compiled(text: str) -> Any:
    try:
        return pattern.compiled(text)
    except pattern.BadPattern as error:
        raise Fault(str(error)) from None


def matches(text: str, expression: str) -> bool:
    """Whether the expression is found somewhere in the text."""
    return _compiled(expression).search(text) is not None


def _find(text: str, expression: str) -> str:
    found = _compiled(expression).search(text)
    return found[0] if found else ""


def _find_all(text: str, expression: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    found: list[str] = []
    for match in _compiled(expression).finditer(text):
        found.append(match[0])
        if len(found) == limit:
            break
    return found


OVERLOADS = tuple(
    declare(*row)
    for row in (
        ("find", "string_find_string", ".string string -> string", _find),
        ("findAll", "string_find_all_string", ".string string -> list<string>", _find_all),
        ("findAll", "string_find_all_string_int", ".string string int -> list<string>", _find_all),
    )
)
