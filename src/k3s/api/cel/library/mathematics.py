"""Functions over numbers, and base64: CEL's math and encoders extensions."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from typing import Any

from k3s.api.cel import numbers
from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import Overload, declare
from k3s.api.cel.values import UINT_MAX, Uint, compare

_MOST_ARGUMENTS = 6


def _pick(wanted: int, name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        values = args[0] if args[0].__class__ is list else args
        if not values:
            raise Fault(f"math.@{name}(list) argument must not be empty")
        best = values[0]
        for value in values:
            if compare(value, best) == wanted:
                best = value
        return best

    return run


def _extremes() -> list[Overload]:
    found = []
    for name, short, wanted in (("greatest", "max", 1), ("least", "min", -1)):
        run = _pick(wanted, short)
        for kind in ("int", "uint", "double"):
            found.append(declare(f"math.{name}", f"math_@{short}_list_{kind}", f"list<{kind}> -> {kind}", run))
            for count in range(1, _MOST_ARGUMENTS + 1):
                given = " ".join([kind] * count)
                found.append(declare(f"math.{name}", f"math_@{short}_{kind}_{count}", f"{given} -> {kind}", run))
        for count in range(2, _MOST_ARGUMENTS + 1):
            mixed = " ".join(["dyn"] * count)
            found.append(declare(f"math.{name}", f"math_@{short}_dyn_{count}", f"{mixed} -> dyn", run))
    return found


def _round(value: float) -> float:
    if not math.isfinite(value):
        return value
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _safely(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: float(function(value)) if math.isfinite(value) else value


def _sign(value: Any) -> Any:
    if value.__class__ is float and math.isnan(value):
        return value
    return value.__class__((value > 0) - (value < 0))


def _shifted(value: Any, count: int, *, left: bool) -> Any:
    if count < 0:
        raise Fault(f"math.bitShift{'Left' if left else 'Right'}() negative offset: {count}")
    if count >= 64:
        return value.__class__(0)
    bits = (int(value) << count) & UINT_MAX if left else (int(value) & UINT_MAX) >> count
    return Uint(bits) if value.__class__ is Uint else _signed(bits)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _numbers() -> list[Overload]:
    found = []
    doubles: dict[str, Callable[..., Any]] = {
        "ceil": _safely(math.ceil),
        "floor": _safely(math.floor),
        "round": _round,
        "trunc": _safely(math.trunc),
    }
    for name, run in doubles.items():
        found.append(declare(f"math.{name}", f"math_{name}_double", "double -> double", run))
    tests: dict[str, Callable[..., Any]] = {"isNaN": math.isnan, "isInf": math.isinf, "isFinite": math.isfinite}
    for name, run in tests.items():
        found.append(declare(f"math.{name}", f"math_{name}_double", "double -> bool", run))
    for kind in ("int", "uint", "double"):
        absolute = (lambda v: numbers.checked(abs(v))) if kind == "int" else (lambda v: v if v >= 0 else -v)
        found.append(declare("math.abs", f"math_abs_{kind}", f"{kind} -> {kind}", absolute))
        found.append(declare("math.sign", f"math_sign_{kind}", f"{kind} -> {kind}", _sign))
        root = lambda v: math.sqrt(v) if v >= 0 else math.nan  # noqa: E731
        found.append(declare("math.sqrt", f"math_sqrt_{kind}", f"{kind} -> double", root))
    return found


def _bits() -> list[Overload]:
    found = []
    pairs: dict[str, Callable[..., Any]] = {
        "bitAnd": lambda a, b: a.__class__(int(a) & int(b)),
        "bitOr": lambda a, b: a.__class__(int(a) | int(b)),
        "bitXor": lambda a, b: a.__class__(int(a) ^ int(b)),
    }
    shifts: dict[str, Callable[..., Any]] = {
        "bitShiftLeft": lambda a, n: _shifted(a, n, left=True),
        "bitShiftRight": lambda a, n: _shifted(a, n, left=False),
    }
    for kind in ("int", "uint"):
        for name, run in pairs.items():
            found.append(declare(f"math.{name}", f"math_{name}_{kind}_{kind}", f"{kind} {kind} -> {kind}", run))
        for name, run in shifts.items():
            found.append(declare(f"math.{name}", f"math_{name}_{kind}_int", f"{kind} int -> {kind}", run))
        invert = (lambda a: ~a) if kind == "int" else (lambda a: Uint(UINT_MAX ^ int(a)))
        found.append(declare("math.bitNot", f"math_bitNot_{kind}", f"{kind} -> {kind}", invert))
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Fault("illegal base64 data at input byte 0") from None


MATH = (*_extremes(), *_numbers(), *_bits())
BASE64 = (
    declare("base64.decode", "base64_decode_string", "string -> bytes", _decoded),
    declare("base64.encode", "base64_encode_bytes", "bytes -> string", lambda a: base64.b64encode(a).decode()),
)
