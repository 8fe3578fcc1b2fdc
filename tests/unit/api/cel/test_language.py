"""The language, case by case: `tests/data/cel.txt` says what each expression gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from k3s.api.cel import CompileError, Environment, EvaluationError, compile, to_json
from k3s.api.cel.types import DYN, INT, STRING, list_of, object_type
from k3s.api.cel.values import Uint

TABLE = Path(__file__).parents[3] / "data" / "cel.txt"
SELF = object_type("selfType", {"a": INT, "name": STRING, "tags": list_of(STRING)})
ENVIRONMENT = Environment({"x": DYN, "i": INT, "s": STRING, "self": SELF})
BINDINGS = {
    "x": {"a": 1, "b": {"c": "text"}, "l": [1, 2, 3], "n": None},
    "i": 7,
    "s": "text",
    "self": {"a": 1, "name": "n", "tags": ["t-1"]},
}
CASES = [
    re.split(r" (=>|!>|\?>) (?!.* (?:=>|!>|\?>) )", line)
    for line in TABLE.read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("expression", "how", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_an_expression_gives_its_value_or_complaint(expression: str, how: str, wanted: str) -> None:
    """Each line of the table holds."""
    if how == "?>":
        with pytest.raises(CompileError) as complaint:
            compile(expression, ENVIRONMENT)
        assert wanted in str(complaint.value)
        return
    program = compile(expression, ENVIRONMENT)
    if how == "!>":
        with pytest.raises(EvaluationError) as fault:
            program.evaluate(BINDINGS)
        assert str(fault.value) == wanted
        return
    value = program.evaluate(BINDINGS)
    if wanted[-1] == "u" and wanted[:-1].isdigit():
        assert value.__class__ is Uint
        wanted = wanted[:-1]
    assert json.dumps(to_json(value), sort_keys=True) == json.dumps(json.loads(wanted), sort_keys=True)


def test_a_complaint_shows_line_and_caret() -> None:
    """As upstream prints it."""
    with pytest.raises(CompileError) as complaint:
        compile("self.a > 1 &&\nself.b", ENVIRONMENT)
    assert str(complaint.value) == ("compilation failed: ERROR: <input>:2:5: undefined field 'b'\n | self.b\n | ....^")
