"""YAML as Go's package reads it, and documents that would not end."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api.yamltext import BadYaml, load, repeated, sentences


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", "y"),
        ("N", "N"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("'yes'", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("12:30:45", "12:30:45"),
        ("1_000", 1000),
        ("0644", 420),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("08", 8),
        ("1e3", 1000),
        ("1.", 1),
        ("1.5e-3", 0.0015),
        ("+12", 12),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709551616),
        ("1.2.3", "1.2.3"),
        ("!!str 12", "12"),
        ("{1: a, true: b, null: c, 1.5: d}", {"1": "a", "true": "b", "null": "c", "1.5": "d"}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: 1\n---\nb: 2", {"a": 1}),
    ],
)
def test_words_have_the_types_that_go_gives_them(text: str, value: Any) -> None:
    """Numbers, booleans, nothing and everything else; keys are text."""
    found = load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: b: c", "mapping values are not allowed"),
        ("[1, 2", "did not find expected"),
        ("? [a]\n: b", "invalid map key"),
        ("&a [*a]", "contains itself"),
        ("!!int [1]", "expected a scalar"),
        ("!!map x", "cannot decode"),
        ("[" * 500, "."),
        ("- " * 100_000, "exceeded max depth"),
        (b"a: \xff\xfe", "UTF-8"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    """Every failure is one kind of error with a reason."""
    with pytest.raises(BadYaml, match=why):
        load(text)


def test_a_document_does_not_grow_by_its_own_parts() -> None:
    """Nine lists of nine references each would be 387 million words; a few references are fine."""
    lines = ['a: &a ["x","x","x","x","x","x","x","x","x"]']
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join(['*' + before] * 9)}]")
    with pytest.raises(BadYaml, match="excessive aliasing"):
        load("\n".join(lines))
    assert load("a: &a {x: 1}\nb: [*a, *a, *a]") == {"a": {"x": 1}, "b": [{"x": 1}] * 3}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\n", []),
        ("a: 1\na: 2\n", ['line 2: key "a" already set in map']),
        ('a: 1\n"a":\n  b: 1\n  b: 2\n', ['line 4: key "b" already set in map', 'line 3: key "a" already set in map']),
        (
            "- {x: 1, x: 2}\n- 1: a\n  1: b\n",
            ['line 1: key "x" already set in map', "line 3: key 1 already set in map"],
        ),
        ('1: a\n"1": b\n<<: {a: 1}\n<<: {a: 2}\n', []),
        ("a: &x {k: 1, k: 2}\nb: *x\n", ['line 1: key "k" already set in map']),
        ("a: [", []),
        ("", []),
    ],
)
def test_keys_that_are_there_twice(text: str, lines: list[str]) -> None:
    """Each is told with the line of its value, what is inside first; keys of different types are different."""
    said = repeated(text)
    assert said == ("yaml: unmarshal errors:\n" + "\n".join(f"  {line}" for line in lines) if lines else "")
    assert sentences(said) == (lines or [""])
