"""MutatingAdmissionPolicy: expressions change what is written, by an apply configuration or a JSON patch."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from k3s.api import schema
from k3s.api.allowance import Allowance
from k3s.api.errors import ApiError
from k3s.api.fieldset import SchemaNode, child_of, is_atomic, merge
from k3s.api.kinds import Kind, Registry, builtin
from k3s.api.object import Object
from k3s.api.patch import json_patch
from k3s.apiserver.admission import policies
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admission.policies import Binding, Compiled, Misconfigured, Refusal
from k3s.apiserver.admission.rounds import Rounds
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes
from k3s.apiserver.considered import considered
from k3s.apiserver.conversion import Conversions

if TYPE_CHECKING:
    from k3s.api.cel import Program
    from k3s.api.cel.admission import Variables
    from k3s.apiserver.cache import Reader

POLICY = builtin("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy")
BINDING = builtin("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding")
_ATOMIC = "may not mutate atomic arrays, maps or structs"


@dataclass(frozen=True, slots=True)
class Mutator:
    """The compiled expressions of a policy."""

    conditions: list[tuple[str, Program]]
    variables: Variables
    mutations: list[tuple[str, Program]]

    @classmethod
    def of(cls, policy: Object) -> Mutator:
        """Compiles a policy. Raises CompileError."""
        from k3s.api.cel import CompileError, admission

        spec = policy.get("spec") or {}
        base = admission.environment(params=spec.get("paramKind") is not None)
        variables = admission.Variables(spec.get("variables") or (), base)
        for problem in variables.faults.values():
            raise CompileError(problem)
        made = []
        for rule in spec.get("mutations") or ():
            own = rule.get("applyConfiguration") or rule.get("jsonPatch") or {}
            made.append(
                (rule["patchType"], admission.mutation(own.get("expression", ""), rule["patchType"], variables))
            )
        return cls(policies.conditions_of(spec), variables, made)


class MutatingPolicy(Plugin):
    """Applies every policy that is bound to a write, in order of name; each sees what the ones before it made."""

    name = "MutatingAdmissionPolicy"
    resources = frozenset({"*"})
    admits = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader, registry: Registry, conversions: Conversions, authorizer: Authorizes) -> None:
        self._conversions = conversions
        self._policies = policies.Policies((POLICY, BINDING), reader, registry, conversions, authorizer, Mutator.of)

    def admit(self, request: AdmissionRequest) -> Object | Awaitable[Object]:
        assert request.obj is not None
        found = self._policies.about(request)
        return self._admit(found, request, request.obj) if found else request.obj

    async def _admit(
        self, found: Sequence[tuple[Compiled[Mutator], Kind]], request: AdmissionRequest, obj: Object
    ) -> Object:
        rounds, allowance = Rounds.of(request, self.name), Allowance()
        for policy, kind in found:
            if not rounds.concerns(policy.name):
                continue
            new = await self._evaluated(policy, kind, request, obj, allowance)
            changed = new != obj
            if changed:
                obj, request = new, request.with_object(new)
            rounds.answered(policy.name, changed=changed, again=policy.spec.get("reinvocationPolicy") == "IfNeeded")
        rounds.end(obj)
        return obj

    async def _evaluated(
        self, policy: Compiled[Mutator], kind: Kind, request: AdmissionRequest, obj: Object, allowance: Allowance
    ) -> Object:
        """The object after one policy with all its bindings. Raises Forbidden."""
        try:
            bound = self._policies.bindings_of(policy, kind, request)
        except ApiError as error:
            return self._failed(policy, None, request, obj, policies.text_of(error, binding=False))
        for binding in bound:
            try:
                params = self._policies.params(policy, binding, request)
                for param in params:
                    obj = await self._mutated(policy.program, kind, request, obj, param, allowance)
            except Misconfigured as error:
                obj = self._failed(policy, binding, request, obj, policies.text_of(error, binding=True))
            except ApiError as error:
                obj = self._failed(policy, binding, request, obj, error.message)
            except Refusal as error:
                obj = self._failed(policy, binding, request, obj, str(error))
        return obj

    @staticmethod
    def _failed(
        policy: Compiled[Mutator], binding: Binding | None, request: AdmissionRequest, obj: Object, why: str
    ) -> Object:
        """The object as it was, when failures are to be ignored. Raises Forbidden."""
        if not policy.fails:
            return obj
        by = f" with binding '{binding.name}'" if binding else ""
        text = f"policy '{policy.name}'{by} denied request: {why}"
        error = refuse(request, text)
        error.message, error.reason = text, "Invalid"
        error.details = {**(error.details or {}), "causes": [{"message": text}]}
        raise error

    async def _mutated(
        self,
        program: Mutator,
        kind: Kind,
        request: AdmissionRequest,
        obj: Object,
        param: Object | None,
        allowance: Allowance,
    ) -> Object:
        """The object after the mutations of a policy. Raises Refusal, ApiError when it cannot be converted."""
        for number, (patch_type, _) in enumerate(program.mutations):
            values = {**await self._policies.values(request, kind, obj), "params": param}
            decided = await considered(partial(_decided, program, number, values), allowance)
            if decided is None:
                return obj
            seen = await self._policies.seen(obj, kind)
            assert seen is not None
            applies = patch_type == "ApplyConfiguration"
            obj = (
                _applied(self._policies.kind_of(seen, kind), seen, decided[0])
                if applies
                else _patched(seen, decided[0])
            )
            if obj.get("kind") == kind.kind:
                obj = _whole(kind, obj)
                obj = obj if kind is request.kind else await self._conversions.object(obj, request.kind)
                obj = schema.defaults(request.kind, obj)
        return obj


def _decided(program: Mutator, number: int, values: Mapping[str, Any]) -> tuple[Any] | None:
    """The value of a mutation; None when the conditions are not met. Raises Refusal."""
    from k3s.api.cel import Budget, EvaluationError, to_json

    budget = Budget()
    bindings = program.variables.bind(values, budget)
    if number == 0 and not policies.passes(program.conditions, bindings):
        return None
    _, expression = program.mutations[number]
    try:
        value = to_json(expression.evaluate(bindings, budget))
    except EvaluationError as error:
        raise Refusal(f"expression '{expression.source}' resulted in error: {error}") from error
    if budget.left < 0:
        raise Refusal(policies.OUT_OF_BUDGET)
    return (value,)


def _whole(kind: Kind, obj: Object) -> Object:
    try:
        return schema.prune(kind, obj)[0]
    except ApiError as error:
        raise Refusal(str(error)) from error


def _applied(kind: Kind, obj: Object, configuration: Any) -> Object:
    """The object with an apply configuration merged into it."""
    if not isinstance(configuration, dict):
        raise Refusal("the configuration is no object")
    node = schema.definition_of(kind)
    _check_granular(node, configuration, "")
    merged: Object = merge(node, obj, configuration)
    return merged


def _check_granular(node: SchemaNode | None, value: Any, path: str) -> None:
    """What is replaced as a whole cannot be changed in parts: an apply configuration may not have it."""
    if node is None or not isinstance(value, dict | list):
        return
    if path and is_atomic(node, value):
        raise Refusal(f"error applying patch: invalid ApplyConfiguration: {_ATOMIC}: {path}")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_granular(child_of(node, key), inner, f"{path}.{key}")
    else:
        for inner in value:
            _check_granular(node.items(), inner, path)


def _patched(obj: Object, operations: Any) -> Object:
    """The object after the operations of a JSON patch."""
    for operation in operations if isinstance(operations, list) else ():
        try:
            obj = json_patch(obj, [operation])
        except ApiError as error:
            raise Refusal(f"JSON Patch: {_why(operation)}") from error
    if not isinstance(obj, dict):
        raise Refusal("JSON Patch: the result is no object")
    return obj


def _why(operation: Mapping[str, Any]) -> str:
    """Why an operation cannot be done, as the reference server's library says it."""
    kind, path = operation.get("op", ""), operation.get("path", "")
    if kind == "test":
        return f"testing value {path} failed: test failed"
    if kind in ("add", "remove"):
        return f'{kind} operation does not apply: doc is missing path: "{path}": missing value'
    if kind in ("copy", "move"):
        return f"{kind} operation does not apply: doc is missing from path: {operation.get('from', '')}: missing value"
    if kind == "replace":
        return f"replace operation does not apply: doc is missing key: {path}: missing value"
    return f"Unexpected kind: {kind}"
