"""Quantities and semantic versions.

Source: the quantity and semver libraries of the API server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from k3s.api import quantity
from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import declare
from k3s.api.cel.values import INT_MAX, INT_MIN, Opaque

_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)


@dataclass(frozen=True, slots=True)
class Quantity(Opaque):
    """An amount."""

    value: quantity.Quantity
    kind = "kubernetes.Quantity"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and other.value.nano == self.value.nano

    def __hash__(self) -> int:
        return hash(self.value.nano)


@dataclass(frozen=True, slots=True)
class Semver(Opaque):
    """A version; what is built from does not count in comparisons."""

    numbers: tuple[int, int, int]
    before: tuple[tuple[int, int, str], ...]
    kind = "kubernetes.Semver"

    @property
    def order(self) -> tuple[Any, ...]:
        """What versions are compared by: one with something before it comes first."""
        return (*self.numbers, not self.before, self.before)


def _quantity(text: str) -> Quantity:
    try:
        return Quantity(quantity.parse(text))
    except quantity.QuantityError as error:
        raise Fault(str(error)) from None


def _sum(sign: int) -> Any:
    def add(a: Quantity, b: Quantity | int) -> Quantity:
        other = quantity.of(b) if isinstance(b, int) else b.value
        return Quantity(quantity.Quantity(a.value.nano + sign * other.nano, a.value.form))

    return add


def _whole(a: Quantity) -> bool:
    return a.value.nano % quantity.NANO == 0 and INT_MIN <= a.value.nano // quantity.NANO <= INT_MAX


def _as_integer(a: Quantity) -> int:
    if not _whole(a):
        raise Fault("cannot convert value to integer")
    return a.value.nano // quantity.NANO


def _compared(a: Any, b: Any) -> int:
    one, other = (x.value.nano if isinstance(x, Quantity) else x.order for x in (a, b))
    return int(one > other) - int(one < other)


def _sign(a: Quantity) -> int:
    return int(a.value.nano > 0) - int(a.value.nano < 0)


def _semver(text: str, normalize: bool = False) -> Semver:
    if normalize:
        text = _normalized(text)
    match = _VERSION.fullmatch(text)
    if match is None:
        raise Fault("No Major.Minor.Patch elements found" if text.count(".") < 2 else f'invalid version "{text}"')
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (match[4] or "").split(".") if p)
    return Semver((int(match[1]), int(match[2]), int(match[3])), parts)


def _normalized(text: str) -> str:
    """Without a leading v and leading zeros, with the numbers that are missing."""
    text = text.strip().removeprefix("v")
    match = re.fullmatch(r"([0-9.]*)(.*)", text, re.DOTALL)
    assert match is not None
    parts = [part.lstrip("0") or "0" for part in match[1].split(".")] if match[1] else []
    if len(parts) < 3 and match[2][:1] not in ("", "-", "+"):
        return text
    if parts and len(parts) < 3:
        if match[2]:
            return text
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts) + match[2]


def _is(read: Any) -> Any:
    def check(*args: Any) -> bool:
        try:
            read(*args)
        except Fault:
            return False
        return True

    return check


def _comparisons(kind: str, word: str) -> tuple[Any, ...]:
    return (
        ("isGreaterThan", f"{word}_is_greater_than", f".{kind} {kind} -> bool", lambda a, b: _compared(a, b) > 0),
        ("isLessThan", f"{word}_is_less_than", f".{kind} {kind} -> bool", lambda a, b: _compared(a, b) < 0),
        ("compareTo", f"{word}_compare_to", f".{kind} {kind} -> int", _compared),
    )


_Q, _S = Quantity.kind, Semver.kind
QUANTITIES = tuple(
    declare(*row)
    for row in (
        ("quantity", "string_to_quantity", f"string -> {_Q}", _quantity),
        ("isQuantity", "is_quantity_string", "string -> bool", _is(_quantity)),
        ("sign", "quantity_sign", f".{_Q} -> int", _sign),
        *_comparisons(_Q, "quantity"),
        (
            "asApproximateFloat",
            "quantity_get_float",
            f".{_Q} -> double",
            lambda a: a.value.nano / quantity.NANO,
        ),
        ("asInteger", "quantity_get_int", f".{_Q} -> int", _as_integer),
        ("isInteger", "quantity_is_integer", f".{_Q} -> bool", _whole),
        ("add", "quantity_add", f".{_Q} {_Q} -> {_Q}", _sum(1)),
        ("add", "quantity_add_int", f".{_Q} int -> {_Q}", _sum(1)),
        ("sub", "quantity_sub", f".{_Q} {_Q} -> {_Q}", _sum(-1)),
        ("sub", "quantity_sub_int", f".{_Q} int -> {_Q}", _sum(-1)),
    )
)
SEMVER = tuple(
    declare(*row)
    for row in (
        ("semver", "string_to_semver", f"string -> {_S}", _semver),
        ("semver", "string_bool_to_semver", f"string bool -> {_S}", _semver),
        ("isSemver", "is_semver_string", "string -> bool", _is(_semver)),
        ("isSemver", "is_semver_string_bool", "string bool -> bool", _is(_semver)),
        *_comparisons(_S, "semver"),
        ("major", "semver_major", f".{_S} -> int", lambda a: a.numbers[0]),
        ("minor", "semver_minor", f".{_S} -> int", lambda a: a.numbers[1]),
        ("patch", "semver_patch", f".{_S} -> int", lambda a: a.numbers[2]),
    )
)
