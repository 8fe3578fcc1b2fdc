"""The engine against answers of the reference implementation in C++ to expressions drawn at random.

`tests/data/cel-reference.json` has what cel-expr-python 0.1.3 answered: the first syntax error, or the value, or that
the evaluation is an error. Left out is what the Go implementation of Kubernetes types otherwise: lists of mixed types,
literals that are read when an expression is compiled, elements of what is only known when it runs. The library itself
is no dependency of development: it crashes the interpreter at its end.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from k3s.api.cel import CompileError, Environment, EvaluationError, compile, to_json
from k3s.api.cel.types import DYN

REFERENCE = json.loads((Path(__file__).parents[3] / "data" / "cel-reference.json").read_text())
ENVIRONMENT = Environment({"x": DYN}, libraries=("standard",))
X = {"a": 1, "b": {"c": "t"}, "l": [1, 2, 3], "n": None, "s": "text", "f": 1.5, "t": True}


def test_the_first_syntax_error_is_the_references() -> None:
    """Place and words of every recorded complaint."""
    wrong = {}
    for expression, said in REFERENCE["syntax"].items():
        words, mark, place = said.partition("#")
        wanted = words + (REFERENCE["sets"][int(place)] if mark else "")
        with pytest.raises(CompileError) as complaint:
            compile(expression, ENVIRONMENT)
        found = str(complaint.value).split("\n")[0].partition("<input>:")[2]
        if found != wanted:
            wrong[expression] = (found, wanted)
    assert not wrong


def _comparable(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list):
        return [_comparable(element) for element in value]
    return {str(key): _comparable(v) for key, v in value.items()} if isinstance(value, dict) else value


def test_values_are_the_references() -> None:
    """The value of every recorded expression, or that there is none."""
    wrong = {}
    for expression, wanted in REFERENCE["values"].items():
        try:
            value = _comparable(to_json(compile(expression, ENVIRONMENT).evaluate({"x": X})))
        except EvaluationError:
            value = "error"
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            wrong[expression] = (value, wanted)
    assert not wrong
