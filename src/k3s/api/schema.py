"""Schemas as data: what fields an object has, of what type, and how their lists merge.

A `Node` is one place in a schema: of a built-in definition (`data/schema.json`, parsed a definition at a time when it
is first needed) or of a custom resource. Patches, apply, pruning, defaulting and OpenAPI all walk the same nodes.

    definition_of(kind) -> Node             the schema of a kind, for custom kinds what their row carries
    prune(kind, obj) -> (obj, unknown)      the object as the API would hold it, and the paths of unknown fields
    defaults(kind, obj) -> obj              the object with everything filled in that the client left out

Source of the field names: the `x-kubernetes-*` extensions of the API's OpenAPI documents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from k3s.api import presence
from k3s.api.kinds import Kind
from k3s.api.object import Object

if TYPE_CHECKING:
    from k3s.api.cel.rules import Validator

_DATA = Path(__file__).with_name("data")
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

#: Definitions whose value has a form of its own: name -> type of the node.
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    _META + "Time": "time",
    _META + "MicroTime": "microtime",
    _META + "FieldsV1": "any",
    _META + "Patch": "any",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
}
_JSON = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"


_UNMADE = object()


class Node:
    """One place in a schema; children are made when they are first asked for.

    `type` is one of object, map, array, string, integer, number, boolean, quantity, int-or-string, time, microtime,
    any.
    An object has named fields, a map has one schema for all its values.
    """

    __slots__ = (
        "_fields",
        "_items",
        "_lookup",
        "_omits",
        "_plan",
        "_rules",
        "default",
        "definition",
        "enum",
        "format",
        "list_map_keys",
        "list_type",
        "map_type",
        "merge_key",
        "name",
        "patch_strategies",
        "preserve_unknown",
        "raw",
        "required",
        "type",
    )

    def __init__(self, raw: Mapping[str, Any], definition: str, lookup: Callable[[str], Mapping[str, Any]]) -> None:
        self.raw = raw
        self.definition = definition
        #: The last part of the definition's name, e.g. `PodSpec`; empty inside a custom schema.
        self.name = definition.rpartition(".")[2]
        self._lookup = lookup
        self.type = _type_of(raw, definition)
        self.format: str = raw.get("format", "")
        self.default: Any = raw.get("default")
        self.enum: tuple[Any, ...] = tuple(raw.get("enum", ()))
        self.required: frozenset[str] = frozenset(raw.get("required", ()))
        self.list_type: str = raw.get("x-kubernetes-list-type", "")
        self.list_map_keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys", ()))
        self.map_type: str = raw.get("x-kubernetes-map-type", "")
        self.merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        strategy = raw.get("x-kubernetes-patch-strategy", "")
        self.patch_strategies: frozenset[str] = frozenset(strategy.split(",")) if strategy else frozenset()
        self.preserve_unknown: bool = bool(raw.get("x-kubernetes-preserve-unknown-fields")) or self.type == "any"
        self._fields: dict[str, Node] | None = None
        self._items: Node | None = None
        self._plan: tuple[tuple[str, Any], ...] | None = None
        self._omits: frozenset[str] | None = None
        self._rules: Any = _UNMADE

    def __repr__(self) -> str:
        return f"Node({self.definition or self.type})"

    @property
    def rules(self) -> Validator | None:
        """The rules of a custom kind (`x-kubernetes-validations`), compiled when they are first asked for; None when it
        has none, so that only who has some loads the engine."""
        if self._rules is _UNMADE:
            self._rules = None
            if has_rules(self.raw):
                from k3s.api.cel.rules import Validator

                self._rules = Validator(self.raw, root=True)
        return self._rules  # type: ignore[no-any-return]

    @property
    def patch_strategy(self) -> str:
        """`merge` when a strategic patch merges this list or map, `replace` when it says so, else empty."""
        for strategy in ("merge", "replace"):
            if strategy in self.patch_strategies:
                return strategy
        return ""

    @property
    def fields(self) -> Mapping[str, Node]:
        """The named fields of an object, empty for everything else."""
        if self._fields is None:
            properties = self.raw.get("properties", {})
            self._fields = {name: self._make(raw) for name, raw in properties.items()}
        return self._fields

    def child(self, field: str) -> Node | None:
        """The schema of one field or map value; None when the schema does not know the field."""
        found = self.fields.get(field)
        return found if found is not None or self.type != "map" else self.items()

    def items(self) -> Node | None:
        """The schema of the elements of a list or the values of a map."""
        if self._items is None:
            raw = self.raw.get("items") if self.type == "array" else self.raw.get("additionalProperties")
            if isinstance(raw, Mapping):
                self._items = self._make(raw)
        return self._items

    def at(self, *path: str) -> Node | None:
        """The schema at a path of field names; lists are stepped through without an index."""
        node: Node | None = self
        for step in path:
            while node is not None and node.type == "array":
                node = node.items()
            if node is None:
                return None
            node = node.child(step)
        return node

    def _make(self, raw: Mapping[str, Any]) -> Node:
        ref = raw.get("ref")
        if ref is None:
            inner = _resource(raw) if raw.get("x-kubernetes-embedded-resource") else raw
            return Node(inner, "", self._lookup)
        target = self._lookup(ref)
        own = {key: value for key, value in raw.items() if key not in ("ref", "default")}
        if not own and self._lookup is _definition:
            return definition(ref)
        return Node({**target, **own}, ref, self._lookup)

    @property
    def plan(self) -> tuple[tuple[str, Any], ...]:
        """What is always there in an object of this schema: (field, value), a Node stands for its empty object."""
        if self._plan is None:
            self._plan = tuple(self._planned())
        return self._plan

    def _planned(self) -> list[tuple[str, Any]]:
        plan: list[tuple[str, Any]] = []
        for name, raw in self.raw.get("properties", {}).items():
            node = self.fields[name]
            if "default" not in raw:
                continue
            value = raw["default"]
            if value == {} and node.type == "object":
                plan.append((name, node))
            elif value or name in self.required or name not in _OMITTED_ZEROS:
                plan.append((name, value))
        return plan

    @property
    def omits(self) -> frozenset[str]:
        """The optional fields that are left out when they are empty text, false or zero, as the API does not tell those
        values from no value; none of a custom schema."""
        if self._omits is None:
            properties = self.raw.get("properties", {}) if self.definition else {}
            struct = ".".join(self.definition.split(".")[-3:])
            kept, dropped = presence.texts_kept(struct), presence.numbers_dropped(struct)
            self._omits = frozenset(
                name
                for name, raw in properties.items()
                if name not in self.required
                and ("default" not in raw or name in _OMITTED_ZEROS)
                and (name not in kept if raw.get("type") == "string" else name in dropped)
            )
        return self._omits


# Optional fields with a zero default that is nevertheless not sent: names of references, and one number.
_OMITTED_ZEROS = frozenset({"name", "minReadySeconds"})


def _type_of(raw: Mapping[str, Any], definition: str) -> str:
    if definition in SCALARS:
        return SCALARS[definition]
    if definition.startswith(_JSON) and "properties" not in raw:
        return "any"
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    kind = raw.get("type", "")
    if kind == "object":
        if "properties" in raw:
            return "object"
        extra = raw.get("additionalProperties")
        if isinstance(extra, Mapping):
            return "map"
        return "any" if extra or raw.get("x-kubernetes-preserve-unknown-fields") else "object"
    return str(kind) or ("object" if "properties" in raw else "any")


@functools.cache
def _raws() -> dict[str, msgspec.Raw]:
    data = (_DATA / "schema.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


@functools.cache
def _definition(name: str) -> Mapping[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(_raws()[name])
    return found


@functools.cache
def definition(name: str) -> Node:
    """The schema of a definition by its full name; raises KeyError when unknown."""
    return Node(_definition(name), name, _definition)


def definition_names() -> list[str]:
    """The names of all built-in definitions, sorted."""
    return list(_raws())


def raw_definition(name: str) -> Mapping[str, Any]:
    """A definition as OpenAPI, with `ref` for a reference; not to be changed."""
    return _definition(name)


def custom(raw: Mapping[str, Any]) -> Node:
    """The schema of a custom resource from its openAPIV3Schema, with apiVersion, kind and metadata added."""
    own = raw.get("properties", {}).get("metadata")
    whole = {**_resource(raw), "type": "object"}
    return Node(whole if own is None else {**whole, OWN_METADATA: own}, "", _definition)


#: Under what word the schema of a custom resource keeps what its definition demands of names.
OWN_METADATA = "x-own-metadata"


def _resource(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a whole object, of which the definition says only what is its own."""
    whole = {
        **raw.get("properties", {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"ref": _META + "ObjectMeta"},
    }
    return {**raw, "properties": whole}


_FREE = Node(_resource({"type": "object", "x-kubernetes-preserve-unknown-fields": True}), "", _definition)


def has_rules(raw: Mapping[str, Any]) -> bool:
    """Whether rules (`x-kubernetes-validations`) stand anywhere in a schema."""
    if raw.get("x-kubernetes-validations"):
        return True
    parts = (raw.get("items"), raw.get("additionalProperties"), *(raw.get("properties") or {}).values())
    return any(isinstance(part, Mapping) and has_rules(part) for part in parts)


def definition_of(kind: Kind) -> Node:
    """The schema of a kind; one that keeps every field when a custom kind has none."""
    if kind.definition:
        return definition(kind.definition)
    return kind.schema or _FREE


def merge_key(kind: Kind, *path: str) -> str:
    """The field by which a strategic patch matches the elements of the list at `path`; empty when it has none."""
    node = definition_of(kind).at(*path)
    return node.merge_key if node is not None else ""


def list_map_keys(kind: Kind, *path: str) -> tuple[str, ...]:
    """The fields that together name an element of the list at `path`; empty when it is not a map-like list."""
    node = definition_of(kind).at(*path)
    return node.list_map_keys if node is not None else ()


def prune(kind: Kind, obj: Object, known: Object | None = None) -> tuple[Object, list[str]]:
    """The object as the API holds it, and the paths (`spec.containers[0].foo`) of the fields that it does not know.

    Parts that are the same object as in `known`, which went through this before, are not looked at again.
    Unknown fields, nulls and empty lists and maps are left out, quantities and times are written in their one form.
    Raises BadRequest when a value has another type than its field.
    """
    from k3s.api import structure

    return structure.prune(definition_of(kind), kind, obj, known)


# After these, rules could meet what they were not made for.
_BLOCKING = frozenset(f"FieldValue{what}" for what in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"))
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


def validate(kind: Kind, obj: Object, old: Object | None = None) -> list[dict[str, str]]:
    """The causes why an object is not what its custom schema demands; always empty for built-in kinds.

    What is as in `old` is not looked at again.
    """
    if kind.definition or kind.schema is None:
        return []
    from k3s.api import custom as checks

    causes = checks.check(kind.schema, obj, old)
    return causes + broken_rules(kind.schema, obj, old, causes)


def broken_rules(node: Node, obj: Object, old: Object | None, causes: list[dict[str, str]]) -> list[dict[str, str]]:
    """The causes why an object breaks the rules of its custom kind, which are not asked when too much else is wrong."""
    rules = node.rules
    if rules is None:
        return []
    if any(cause["reason"] in _BLOCKING for cause in causes):
        return [{"reason": "FieldValueInvalid", "field": "<nil>", "message": f"Invalid value: null: {_NOT_CHECKED}"}]
    return rules.check(obj, old)


def defaults(kind: Kind, obj: Object, known: Object | None = None) -> Object:
    """The object with everything filled in that the client left out; `obj` itself when nothing was missing.

    Parts that are the same object as in `known`, which went through this before, are not looked at again.
    """
    from k3s.api import defaults as rules

    return rules.apply(definition_of(kind), kind, obj, known)
