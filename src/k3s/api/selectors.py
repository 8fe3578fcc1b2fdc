"""Label and field selectors: from text or from objects, and the question whether something matches.

    env in (prod,test),tier!=cache,!legacy      the text of a query parameter
    {matchLabels: …, matchExpressions: […]}     the selector inside objects
    metadata.name=web,status.phase!=Running     field selectors

A missing selector object selects nothing, an empty one everything. Grammar and wording: the labels and fields
packages of the API machinery.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k3s.api import names
from k3s.api.fieldselectors import (
    FieldSelector,
    FieldTerm,
    SelectorError,
    check_fields,
    field_value,
    parse_fields,
    selectable_fields,
)

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "FieldSelector",
    "FieldTerm",
    "LabelSelector",
    "Requirement",
    "SelectorError",
    "check_fields",
    "checked",
    "field_value",
    "from_labels",
    "from_object",
    "parse_fields",
    "parse_labels",
    "selectable_fields",
]

IN, NOT_IN, EXISTS, NOT_EXISTS = "in", "notin", "exists", "!"
EQUALS, DOUBLE_EQUALS, NOT_EQUALS, GREATER, LESS = "=", "==", "!=", "gt", "lt"
_OBJECT_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfil the condition; a missing label fulfils the negative ones."""
        operator = self.operator
        found = labels.get(self.key)
        if operator in (EQUALS, DOUBLE_EQUALS):
            return found == self.values[0]
        if operator == IN:
            return found is not None and found in self.values
        if operator in (NOT_EQUALS, NOT_IN):
            return found is None or found not in self.values
        if operator == EXISTS:
            return found is not None
        if operator == NOT_EXISTS:
            return found is None
        if found is None or not _INTEGER.match(found):
            return False
        return int(found) > int(self.values[0]) if operator == GREATER else int(found) < int(self.values[0])

    def __str__(self) -> str:
        operator, values = self.operator, ",".join(sorted(self.values))
        if operator == EXISTS:
            return self.key
        if operator == NOT_EXISTS:
            return "!" + self.key
        if operator in (IN, NOT_IN):
            return f"{self.key} {operator} ({values})"
        sign = {GREATER: ">", LESS: "<"}.get(operator, operator)
        return f"{self.key}{sign}{values}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; without any, everything matches, unless it is the selector of nothing."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether labels are selected; None is like no labels."""
        if self.nothing:
            return False
        given = labels or {}
        return all(requirement.matches(given) for requirement in self.requirements)

    @property
    def is_everything(self) -> bool:
        """True when nothing is asked of the labels."""
        return not self.nothing and not self.requirements

    def required(self) -> dict[str, str]:
        """The labels that must have exactly one value, for looking candidates up in an index."""
        return {
            r.key: r.values[0]
            for r in self.requirements
            if r.operator in (EQUALS, DOUBLE_EQUALS, IN) and len(r.values) == 1
        }

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)

_SPECIAL = "=!(),><"
_SIGNS = ("==", "!=", "=", "!", "(", ")", ",", ">", "<")
_VALUE_OPERATORS = {
    "in": IN,
    "notin": NOT_IN,
    "=": EQUALS,
    "==": DOUBLE_EQUALS,
    "!=": NOT_EQUALS,
    ">": GREATER,
    "<": LESS,
}
_OPERATORS_TEXT = "in, notin, =, ==, !=, gt, lt"
_END = ""


def _tokens(text: str) -> list[tuple[str, bool]]:
    """Words and signs, each with whether it is a sign or a keyword; a run of sign characters is one lexeme as in Go."""
    result: list[tuple[str, bool]] = []
    i = 0
    while i < len(text):
        c = text[i]
        if c in " \t\r\n":
            i += 1
        elif c in _SPECIAL:
            sign = next(s for s in _SIGNS if text.startswith(s, i))
            result.append((sign, True))
            i += len(sign)
        else:
            start = i
            while i < len(text) and text[i] not in _SPECIAL and text[i] not in " \t\r\n":
                i += 1
            word = text[start:i]
            result.append((word, word in (IN, NOT_IN)))
    return result


class _Parser:
    """A reader of the label selector grammar over a list of tokens."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0

    def peek(self) -> tuple[str, bool]:
        return self.tokens[self.at] if self.at < len(self.tokens) else (_END, True)

    def take(self) -> tuple[str, bool]:
        token = self.peek()
        self.at += 1
        return token

    def peek_value(self) -> tuple[str, bool]:
        """Like peek, but `in` and `notin` are plain words where a value or key stands."""
        word, special = self.peek()
        return word, special and word not in (IN, NOT_IN)

    def done(self) -> bool:
        return self.at >= len(self.tokens)

    def parse(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while not self.done():
            word, special = self.peek_value()
            if special and word != "!":
                raise SelectorError(f"found '{word}', expected: !, identifier, or 'end of string'")
            requirements.append(self.requirement())
            word, special = self.take()
            if word == _END and special:
                break
            if not (word == "," and special):
                raise SelectorError(f"found '{word}', expected: ',' or 'end of string'")
            after, special = self.peek_value()
            if special and after != "!":
                raise SelectorError(f"found '{after}', expected: identifier after ','")
        return requirements

    def requirement(self) -> Requirement:
        key, operator = self.key()
        if operator:
            return self.checked(key, operator, ())
        word, special = self.take()
        if not special or word not in _VALUE_OPERATORS:
            raise _unparsed(f"found '{word}', expected: {_OPERATORS_TEXT}")
        operator = _VALUE_OPERATORS[word]
        values = self.value_list() if operator in (IN, NOT_IN) else (self.value(),)
        return self.checked(key, operator, values)

    @staticmethod
    def checked(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
        try:
            return checked(key, operator, values)
        except SelectorError as error:
            raise _unparsed(error.message) from error

    def key(self) -> tuple[str, str]:
        operator = ""
        if self.peek() == ("!", True):
            self.take()
            operator = NOT_EXISTS
        word, special = self.peek_value()
        self.take()
        if special:
            raise _unparsed(f"found '{word}', expected: identifier")
        problems = names.label_key(word)
        if problems:
            raise _unparsed(_invalid(word, "; ".join(problems)))
        following = self.peek()
        if following in ((_END, True), (",", True)) and not operator:
            operator = EXISTS
        return word, operator

    def value(self) -> str:
        word, special = self.peek_value()
        if special and word in (_END, ","):
            return ""
        self.take()
        if special:
            raise _unparsed(f"found '{word}', expected: identifier")
        return word

    def value_list(self) -> tuple[str, ...]:
        word, special = self.take()
        if not (special and word == "("):
            raise _unparsed(f"found '{word}' expected: '('")
        if self.peek() == (")", True):
            self.take()
            return ()
        values: list[str] = []
        open_slot = True  # a value may stand here; two commas in a row mean an empty one
        while True:
            word, special = self.peek_value()
            self.take()
            if not special:
                if not open_slot:
                    raise _unparsed(f"found '{word}', expected: ',' or ')'")
                values.append(word)
                open_slot = False
            elif word == ",":
                if open_slot:
                    values.append("")
                open_slot = True
            elif word == ")":
                if open_slot:
                    values.append("")
                return tuple(sorted(set(values)))
            else:
                raise _unparsed(f"found '{word}', expected: ',', or identifier")


def _unparsed(why: str) -> SelectorError:
    return SelectorError("unable to parse requirement: " + why)


def _invalid(found: str, why: str, field: str = "<nil>") -> str:
    return f"{field}: Invalid value: {_quoted(found)}: {why}"


def _quoted(text: Any) -> str:
    return json.dumps(text, ensure_ascii=False)


def _value_problem(key: str, operator: str, values: tuple[str, ...]) -> str:
    if operator in (IN, NOT_IN) and not values:
        return "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
    if operator in (GREATER, LESS) and not _INTEGER.match(values[0]):
        return _invalid(values[0], "for 'Gt', 'Lt' operators, the value must be an integer", "values[0]")
    for i, value in enumerate(values):
        problems = names.label_value(value)
        if problems:
            # The map from key to value is quoted by the API as one path element.
            return _invalid(value, "; ".join(problems), f"values[{i}][{key}]")
    return ""


def checked(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
    """A requirement whose key and values have the right form; raises SelectorError."""
    problems = names.label_key(key)
    if problems:
        raise SelectorError(_invalid(key, "; ".join(problems), "key"))
    problem = _value_problem(key, operator, values)
    if problem:
        raise SelectorError(problem)
    return Requirement(key, operator, values)


@functools.lru_cache(maxsize=1024)
def parse_labels(text: str) -> LabelSelector:
    """The selector of a `labelSelector` parameter; raises SelectorError (a BadRequest)."""
    requirements = _Parser(text).parse()
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """The selector that wants exactly these values, such as the `selector` map of a Service; None selects nothing."""
    if labels is None:
        return NOTHING
    return LabelSelector(tuple(Requirement(key, EQUALS, (value,)) for key, value in sorted(labels.items())))


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """The selector of a LabelSelector object; None selects nothing, an empty one everything; raises SelectorError."""
    if selector is None:
        return NOTHING
    requirements = [
        checked(key, EQUALS, (value,)) for key, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    for expression in selector.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise SelectorError(f"{_quoted(expression.get('operator', ''))} is not a valid label selector operator")
        values = tuple(expression.get("values") or ())
        if operator in (EXISTS, NOT_EXISTS) and values:
            why = "values set must be empty for exists and does not exist"
            raise SelectorError(f"values: Invalid value: {_quoted(list(values))}: {why}")
        requirements.append(checked(expression.get("key", ""), operator, values))
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))
