"""The rules of a custom kind (`x-kubernetes-validations`): compiled beside the schema, evaluated over objects.

    Validator(raw, root=True).check(obj, old) -> causes

Rules that name `oldSelf` run only where there is an old value of the same thing: properties and map entries of that
name, elements of lists with keys by their keys. What did not change is left in peace, except for those rules. Source:
the CustomResourceDefinition documentation on validation rules; order and wording as the API server's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k3s.api.cel import callcost, cost, fieldpath, types
from k3s.api.cel.environment import Environment
from k3s.api.cel.errors import CompileError, CostExceeded, EvaluationError
from k3s.api.cel.program import PER_OBJECT, Budget, Program, compile
from k3s.api.cel.schema import Declared, Raw, declared, with_meta
from k3s.api.cel.unstructured import converter
from k3s.api.cel.values import NONE, Optional
from k3s.api.object import encode
from k3s.api.schema import has_rules

Cause = dict[str, str]
_NO_OLD: Any = object()
_LONGEST_MESSAGE = 5 * 1024
_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"


class _Stop(Exception):
    """The budget is used up."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its programs, or why it has none."""

    raw: Mapping[str, Any]
    program: Program | None
    problem: str
    message: Program | None
    message_problem: str

    @property
    def uses_old(self) -> bool:
        """Whether the rule, or its message, compares with what was there."""
        programs = (self.program, self.message)
        return any(program is not None and "oldSelf" in program.names for program in programs)


def compiled(raw: Raw, self_type: Declared) -> list[Rule]:
    """The rules that stand at a schema, whose type is known."""
    found = []
    for rule in raw.get("x-kubernetes-validations") or ():
        old = types.optional_of(self_type.type) if rule.get("optionalOldSelf") else self_type.type
        found.append(_rule(rule, Environment({"self": self_type.type, "oldSelf": old})))
    return found


def _rule(rule: Mapping[str, Any], environment: Environment) -> Rule:
    program = message = None
    problem = message_problem = ""
    if rule.get("rule", "").strip():
        try:
            program = compile(rule["rule"], environment)
            if program.type != types.BOOL:
                program, problem = None, "cel expression must evaluate to a bool"
        except CompileError as error:
            problem = str(error)
    if not problem and rule.get("messageExpression", "").strip():
        try:
            message = compile(rule["messageExpression"], environment)
            if message.type != types.STRING:
                message, message_problem = None, "messageExpression must evaluate to a string"
        except CompileError as error:
            message_problem = f"messageExpression {error}"
    return Rule(rule, program, problem, message, message_problem)


