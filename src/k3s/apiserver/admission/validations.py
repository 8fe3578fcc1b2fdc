"""What validating policies say of a write. Imported with the engine, once there is a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from k3s.api.cel import Budget, CompileError, EvaluationError, Program, admission, compile
from k3s.api.cel.admission import Variables
from k3s.api.cel.types import BOOL
from k3s.api.errors import ApiError
from k3s.api.kinds import Kind
from k3s.api.object import Object, encode
from k3s.apiserver.admission import policies
from k3s.apiserver.admission.chain import refuse
from k3s.apiserver.admission.policies import Binding, Compiled, Misconfigured, Policies, Refusal
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.considered import considered

_CODES = {"Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413, "Unauthorized": 401}
_FAILURES = "validation.policy.admission.k8s.io/validation_failure"
_LONGEST_MESSAGE = 5 * 1024
_LONGEST_NOTE = 10 * 1024


class Denial(NamedTuple):
    """A validation that does not hold: its number, why, and the reason of the answer."""

    number: int
    message: str
    reason: str = "Invalid"


@dataclass(frozen=True, slots=True)
class Validator:
    """The compiled expressions of a policy."""

    conditions: list[tuple[str, Program]]
    variables: Variables
    rules: list[tuple[Object, Program, Program | None]]
    notes: list[tuple[str, str, Program]]

    @classmethod
    def of(cls, policy: Object) -> Validator:
        """Compiles a policy. Raises CompileError."""
        spec = policy.get("spec") or {}
        base = admission.environment(params=spec.get("paramKind") is not None)
        variables = admission.Variables(spec.get("variables") or (), base)
        for problem in variables.faults.values():
            raise CompileError(problem)
        where = variables.environment
        rules = []
        for rule in spec.get("validations") or ():
            message = rule.get("messageExpression")
            told = compile(message, where, admission.MESSAGES) if message else None
            rules.append((rule, compile(rule["expression"], where, (BOOL,)), told))
        notes = [
            (note["key"], note["valueExpression"], compile(note["valueExpression"], where, admission.ANNOTATIONS))
            for note in spec.get("auditAnnotations") or ()
        ]
        return cls(policies.conditions_of(spec), variables, rules, notes)


# One policy by one of its bindings, with what its expressions see and its parameters; or why it cannot be evaluated.
_Step = tuple[
    Compiled[Validator],
    "Binding | None",
    Mapping[str, Any],
    "Sequence[Object | None]",
    "ApiError | Misconfigured | None",
]


async def evaluate(
    known: Policies[Validator], found: Sequence[tuple[Compiled[Validator], Kind]], request: AdmissionRequest
) -> None:
    """Evaluates the policies that are about a write. Raises Forbidden for the first that denies it."""
    steps = await _steps(known, found, request)
    outcome = await considered(lambda: _judged(steps))
    outcome.settle(request)


async def _steps(
    known: Policies[Validator], found: Sequence[tuple[Compiled[Validator], Kind]], request: AdmissionRequest
) -> list[_Step]:
    """What has to be evaluated, looked up beforehand: the evaluation itself may happen on another thread."""
    steps: list[_Step] = []
    values: dict[Kind, dict[str, Any]] = {}
    for policy, kind in found:
        try:
            bound = known.bindings_of(policy, kind, request)
            if bound and kind not in values:
                values[kind] = await known.values(request, kind, request.obj)
        except ApiError as error:
            steps.append((policy, None, {}, (), error))
            continue
        for binding in bound:
            try:
                params = known.params(policy, binding, request)
                policy.program  # noqa: B018 - compiled here, where its error is a binding's
                steps.append((policy, binding, values[kind], params, None))
            except Misconfigured as error:
                steps.append((policy, binding, {}, (), error))
    return steps


def _judged(steps: Sequence[_Step]) -> _Outcome:
    outcome = _Outcome()
    for policy, binding, values, params, problem in steps:
        if problem is not None:
            outcome.misconfigured(policy, binding, problem)
        elif binding is not None:
            _judge(policy, binding, values, params, outcome)
    return outcome


def _judge(
    policy: Compiled[Validator],
    binding: Binding,
    values: Mapping[str, Any],
    params: Sequence[Object | None],
    outcome: _Outcome,
) -> None:
    program = policy.program
    for param in params:
        seen = values if param is None else {**values, "params": param}
        budget = Budget()
        bindings = program.variables.bind(seen, budget)
        try:
            if program.conditions and not policies.passes(program.conditions, bindings):
                continue
            found = denials(program, bindings, budget, fails=policy.fails)
            notes = _notes(program, seen) if program.notes else []
        except Refusal as refusal:
            if policy.fails:
                outcome.add(policy, binding, Denial(0, str(refusal)))
            continue
        for denial in found:
            outcome.add(policy, binding, denial)
        outcome.annotate(policy, binding, notes)


def denials(program: Validator, bindings: Mapping[str, Any], budget: Budget, *, fails: bool) -> list[Denial]:
    """The validations that do not hold. Raises Refusal when the budget does not suffice."""
    found: list[Denial] = []
    untold: list[tuple[int, Object, Program, Program | None]] = []
    for number, (rule, expression, told) in enumerate(program.rules):
        try:
            holds = expression.evaluate(bindings, budget) is True
        except EvaluationError as error:
            if fails:
                found.append(Denial(number, f"expression '{expression.source}' resulted in error: {error}"))
            holds = True
        if budget.left < 0:
            raise Refusal(policies.OUT_OF_BUDGET)
        if not holds:
            untold.append((number, rule, expression, told))
    for number, rule, expression, told in untold:
        message = _told(told, bindings, budget)
        if budget.left < 0:
            found += [Denial(number, f"failed messageExpression: {policies.OUT_OF_BUDGET}")] if fails else []
            continue
        message = message or str(rule.get("message") or "").strip()
        message = message or f"failed expression: {expression.source.strip()}"
        found.append(Denial(number, message, rule.get("reason") or "Invalid"))
    return sorted(found, key=lambda denial: denial.number) if len(found) > 1 else found


def _told(program: Program | None, bindings: Mapping[str, Any], budget: Budget) -> str:
    """What a message expression says; empty for what is no line of text."""
    if program is None:
        return ""
    try:
        value = program.evaluate(bindings, budget)
    except EvaluationError:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    return "" if len(text.encode()) > _LONGEST_MESSAGE or "\n" in text else text


def _notes(program: Validator, values: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """What a policy's audit annotations say: key, value, and the error of one that has none.

    They have a budget of their own. Raises Refusal when that does not suffice."""
    budget, found = Budget(), list[tuple[str, Any, str]]()
    bindings = program.variables.bind(values, budget)
    for key, source, expression in program.notes:
        try:
            found.append((key, expression.evaluate(bindings, budget), ""))
        except EvaluationError as error:
            found.append((key, None, f"expression '{source}' resulted in error: {error}"))
        if budget.left < 0:
            raise Refusal(policies.OUT_OF_BUDGET)
    return found


class _Outcome:
    """What all policies together say of one write."""

    def __init__(self) -> None:
        self._denied: list[tuple[str, str]] = []
        self._warnings: list[str] = []
        self._audit: dict[str, list[str]] = {}
        self._failures: list[Object] = []

    def misconfigured(self, policy: Compiled[Any], binding: Binding | None, error: ApiError | Misconfigured) -> None:
        """A policy that cannot be evaluated."""
        if policy.fails:
            text = policies.text_of(error, binding=binding is not None)
            self._deny(policy, binding, Denial(0, text))

    def _deny(self, policy: Compiled[Any], binding: Binding | None, denial: Denial) -> None:
        by = f" with binding '{binding.name}'" if binding else ""
        text = f"ValidatingAdmissionPolicy '{policy.name}'{by} denied request: {denial.message}"
        self._denied.append((text, denial.reason))

    def add(self, policy: Compiled[Any], binding: Binding, denial: Denial) -> None:
        """A validation that does not hold: what the binding says about it is done."""
        actions = binding.spec.get("validationActions") or ["Deny"]
        if "Deny" in actions:
            self._deny(policy, binding, denial)
        if "Warn" in actions:
            by = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
            self._warnings.append(f"Validation failed for {by}: {denial.message}")
        if "Audit" in actions:
            failure = {"message": denial.message, "policy": policy.name, "binding": binding.name}
            self._failures.append({**failure, "expressionIndex": denial.number, "validationActions": list(actions)})

    def annotate(self, policy: Compiled[Any], binding: Binding, notes: Sequence[tuple[str, Any, str]]) -> None:
        """Notes the values of a policy's audit annotations, each value of a key once."""
        for key, value, problem in notes:
            if problem and policy.fails:
                self._deny(policy, binding, Denial(0, problem))
            if isinstance(value, str) and (text := value.strip()):
                known = self._audit.setdefault(f"{policy.name}/{key}", [])
                text = text.encode()[:_LONGEST_NOTE].decode(errors="ignore")
                if text not in known:
                    known.append(text)

    def settle(self, request: AdmissionRequest) -> None:
        """Tells the request's client and the audit log, and raises the first denial, if any."""
        request.warnings.extend(self._warnings)
        request.audit.update({key: ", ".join(texts) for key, texts in self._audit.items()})
        if self._failures:
            request.audit[_FAILURES] = encode(self._failures).decode()
        if not self._denied:
            return
        text, reason = self._denied[0]
        error = refuse(request, text)
        error.reason, error.code = reason, _CODES.get(reason, 422)
        error.details = {**(error.details or {}), "causes": [{"message": text}]}
        raise error
