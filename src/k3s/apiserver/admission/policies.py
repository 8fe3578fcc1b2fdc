"""Admission policies as they are stored: which writes they are about, and their parameters. See `validatingpolicies`
and `mutatingpolicies` for what they decide.

Source: "Validating Admission Policy" and "Mutating Admission Policy" in the Kubernetes documentation; upstream's texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from k3s.api.errors import ApiError
from k3s.api.kinds import Kind, Registry, split_api_version
from k3s.api.object import Object
from k3s.api.selectors import SelectorError, from_object
from k3s.apiserver.admission import matching
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes
from k3s.apiserver.conversion import Conversions

if TYPE_CHECKING:
    from k3s.api.cel import Program
    from k3s.apiserver.cache import Reader

_NOT_FOUND = "no params found for policy binding with `Deny` parameterNotFoundAction"
#: What is said when expressions cost more than they may together.
OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
# What all match conditions of a webhook or policy may cost together.
_FOR_CONDITIONS = 2_500_000
P = TypeVar("P")


class Misconfigured(Exception):
    """A policy or a binding that cannot be used; the text is upstream's."""


class Refusal(Exception):
    """Why an expression refuses a write: its text."""


class Match:
    """matchConstraints of a policy or matchResources of a binding; without rules everything is matched."""

    def __init__(self, resources: Object | None) -> None:
        given = resources or {}
        self._rules = given.get("resourceRules") or []
        self._excluded = given.get("excludeResourceRules") or []
        self._policy = given.get("matchPolicy") or "Equivalent"
        self._selectors = matching.Selectors.of(given)
        self._named = any(rule.get("resourceNames") for rule in (*self._rules, *self._excluded))
        selects = not (self._selectors.namespace.is_everything and self._selectors.object.is_everything)
        #: Whether rules, beyond the names of resources, say all: most policies and bindings.
        self.is_plain = not (self._named or self._excluded or selects)
        self.has_rules = bool(self._rules)

    def about(self, registry: Registry, kind: Kind, operation: str, subresource: str) -> Kind | None:
        """The version in which a kind is matched, whatever the names of its objects."""
        if not self._rules:
            return kind
        return matching.covering(self._rules, registry, kind, operation, subresource, self._policy)

    def match(self, request: AdmissionRequest, kind: Kind, reader: Reader) -> bool:
        """Whether a write of a kind that this is about is matched. Raises NotFound for an absent namespace."""
        if self.is_plain:
            return True
        if not self._selectors.match(request, reader):
            return False
        if self._named and self._rules and not self._covered(self._rules, request, kind):
            return False
        return not self._excluded or not self._covered(self._excluded, request, kind)

    @staticmethod
    def _covered(rules: list[Object], request: AdmissionRequest, kind: Kind) -> bool:
        return any(
            matching.covers(rule, kind, request.operation, request.subresource)
            and (not rule.get("resourceNames") or request.name in rule["resourceNames"])
            for rule in rules
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a policy."""

    name: str
    spec: Object
    match: Match


class Compiled(Generic[P]):
    """A policy with its bindings; `program` is what it decides, made when a write first asks for it."""

    def __init__(self, policy: Object, bindings: list[Binding], compile: Callable[[Object], P]) -> None:
        self.name = str(policy["metadata"]["name"])
        self.spec: Object = policy.get("spec") or {}
        self.match = Match(self.spec.get("matchConstraints"))
        self.bindings = bindings
        self._policy = policy
        self._compile = compile
        self._program: P | None = None

    @property
    def fails(self) -> bool:
        """Whether what goes wrong refuses a write."""
        return self.spec.get("failurePolicy") != "Ignore"

    @property
    def program(self) -> P:
        """The compiled expressions. Raises Misconfigured."""
        if self._program is None:
            from k3s.api.cel import CompileError

            try:
                self._program = self._compile(self._policy)
            except CompileError as error:
                raise Misconfigured(str(error)) from error
        return self._program


class Policies(Generic[P]):
    """The policies of one sort, and the writes that they are about."""

    def __init__(
        self,
        kinds: tuple[Kind, Kind],
        reader: Reader,
        registry: Registry,
        conversions: Conversions,
        authorizer: Authorizes,
        compile: Callable[[Object], P],
    ) -> None:
        self.reader = reader
        self.authorizer = authorizer
        self._conversions = conversions
        self._policy, self._binding = kinds
        self._registry = registry
        self._compile = compile
        self._index = matching.Index(reader, kinds, self._compiled, self._about, matching.NO_POLICIES)

    def about(self, request: AdmissionRequest) -> list[tuple[Compiled[P], Kind]]:
        """The policies whose rules name a write, each with the version of its kind that they want to see."""
        return self._index.about(request.kind, request.operation, request.subresource)

    def _about(self, policy: Compiled[P], kind: Kind, operation: str, subresource: str) -> Kind | None:
        return policy.match.about(self._registry, kind, operation, subresource) if policy.bindings else None

    def _compiled(self) -> list[Compiled[P]]:
        bound: dict[str, list[Binding]] = {}
        for binding in sorted(self.reader.list(self._binding), key=_name):
            spec = binding.get("spec") or {}
            one = Binding(_name(binding), spec, Match(spec.get("matchResources")))
            bound.setdefault(str(spec.get("policyName", "")), []).append(one)
        policies = sorted(self.reader.list(self._policy), key=_name)
        return [Compiled(policy, bound.get(_name(policy), []), self._compile) for policy in policies]

    def kind_of(self, obj: Object, kind: Kind) -> Kind:
        """The kind of what a policy sees: the resource's own, or that of a subresource's body."""
        return kind if obj.get("kind") == kind.kind else self._registry.of(obj) or kind

    def bindings_of(self, policy: Compiled[P], kind: Kind, request: AdmissionRequest) -> list[Binding]:
        """The bindings that a write is matched by. Raises NotFound for an absent namespace."""
        if not policy.match.match(request, kind, self.reader):
            return []
        return [
            binding
            for binding in policy.bindings
            if (
                not binding.match.has_rules
                or binding.match.about(self._registry, kind, request.operation, request.subresource)
            )
            and binding.match.match(request, kind, self.reader)
        ]

    async def seen(self, obj: Object | None, kind: Kind) -> Object | None:
        """An object in the version that a policy wants to see. Raises ApiError when it cannot be converted."""
        if obj is None or obj.get("apiVersion") == kind.api_version or obj.get("kind") != kind.kind:
            return obj
        try:
            return await self._conversions.object(obj, kind)
        except ApiError as error:
            error.message = f"failed to convert object version: {error.message}"
            raise

    async def values(self, request: AdmissionRequest, kind: Kind, obj: Object | None) -> dict[str, Any]:
        """What expressions see of a write; `obj` is the object as it is by now. Raises ApiError as `seen`."""
        from k3s.apiserver.admission import expressions

        space = self.reader.get(matching.NAMESPACE, "", request.namespace) if request.namespace else None
        new, old = await self.seen(obj, kind), await self.seen(request.old, kind)
        return expressions.bindings(request, kind, new, old, self.authorizer, space)

    def params(self, policy: Compiled[P], binding: Binding, request: AdmissionRequest) -> list[Object | None]:
        """The parameters that a policy is evaluated with, one after the other. Raises Misconfigured."""
        wanted, ref = policy.spec.get("paramKind"), binding.spec.get("paramRef")
        if not wanted or not ref:
            return [None]
        kind = self._registry.by_kind(*split_api_version(wanted.get("apiVersion", "")), wanted.get("kind", ""))
        if kind is None or not kind.stored:
            shown = f"&ParamKind{{APIVersion:{wanted.get('apiVersion', '')},Kind:{wanted.get('kind', '')},}}"
            raise Misconfigured(f"paramKind kind `{shown}` not known")
        found = self._found(kind, ref, self._param_space(kind, ref, request))
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise Misconfigured(_NOT_FOUND)
        return list(found)

    @staticmethod
    def _param_space(kind: Kind, ref: Object, request: AdmissionRequest) -> str:
        space = str(ref.get("namespace") or "")
        if not kind.namespaced:
            if space:
                raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
            return ""
        if not space and not request.namespace:
            raise Misconfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )
        return space or request.namespace

    def _found(self, kind: Kind, ref: Object, space: str) -> list[Object]:
        name, selector = ref.get("name"), ref.get("selector")
        if name:
            if selector is not None:
                raise Misconfigured("paramRef.name and paramRef.selector are mutually exclusive")
            one = self.reader.get(kind, space, str(name))
            return [] if one is None else [one]
        if selector is None:
            raise Misconfigured("one of name or selector must be provided")
        try:
            chosen = from_object(selector)
        except SelectorError as error:
            raise Misconfigured(str(error)) from error
        return [obj for obj in self.reader.list(kind, space) if chosen.matches(obj["metadata"].get("labels"))]


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def passes(conditions: list[tuple[str, Program]], bindings: Mapping[str, Any]) -> bool:
    """Whether all match conditions are true. Raises Refusal when that cannot be told."""
    from k3s.api.cel import Budget, EvaluationError

    problems, budget = [], Budget(_FOR_CONDITIONS)
    for source, program in conditions:
        try:
            if program.evaluate(bindings, budget) is not True:
                return False
        except EvaluationError as error:
            problems.append(f"expression '{source}' resulted in error: {error}")
        if budget.left < 0:
            raise Refusal(OUT_OF_BUDGET)
    if problems:
        raise Refusal(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return True


def conditions_of(spec: Object) -> list[tuple[str, Program]]:
    """The match conditions of a policy, compiled. Raises CompileError."""
    from k3s.api.cel import admission

    params = spec.get("paramKind") is not None
    sources = [str(one.get("expression", "")) for one in spec.get("matchConditions") or ()]
    return [(source, admission.condition(source, params=params, namespace=True)) for source in sources]


def text_of(error: ApiError | Misconfigured, *, binding: bool) -> str:
    """What a policy that cannot be used says."""
    what = "binding" if binding else "policy"
    return f"failed to configure {what}: {error}"
