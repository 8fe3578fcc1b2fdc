"""Patterns from clients."""

from __future__ import annotations

import time

import pytest

from k3s.api import pattern, schema


def test_no_pattern_keeps_the_server_busy() -> None:
    """What makes a backtracking engine try every way to split a text costs no more than reading it."""
    raw = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}
    began = time.process_time()
    causes = schema.validate(_widget(raw), {"name": "a" * 5000 + "!"})
    assert time.process_time() - began < 0.5
    assert [cause["field"] for cause in causes] == ["name"]


def _widget(raw: dict[str, object]) -> schema.Kind:
    from k3s.api.kinds import make

    return make("example.com", "v1", "Widget", "widgets", namespaced=True, custom=True, schema=schema.custom(raw))


@pytest.mark.parametrize("text", ["(?=x)", r"(a)\1", "(", "a{2000}", "[z-a]"])
def test_what_is_no_pattern_says_why(text: str) -> None:
    """Look-around, back-references and large repetitions are none of the API's language."""
    with pytest.raises(pattern.BadPattern, match=r"\w"):
        pattern.compiled(text)


def test_the_languages_classes_are_known() -> None:
    """Classes and flags of RE2 that Python's engine does not have or reads differently."""
    assert pattern.found(r"^\pL+$", "größe")
    assert pattern.found(r"^[[:alpha:]]+\z", "abc")
    assert not pattern.found(r"^\d+$", "\u0663")
