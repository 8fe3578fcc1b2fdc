"""Arithmetic with limits, and numbers from and to texts.

Source: the CEL language definition; number texts are Go's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from k3s.api.cel.errors import Fault
from k3s.api.cel.values import INT_MAX, INT_MIN, UINT_MAX, Uint

_INT = re.compile(r"[+-]?[0-9]+")
_UINT = re.compile(r"[0-9]+")
_FLOAT = re.compile(
    r"[+-]?(?:inf|infinity|nan|(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.IGNORECASE
)


def checked(value: int) -> int:
    """The number, when 64 bits hold it."""
    if INT_MIN <= value <= INT_MAX:
        return value
    raise Fault("integer overflow")


def unsigned(value: int) -> Uint:
    """The number as an unsigned one, when 64 bits hold it."""
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise Fault("unsigned integer overflow")


def _whole(divide: Callable[[int, int], int], text: str, limit: Callable[[int], int]) -> Callable[[int, int], int]:
    def run(a: int, b: int) -> int:
        if b == 0:
            raise Fault(text)
        return limit(divide(int(a), int(b)))

    return run


def _quotient(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    if a == INT_MIN and b == -1:
        raise Fault("integer overflow")
    return int(math.copysign(1, a)) * (abs(a) % abs(b))


divide_ints = _whole(_quotient, "division by zero", checked)
divide_uints = _whole(_quotient, "division by zero", unsigned)
modulo_ints = _whole(_remainder, "modulus by zero", checked)
modulo_uints = _whole(_remainder, "modulus by zero", unsigned)


def divide_doubles(a: float, b: float) -> float:
    """Division as IEEE 754 has it."""
    if b:
        return a / b
    if math.isnan(a) or a == 0:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def int_of_double(value: float) -> int:
    """Towards zero; what does not fit is an overflow."""
    if math.isnan(value) or not float(INT_MIN) < value < float(INT_MAX):
        raise Fault("integer overflow")
    return int(value)


def uint_of_double(value: float) -> Uint:
    """Towards zero; what does not fit is an overflow."""
    if math.isnan(value) or value < 0 or value >= float(UINT_MAX):
        raise Fault("unsigned integer overflow")
    return Uint(int(value))


def conversion(source: str, target: str) -> Fault:
    """What is said of a text that is no value of a type."""
    return Fault(f"type conversion error from '{source}' to '{target}'")


def int_of_text(text: str) -> int:
    """A decimal number."""
    if _INT.fullmatch(text) and len(text) < 30 and INT_MIN <= int(text) <= INT_MAX:
        return int(text)
    raise conversion("string", "int")


def uint_of_text(text: str) -> Uint:
    """A decimal number without sign."""
    if _UINT.fullmatch(text) and len(text) < 30 and int(text) <= UINT_MAX:
        return Uint(text)
    raise conversion("string", "uint")


def double_of_text(text: str) -> float:
    """A number with point or exponent."""
    if _FLOAT.fullmatch(text) and "_" not in text:
        value = float(text)
        if math.isfinite(value) or "n" in text.lower():
            return value
    raise conversion("string", "double")


def bool_of_text(text: str) -> bool:
    """The words that Go takes for booleans."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise conversion("string", "bool")


def text_of_double(value: float) -> str:
    """The shortest text, with an exponent from a million on (Go's %g)."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    mantissa, _, power = f"{value!r}".partition("e")
    digits = mantissa.lstrip("-").replace(".", "").lstrip("0").rstrip("0") or "0"
    if power:
        exponent = int(power)
    else:
        whole, _, fraction = mantissa.lstrip("-").partition(".")
        exponent = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    sign = "-" if value < 0 else ""
    if -4 <= exponent < 6:
        return sign + _plain(digits, exponent)
    body = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{body}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]


def negate(value: Any) -> Any:
    """The number with the other sign."""
    return checked(-value) if value.__class__ is int else -value