class Validator:
    """The rules of a schema and of all that is inside it; `root` is a whole resource."""

    __slots__ = ("convert", "items", "more", "properties", "raw", "rules")

    def __init__(self, raw: Raw, *, root: bool = False) -> None:
        self.raw = raw
        self.rules: list[Rule] = []
        self.convert = None
        if raw.get("x-kubernetes-validations"):
            kind = declared(raw, "selfType", root=root)
            self.rules = compiled(raw, kind) if kind is not None else []
            self.convert = converter(with_meta(raw) if root else raw)
        self.items = _inner(raw.get("items"))
        self.more = _inner(raw.get("additionalProperties"))
        self.properties = {
            name: found
            for name, part in (raw.get("properties") or {}).items()
            if (found := _inner(part)) is not None and not (root and name == "metadata")
        }

    def check(self, obj: Any, old: Any = None) -> list[Cause]:
        """The causes why an object breaks the rules; `old` is what it was, None when it is new."""
        causes: list[Cause] = []
        budget = Budget(PER_OBJECT)
        with contextlib.suppress(_Stop):
            self.walk(obj, _NO_OLD if old is None else old, "", causes, budget, unchanged=False)
        return causes

    def walk(self, value: Any, old: Any, at: str, causes: list[Cause], budget: Budget, *, unchanged: bool) -> None:
        """One value and all inside it; raises _Stop when the budget is used up."""
        if value is None:
            return
        unchanged = unchanged or (old is not _NO_OLD and value == old)
        if self.rules:
            self.evaluate(value, old, at, causes, budget, unchanged=unchanged)
        for inner, part, before, place in self.inside(value, old, at):
            inner.walk(part, before, place, causes, budget, unchanged=unchanged)

    def inside(self, value: Any, old: Any, at: str) -> Iterator[tuple[Validator, Any, Any, str]]:
        """The parts that have rules, each with what it was."""
        if isinstance(value, list):
            if self.items is not None:
                known = self.by_key(old)
                for i, element in enumerate(value):
                    before = known.get(self.key(element), _NO_OLD) if known else _NO_OLD
                    yield self.items, element, before, f"{at}[{i}]"
        elif isinstance(value, dict):
            was = old if isinstance(old, dict) else {}
            if self.more is not None:
                for key, inner in value.items():
                    yield self.more, inner, was.get(key, _NO_OLD), f"{at}[{key}]"
            for key, inner in value.items():
                found = self.properties.get(key)
                if found is not None:
                    yield found, inner, was.get(key, _NO_OLD), f"{at}.{key}" if at else key

    def by_key(self, old: Any) -> dict[bytes, Any]:
        """The elements of before by their keys; none of a list without keys."""
        if not isinstance(old, list) or self.raw.get("x-kubernetes-list-type") != "map":
            return {}
        return {self.key(element): element for element in old}

    def key(self, element: Any) -> bytes:
        """What tells an element from the others."""
        names = self.raw.get("x-kubernetes-list-map-keys") or ()
        return encode([element.get(name) for name in names] if isinstance(element, dict) else element)

    def evaluate(self, value: Any, old: Any, at: str, causes: list[Cause], budget: Budget, *, unchanged: bool) -> None:
        """The rules that stand here."""
        known = old is not _NO_OLD and old is not None
        try:
            bindings = {"self": self.converted(value), "oldSelf": self.converted(old) if known else None}
        except EvaluationError as error:
            causes.append(self.broken(at, str(error)))
            return
        for rule in self.rules:
            if rule.problem:
                causes.append(self.broken(at, f"rule compile error: {rule.problem}"))
            optional = bool(rule.raw.get("optionalOldSelf"))
            if rule.program is None or (rule.uses_old and not known and not optional):
                continue
            names = bindings
            if optional:
                names = {**bindings, "oldSelf": Optional(bindings["oldSelf"]) if known else NONE}
            holds = self.holds(rule, rule.program, names, at, causes, budget)
            if not holds:
                cause = self.refusal(rule, value, names, at, causes, budget)
                if rule.uses_old or not unchanged:
                    causes.append(cause)

    def converted(self, value: Any) -> Any:
        return value if self.convert is None else self.convert(value)

    def broken(self, at: str, text: str) -> Cause:
        return _cause("FieldValueInvalid", at, f'Invalid value: "{self.raw.get("type", "")}": {text}')

    def holds(
        self, rule: Rule, program: Program, names: dict[str, Any], at: str, causes: list[Cause], budget: Budget
    ) -> bool:
        """Whether a rule holds; one that cannot be evaluated is told and taken as held."""
        said = _said(rule.raw)
        if budget.left <= 0:
            causes.append(self.broken(at, _OUT_OF_BUDGET))
            raise _Stop
        try:
            outcome = program.evaluate(names, budget)
        except CostExceeded as error:
            text = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {said}"
            causes.append(self.broken(at, text if budget.left >= 0 else _OUT_OF_BUDGET))
            raise _Stop from None
        except EvaluationError as error:
            text = f"{error} evaluating rule: {said}"
            if str(error).startswith("no such overload"):
                why = "call arguments did not match a supported operator, function or macro signature for rule"
                text = f"'{error}': {why}: {said}"
            causes.append(self.broken(at, text))
            outcome = True
        if budget.left < 0:
            causes.append(self.broken(at, _OUT_OF_BUDGET))
            raise _Stop
        return bool(outcome)

    def refusal(
        self, rule: Rule, value: Any, names: dict[str, Any], at: str, causes: list[Cause], budget: Budget
    ) -> Cause:
        """What is said of a value that breaks a rule."""
        place, raw = at, rule.raw
        if raw.get("fieldPath"):
            found = fieldpath.normalized(raw["fieldPath"], self.raw)
            place = f"{at}.{found}" if at else found
        detail = self.message(rule, names, place, causes, budget)
        reason = raw.get("reason") or "FieldValueInvalid"
        if reason == "FieldValueForbidden":
            return _cause(reason, place, f"Forbidden: {detail}")
        if reason == "FieldValueRequired":
            return _cause(reason, place, f"Required value: {detail}")
        shown = "" if isinstance(value, dict | list) else encode(value).decode()
        if reason == "FieldValueDuplicate":
            return _cause(reason, place, f"Duplicate value: {shown}" if shown else "Duplicate value")
        return _cause(
            "FieldValueInvalid", place, f"Invalid value: {shown}: {detail}" if shown else f"Invalid value: {detail}"
        )

    def message(self, rule: Rule, names: dict[str, Any], place: str, causes: list[Cause], budget: Budget) -> str:
        """The words of a rule: what its expression gives, or what stands in it."""
        default = _said(rule.raw) if rule.raw.get("message") else f"failed rule: {_said(rule.raw)}"
        if rule.message is None:
            return default
        source = rule.raw["messageExpression"]
        try:
            text = rule.message.evaluate(names, budget)
        except CostExceeded:
            why = "no further validation rules will be run due to call cost exceeds limit for messageExpression"
            causes.append(self.broken(place, f'{why}: "{source}"'))
            raise _Stop from None
        except EvaluationError:
            return default
        if budget.left < 0:
            why = "messageExpression evaluation failed due to running out of cost budget"
            causes.append(self.broken(place, f"{why}, no further validation rules will be run"))
            raise _Stop
        text = text.strip()
        usable = text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE
        return text if usable else default


def _inner(part: Any) -> Validator | None:
    if not isinstance(part, Mapping) or not has_rules(part):
        return None
    return Validator(part, root=bool(part.get("x-kubernetes-embedded-resource")))


def _said(rule: Mapping[str, Any]) -> str:
    return str(rule.get("message") or rule.get("rule", "")).strip()


def _cause(reason: str, at: str, message: str) -> Cause:
    return {"reason": reason, "message": message, "field": at or "<nil>"}


def worst_cost(program: Program, self_type: Declared) -> int:
    """The most that an evaluation can cost with values that the schema allows."""

    def sizes(path: tuple[str, ...]) -> cost.Range | None:
        node: Declared | None = self_type
        for step in path[1:]:
            if node is None:
                return None
            if step in ("@items", "@values"):
                node = node.element
            elif step == "@keys":
                node = node.key
            else:
                node = node.fields.get(step)
        return None if node is None else cost.Range(0, node.most)

    return cost.estimate(program.tree, sizes, callcost.call).high
