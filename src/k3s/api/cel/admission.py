"""What the expressions of webhooks and admission policies may refer to, and how those of a policy compile.

Source: "CEL in Kubernetes", ValidatingAdmissionPolicy and MutatingAdmissionPolicy in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from k3s.api.cel.environment import KUBERNETES, Environment
from k3s.api.cel.errors import CompileError, EvaluationError
from k3s.api.cel.library.authorizer import AUTHORIZER, RESOURCE_CHECK
from k3s.api.cel.program import Budget, LazyMap, Program, compile
from k3s.api.cel.types import (
    BOOL,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    Type,
    list_of,
    map_of,
    object_type,
)
from k3s.api.object import Object

_STRINGS = map_of(STRING, STRING)


def _named(name: str, third: str) -> Type:
    return object_type(f"kubernetes.{name}", {"group": STRING, "version": STRING, third: STRING})


_USER = object_type(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST = object_type(
    "kubernetes.AdmissionRequest",
    {
        "kind": _named("GroupVersionKind", "kind"),
        "resource": _named("GroupVersionResource", "resource"),
        "subResource": STRING,
        "requestKind": _named("GroupVersionKind", "kind"),
        "requestResource": _named("GroupVersionResource", "resource"),
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_METADATA = object_type(
    "kubernetes.NamespaceMetadata",
    {
        "name": STRING,
        "generateName": STRING,
        "namespace": STRING,
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "UID": STRING,
        "creationTimestamp": TIMESTAMP,
        "deletionGracePeriodSeconds": INT,
        "deletionTimestamp": TIMESTAMP,
        "generation": INT,
        "resourceVersion": STRING,
        "finalizers": list_of(STRING),
    },
)
NAMESPACE = object_type(
    "kubernetes.Namespace",
    {
        "metadata": _METADATA,
        "spec": object_type("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}),
        "status": object_type("kubernetes.NamespaceStatus", {"phase": STRING}),
    },
)
_OWN_METADATA = (
    *("name", "generateName", "namespace", "labels", "annotations", "creationTimestamp", "generation", "finalizers"),
    *("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"),
)
MESSAGES, ANNOTATIONS = (STRING,), (STRING, NULL)


@cache
def environment(*, params: bool = False, namespace: bool = True, authorizer: bool = True) -> Environment:
    """What expressions may refer to: those of policies see the namespace, and params if they say so."""
    variables: dict[str, Type] = {"object": DYN, "oldObject": DYN, "request": REQUEST}
    if namespace:
        variables["namespaceObject"] = NAMESPACE
    if params:
        variables["params"] = DYN
    if authorizer:
        variables |= {"authorizer": AUTHORIZER, "authorizer.requestResource": RESOURCE_CHECK}
    return Environment(variables)


@lru_cache(maxsize=256)
def condition(source: str, *, params: bool = False, namespace: bool = False) -> Program:
    """A match condition, of a webhook or (with `namespace`) of a policy. Raises CompileError."""
    return compile(source, environment(params=params, namespace=namespace), (BOOL,))


def shown_namespace(namespace: Object) -> Object:
    """A namespace as far as expressions may see it."""
    meta = {key: value for key, value in namespace["metadata"].items() if key in _OWN_METADATA}
    meta["UID"] = namespace["metadata"].get("uid", "")
    parts: Object = {key: namespace[key] for key in ("spec", "status") if key in namespace}
    return {"metadata": meta, **parts}


class Variables:
    """The variables of a policy: each may use those before it. Faults are told by index, not raised."""

    def __init__(self, variables: Iterable[Object], base: Environment) -> None:
        self.programs: dict[str, Program] = {}
        self.faults: dict[int, str] = {}
        known: dict[str, Type] = {}
        for number, variable in enumerate(variables):
            name = str(variable.get("name", ""))
            try:
                program = compile(str(variable.get("expression", "")), _with_variables(base, known))
            except CompileError as error:
                self.faults[number] = str(error)
                known[name] = DYN
                continue
            self.programs[name] = program
            known[name] = program.type
        self.environment = _with_variables(base, known)

    def bind(self, bindings: Mapping[str, Any], budget: Budget) -> Mapping[str, Any]:
        """The bindings with `variables`, whose values are made when they are asked for."""
        if not self.programs:
            return bindings
        whole = dict(bindings)

        def maker(name: str, program: Program) -> Any:
            def make() -> Any:
                try:
                    return program.evaluate(whole, budget)
                except EvaluationError as error:
                    raise EvaluationError(f'composited variable "{name}" fails to evaluate: {error}') from error

            return make

        whole["variables"] = LazyMap({name: maker(name, program) for name, program in self.programs.items()})
        return whole


def _with_variables(base: Environment, known: Mapping[str, Type]) -> Environment:
    if not known:
        return base.with_variables({"variables": object_type("kubernetes.variables", {})})
    return base.with_variables({"variables": object_type("kubernetes.variables", dict(known))})


class _Objects(Mapping[str, Type]):
    """`JSONPatch`, and `Object`, `Object.spec`, `Object.spec.template`, …: every name that begins so, any field."""

    def __getitem__(self, name: str) -> Type:
        if name == JSON_PATCH.name:
            return JSON_PATCH
        if name != "Object" and not name.startswith("Object."):
            raise KeyError(name)
        return object_type(name, lambda field: DYN)

    def __iter__(self) -> Iterator[str]:
        return iter(("Object",))

    def __len__(self) -> int:
        return 1


OBJECT = object_type("Object", lambda field: DYN)
_MUTATING = (*KUBERNETES, "jsonpatch")
JSON_PATCH = object_type("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN})


def mutating(base: Environment) -> Environment:
    """The same for mutations: objects can be built, and operations of a JSON patch."""
    return Environment(base.variables, _Objects(), _MUTATING)


def mutation(source: str, patch_type: str, variables: Variables) -> Program:
    """The expression of a mutation. Raises CompileError."""
    wanted = OBJECT if patch_type == "ApplyConfiguration" else list_of(JSON_PATCH)
    return compile(source, mutating(variables.environment), (wanted,))
