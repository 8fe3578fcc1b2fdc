"""What is wrong with the expressions of a validating policy for the kinds that it names: the warnings of its status.

An expression compiles without knowing an object's type, and fails when it is evaluated. Here it is compiled once more
for each kind that the rules name without a star. Source: "Type checking" of ValidatingAdmissionPolicy in the
Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterator

from k3s.api import schema
from k3s.api.cel import admission
from k3s.api.cel.environment import Environment
from k3s.api.cel.errors import CompileError
from k3s.api.cel.program import compile
from k3s.api.cel.types import BOOL, DOUBLE, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of, object_type
from k3s.api.kinds import Kind, Registry, split_api_version
from k3s.api.object import Object

# More kinds than these are not looked at.
_MOST_KINDS = 10
_SCALARS = {
    "string": STRING,
    "integer": INT,
    "number": DOUBLE,
    "boolean": BOOL,
    "time": TIMESTAMP,
    "microtime": TIMESTAMP,
}
_PREFIX = "compilation failed: "
# What the schema of a custom kind need not name.
_EVERYWHERE = frozenset({"apiVersion", "kind", "metadata"})


def type_of(node: schema.Node | None, name: str) -> Type:
    """The type of what a schema describes; anything where it does not say."""
    if node is None:
        return DYN
    if node.type == "object" and not node.preserve_unknown:

        def field(key: str) -> Type | None:
            # Words that the language keeps for itself are escaped.
            child = node.child(key) or node.child(key.removeprefix("__").removesuffix("__"))
            if child is None:
                return DYN if key in _EVERYWHERE else None
            return type_of(child, f"{name}.{key}")

        return object_type(name, field)
    if node.type == "array":
        return list_of(type_of(node.items(), f"{name}.items"))
    if node.type == "map":
        return map_of(STRING, type_of(node.items(), f"{name}.values"))
    return _SCALARS.get(node.type, DYN)


def kinds_of(policy: Object, registry: Registry) -> list[Kind]:
    """The kinds that the rules of a policy name: without stars, and no parts of objects."""
    found: dict[Kind, None] = {}
    match = (policy.get("spec") or {}).get("matchConstraints") or {}
    for rule in match.get("resourceRules") or ():
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for plural in rule.get("resources") or ():
                    kind = registry.by_resource(group, version, plural)
                    if kind is not None:
                        found[kind] = None
    return sorted(found, key=shown)[:_MOST_KINDS]


def shown(kind: Kind) -> str:
    """Group, version and kind as warnings name them."""
    return f"{kind.api_version}, Kind={kind.kind}"


def warnings(policy: Object, registry: Registry) -> list[dict[str, str]]:
    """The warnings of a policy, by the field of the expression; none for expressions that fit every kind."""
    spec = policy.get("spec") or {}
    wanted = spec.get("paramKind") or {}
    params = registry.by_kind(*split_api_version(wanted.get("apiVersion", "")), wanted.get("kind", ""))
    found: dict[str, list[str]] = {}
    for kind in kinds_of(policy, registry):
        base = _typed(admission.environment(params=bool(wanted)), kind, params)
        environment = admission.Variables(spec.get("variables") or (), base).environment
        for field, source in _expressions(spec):
            try:
                compile(source, environment)
            except CompileError as error:
                found.setdefault(field, []).append(f"{shown(kind)}: {str(error).removeprefix(_PREFIX)}")
    return [{"fieldRef": field, "warning": "\n".join(texts)} for field, texts in found.items()]


def _typed(base: Environment, kind: Kind, params: Kind | None) -> Environment:
    known = type_of(schema.definition_of(kind), kind.kind)
    typed = {"object": known, "oldObject": known}
    if params is not None and "params" in base.variables:
        typed["params"] = type_of(schema.definition_of(params), params.kind)
    return base.with_variables(typed)


def _expressions(spec: Object) -> Iterator[tuple[str, str]]:
    for number, rule in enumerate(spec.get("validations") or ()):
        at = f"spec.validations[{number}]"
        yield f"{at}.expression", str(rule.get("expression", ""))
        if rule.get("messageExpression"):
            yield f"{at}.messageExpression", str(rule["messageExpression"])
