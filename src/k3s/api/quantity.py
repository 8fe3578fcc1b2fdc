"""Exact resource quantities: `100m`, `1.5Gi`, `1e3`.

A quantity is a whole number of nano-units, so arithmetic never loses anything: finer values are rounded away from zero
when they are read, as the API does. The second part of a quantity is the family of suffixes it was written with, which
decides how it is printed. Source of grammar, rounding, limits and wording: the Quantity type of the resource API.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

NANO = 1_000_000_000
MAX_INT64 = (1 << 63) - 1

DECIMAL = "DecimalSI"
BINARY = "BinarySI"
EXPONENT = "DecimalExponent"

FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NUMERIC_WRONG = "unable to parse numeric part of quantity"
SUFFIX_WRONG = "unable to parse quantity's suffix"

# Larger exponents name no amount of anything, but would cost memory: 1e999999999 is eleven characters.
_MAX_EXPONENT = 300
_MAX_DIGITS = 600

_GRAMMAR = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)\Z")
_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_BINARY_EXPONENTS = {suffix: 10 * i for i, suffix in enumerate(_BINARY_SUFFIXES) if suffix}


class QuantityError(ValueError):
    """The text is not a quantity; the message is the API's."""


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An amount in nano-units; `form` only matters for printing, not for comparing."""

    nano: int
    form: str = field(default=DECIMAL, compare=False)

    def __str__(self) -> str:
        return format(self)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.form if self.nano else other.form)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.form if self.nano else other.form)

    def __bool__(self) -> bool:
        return self.nano != 0

    @property
    def value(self) -> int:
        """Whole units, rounded away from zero."""
        return _scaled(self.nano, NANO)

    @property
    def milli(self) -> int:
        """Thousandths, rounded away from zero."""
        return _scaled(self.nano, 1_000_000)


ZERO = Quantity(0)


def _scaled(nano: int, unit: int) -> int:
    return -(-nano // unit) if nano >= 0 else nano // unit


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    match = _GRAMMAR.match(text)
    if not text or match is None:
        raise QuantityError(FORMAT_WRONG)
    sign, whole, fraction, suffix = match.group(1), match.group(2), match.group(3) or "", match.group(4)
    if len(whole) + len(fraction) > _MAX_DIGITS:
        raise QuantityError(NUMERIC_WRONG)
    digits = int((whole + fraction) or "0")
    binary = _BINARY_EXPONENTS.get(suffix)
    if binary is not None:
        nano = _rounded_up(digits * NANO << binary, len(fraction))
        nano = min(nano, MAX_INT64 * NANO)
        form = DECIMAL if 0 < nano < NANO else BINARY
    else:
        exponent, form = _decimal_exponent(suffix)
        places = len(fraction) - exponent - 9
        nano = _rounded_up(digits, places) if places > 0 else digits * int(10**-places)
    return Quantity(-nano if sign == "-" else nano, form)


def _rounded_up(number: int, places: int) -> int:
    return -(-number // int(10**places))


def _decimal_exponent(suffix: str) -> tuple[int, str]:
    known = _DECIMAL_EXPONENTS.get(suffix)
    if known is not None:
        return known, DECIMAL
    if suffix[0] not in "eE":
        raise QuantityError(SUFFIX_WRONG)
    digits = suffix[1:]
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", digits):
        raise QuantityError(SUFFIX_WRONG)
    exponent = int(digits)
    if abs(exponent) > _MAX_EXPONENT:
        raise QuantityError(NUMERIC_WRONG)
    return exponent, EXPONENT


def parse(text: str | int | float) -> Quantity:
    """The quantity that a text, or a number as JSON allows it, stands for; raises QuantityError."""
    if isinstance(text, bool):
        raise QuantityError(FORMAT_WRONG)
    return _parse(text.strip() if isinstance(text, str) else str(text))


def is_valid(text: str | int | float) -> bool:
    """Whether `parse` accepts the text."""
    try:
        parse(text)
    except QuantityError:
        return False
    return True


def value(text: str | int | float) -> int:
    """Whole units (bytes, cores, pieces), rounded away from zero; raises QuantityError."""
    return parse(text).value


def milli(text: str | int | float) -> int:
    """Thousandths (millicores), rounded away from zero; raises QuantityError."""
    return parse(text).milli


def canonical(text: str | int | float) -> str:
    """The form in which the API shows a quantity: `1024Mi` is `1Gi`, `0.5` is `500m`; raises QuantityError."""
    return format(parse(text))


def canonical_milli(text: str | int | float) -> str:
    """The canonical form after rounding to thousandths, which is what defaulting does to resource lists."""
    amount = parse(text)
    return format(Quantity(amount.milli * 1_000_000, amount.form))


def compare(a: str | int | float, b: str | int | float) -> int:
    """-1, 0 or 1 as the first is less than, equal to or more than the second; raises QuantityError."""
    x, y = parse(a).nano, parse(b).nano
    return (x > y) - (x < y)


def add(a: str | int | float, b: str | int | float) -> str:
    """The sum in canonical form, with the first one's suffixes unless it is zero; raises QuantityError."""
    return format(parse(a) + parse(b))


def subtract(a: str | int | float, b: str | int | float) -> str:
    """The difference in canonical form, with the first one's suffixes unless it is zero; raises QuantityError."""
    return format(parse(a) - parse(b))


def of(units: int, form: str = DECIMAL) -> Quantity:
    """The quantity of so many whole units."""
    return Quantity(units * NANO, form)


def of_milli(thousandths: int, form: str = DECIMAL) -> Quantity:
    """The quantity of so many thousandths."""
    return Quantity(thousandths * 1_000_000, form)


def format(quantity: Quantity) -> str:
    """The canonical text: no fraction, no precision lost, the largest suffix of its family that allows that.

    Binary suffixes are used from 1024 on and for whole numbers only.
    """
    if not quantity.nano:
        return "0"
    form = quantity.form
    if form == BINARY and abs(quantity.nano) >= 1024 * NANO and quantity.nano % NANO == 0:
        return _format_binary(quantity.nano // NANO)
    mantissa, exponent = quantity.nano, -9
    largest = 18 if form != EXPONENT else _MAX_EXPONENT
    while mantissa % 1000 == 0 and exponent < largest:
        mantissa //= 1000
        exponent += 3
    if form == EXPONENT:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_SUFFIXES[exponent]}"


def _format_binary(units: int) -> str:
    step = 0
    while units % 1024 == 0 and step < len(_BINARY_SUFFIXES) - 1:
        units //= 1024
        step += 1
    return f"{units}{_BINARY_SUFFIXES[step]}"
