"""What quantities mean and how they are printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import quantity

CANONICAL = {
    "1": "1",
    "0": "0",
    "+1": "1",
    "-2.5": "-2500m",
    "0.5": "500m",
    ".5": "500m",
    "5.": "5",
    "1000m": "1",
    "100m": "100m",
    "1024Mi": "1Gi",
    "1.5Gi": "1536Mi",
    "0.9Gi": "966367641600m",
    "0.5Ki": "512",
    "1023": "1023",
    "1000": "1k",
    "12345": "12345",
    "1e3": "1e3",
    "1E3": "1e3",
    "1.5e3": "1500",
    "1E": "1E",
    "0.1n": "1n",
    "10Ei": "9223372036854775807",
    "0Mi": "0",
}


@pytest.mark.parametrize(("text", "shown"), CANONICAL.items())
def test_canonical(text: str, shown: str) -> None:
    """Each text is shown in the form that the API gives it."""
    assert quantity.canonical(text) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", quantity.FORMAT_WRONG),
        ("a", quantity.FORMAT_WRONG),
        ("1x", quantity.FORMAT_WRONG),
        ("1.1.1", quantity.FORMAT_WRONG),
        ("1 Gi", quantity.FORMAT_WRONG),
        ("1e", quantity.SUFFIX_WRONG),
        ("1mm", quantity.SUFFIX_WRONG),
        ("1Mi2", quantity.SUFFIX_WRONG),
        ("1e999999999", quantity.NUMERIC_WRONG),
        ("1" * 5000, quantity.NUMERIC_WRONG),
    ],
)
def test_wrong_texts(text: str, why: str) -> None:
    """A text that is no quantity is refused in the API's words, at once however large it pretends to be."""
    with pytest.raises(quantity.QuantityError) as caught:
        quantity.parse(text)
    assert str(caught.value) == why
    assert not quantity.is_valid(text)


def test_rounding() -> None:
    """Whole and milli units round away from zero, so that nobody gets less than asked for."""
    assert (quantity.value("1500m"), quantity.value("-1500m"), quantity.value("1.5Gi")) == (2, -2, 1610612736)
    assert (quantity.milli("100u"), quantity.milli("0.25"), quantity.milli(2)) == (1, 250, 2000)
    assert quantity.canonical_milli("100u") == "1m"


def test_arithmetic_keeps_the_first_family() -> None:
    """A sum is printed with the suffixes of its first part, unless that is zero."""
    assert quantity.add("1Gi", "1Gi") == "2Gi"
    assert quantity.add("0", "1Gi") == "1Gi"
    assert quantity.add("500m", "500m") == "1"
    assert quantity.subtract("1Gi", "512Mi") == "512Mi"
    assert quantity.compare("1Gi", "1G") == 1
    assert quantity.compare("1000m", "1") == 0
    assert sorted([quantity.parse("1Gi"), quantity.parse("2"), quantity.parse("1G")])[0] == quantity.of(2)


numbers = st.integers(-(10**17), 10**17)
suffixes = st.sampled_from(["", "n", "u", "m", "k", "M", "Ki", "Mi", "e3", "e-3"])


@given(numbers, st.integers(0, 9999), suffixes)
def test_canonical_is_stable_and_keeps_the_value(whole: int, fraction: int, suffix: str) -> None:
    """The canonical text means the same (up to the cap of binary forms) and is its own canonical text."""
    parsed = quantity.parse(f"{whole}.{fraction:04d}{suffix}")
    shown = quantity.format(parsed)
    assert quantity.parse(shown).nano == parsed.nano
    assert quantity.canonical(shown) == shown


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than by QuantityError."""
    assert quantity.is_valid(text) in (True, False)


@given(numbers, numbers)
def test_sum_and_difference_are_exact(a: int, b: int) -> None:
    """Adding and taking away again gives the same amount."""
    x, y = quantity.parse(f"{a}m"), quantity.parse(f"{b}n")
    assert (x + y) - y == x
    assert (x < y) == (a * 10**6 < b)
