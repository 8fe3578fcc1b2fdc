"""The schemas of OpenAPI documents: built-in definitions and those of custom kinds, with what they refer to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from k3s.api import descriptions, schema
from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object

_PREFIX = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_OBJECT_META, _LIST_META = _META + "ObjectMeta", _META + "ListMeta"
#: Kinds that carry one group-version-kind for every group version that takes them.
_EVERYWHERE = {_META + "DeleteOptions": "DeleteOptions", _META + "WatchEvent": "WatchEvent"}

_SAMPLE = "io.k8s.api.core.v1.ConfigMap"
_COMMON = ("apiVersion", "kind", "metadata")


class Schemas:
    """The schemas of one registry by name."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._custom: dict[str, Object] = {}
        for kind in registry.all():
            if kind.custom:
                self._custom |= _custom_definitions(kind)

    def name_of(self, kind: Kind) -> str:
        """The name of a kind's definition."""
        return _custom_name(kind) if kind.custom else kind.definition

    def name_of_body(self, group: str, version: str, kind: str) -> str:
        """The name of the definition of a subresource's body; empty when there is none (options of connections)."""
        found = self._registry.by_kind(group, version, kind)
        return self.name_of(found) if found is not None else ""

    def get(self, name: str) -> Object | None:
        """A definition with `$ref` in it; None when there is none."""
        if name in self._custom:
            return self._custom[name]
        try:
            raw = schema.raw_definition(name)
        except KeyError:
            return None
        converted = _described(_converted(raw), descriptions.of(name))
        if name in _EVERYWHERE:
            rows = [
                {"group": group, "kind": _EVERYWHERE[name], "version": version}
                for group, version in sorted(self._registry.group_versions())
                if not group or group in self._registry.builtin_groups
            ]
            converted["x-kubernetes-group-version-kind"] = rows
        return converted

    def needed(self, paths: Object, group: str = "", version: str = "") -> Object:
        """The definitions that paths and the kinds of a group version refer to, and theirs, by name."""
        start = list(_references(paths))
        if version:
            for kind in self._registry.of_version(group, version):
                start += [self.name_of(kind)]
        return self._closure(start)

    def everything(self) -> Object:
        """Every definition that a served kind needs."""
        return self._closure([*schema.definition_names(), *self._custom])

    def _closure(self, start: Iterable[str]) -> Object:
        found: Object = {}
        waiting = [name for name in start if name]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            definition = self.get(name)
            if definition is not None:
                found[name] = definition
                waiting += _references(definition)
        return dict(sorted(found.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner.removeprefix(_PREFIX)
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _converted(raw: Any) -> Any:
    """A definition of the data with references as OpenAPI writes them."""
    if isinstance(raw, list):
        return [_converted(inner) for inner in raw]
    if not isinstance(raw, Mapping):
        return raw
    out = {key: _converted(inner) for key, inner in raw.items() if key != "ref"}
    target = raw.get("ref")
    if not isinstance(target, str):
        return {**out, "ref": _converted(target)} if target is not None else out
    ref = {"$ref": _PREFIX + target}
    return {**out, "allOf": [ref]} if out else ref


def _described(definition: Object, texts: Mapping[str, str]) -> Object:
    """A definition with the text of the whole (under the empty name) and of its fields."""
    out = {"description": texts[""], **definition} if texts.get("") else dict(definition)
    fields = out.get("properties")
    if fields:
        out["properties"] = {
            name: _with_text(field, texts[name]) if texts.get(name) else field for name, field in fields.items()
        }
    return out


def _with_text(field: Object, text: str) -> Object:
    # In version 3.0 whatever stands beside a reference is not read.
    described: Object = {"description": text}
    return {**described, "allOf": [field]} if "$ref" in field else {**described, **field}


def _custom_name(kind: Kind) -> str:
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _custom_definitions(kind: Kind) -> dict[str, Object]:
    """The schemas of a custom kind and of its list."""
    name = _custom_name(kind)
    raw: Object = dict(_converted(kind.schema.raw)) if kind.schema is not None else {"type": "object"}
    raw.pop(schema.OWN_METADATA, None)
    meta = {"allOf": [{"$ref": _PREFIX + _OBJECT_META}]}
    strings = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    properties = {**raw.get("properties", {}), **strings, "metadata": meta}
    if kind.schema is None:
        raw["x-kubernetes-preserve-unknown-fields"] = True
    row = {"group": kind.group, "kind": kind.kind, "version": kind.version}
    body = {**raw, "properties": properties, "x-kubernetes-group-version-kind": [row]}
    list_properties = {
        **strings,
        "items": {"type": "array", "items": {"$ref": _PREFIX + name}},
        "metadata": {"allOf": [{"$ref": _PREFIX + _LIST_META}]},
    }
    listed = {
        "type": "object",
        "required": ["items"],
        "properties": list_properties,
        "x-kubernetes-group-version-kind": [{**row, "kind": kind.list_kind}],
    }
    # Every kind has these fields, so the words of any built-in one serve.
    common = {field: text for field, text in descriptions.of(_SAMPLE).items() if field in _COMMON}
    common_list = {field: text for field, text in descriptions.of(_SAMPLE + "List").items() if field in _COMMON}
    if common_list:
        common_list |= {"": f"{kind.list_kind} is a list of {kind.kind}"}
    return {name: _described(body, common), name + "List": _described(listed, common_list)}
