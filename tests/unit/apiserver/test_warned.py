"""How many warnings an answer carries."""

from __future__ import annotations

from k3s.apiserver.warned import fitting, warn
from k3s.base.message import Response


def test_warnings_are_headers_each_once() -> None:
    """With what a header cannot carry escaped."""
    answer = Response(200, b"", b"")
    warn(answer, ['unknown field "a"', "b\nc", 'unknown field "a"'])
    assert answer.headers == (("Warning", '299 - "unknown field \\"a\\""'), ("Warning", '299 - "b c"'))


def test_many_warnings_are_cut_together() -> None:
    """Up to 4096 characters all are whole; beyond, each has 256 at the most, and the rest is left out."""
    long = ["x" * 1000, "y" * 1000, "z" * 2000]
    assert fitting(long) == long
    assert fitting([*long, "w" * 97]) == ["x" * 256, "y" * 256, "z" * 256, "w" * 97]
    many = [f"{number:04}" for number in range(2000)]
    assert fitting(many) == many[:1025]
    assert len(fitting([*(f"{number:04}" * 100 for number in range(50))])) == 16
