"""Field selectors: which fields of which kinds can be asked for, and whether an object has the values.

    metadata.name=web,status.phase!=Running

Reached through `k3s.api.selectors`. Grammar and wording: the fields package of the API machinery.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k3s.api.errors import BadRequest
from k3s.api.object import Object


class SelectorError(BadRequest):
    """The selector cannot be understood; the message is the API's."""


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One condition on one field."""

    field: str
    value: str
    equal: bool = True

    def __str__(self) -> str:
        value = self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return f"{self.field}{'=' if self.equal else '!='}{value}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All conditions must hold on the fields of an object, compared as text."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected. Field names are checked before, with `check_fields`."""
        return all((field_value(obj, term.field) == term.value) == term.equal for term in self.terms)

    @property
    def is_everything(self) -> bool:
        """True when nothing is asked of the fields."""
        return not self.terms

    def required(self, field: str) -> str | None:
        """The one value that a field must have, None when it is free."""
        for term in self.terms:
            if term.equal and term.field == field:
                return term.value
        return None

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


def _split_terms(text: str) -> list[str]:
    terms: list[str] = []
    start = 0
    escaped = False
    for i, c in enumerate(text):
        if escaped:
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == ",":
            terms.append(text[start:i])
            start = i + 1
    terms.append(text[start:])
    return terms


def _split_term(term: str) -> tuple[str, str, str] | None:
    for i in range(len(term)):
        for sign in ("!=", "==", "="):
            if term.startswith(sign, i):
                return term[:i], sign, term[i + len(sign) :]
    return None


def _unescaped(value: str) -> str:
    if "\\" not in value and "," not in value and "=" not in value:
        return value
    result: list[str] = []
    escaped = False
    for c in value:
        if escaped:
            if c not in "\\,=":
                raise SelectorError(f"invalid field selector: invalid escape sequence: \\{c}")
            result.append(c)
            escaped = False
        elif c == "\\":
            escaped = True
        elif c in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(c)}")
        else:
            result.append(c)
    if escaped:
        raise SelectorError("invalid field selector: invalid escape sequence: \\")
    return "".join(result)


@functools.lru_cache(maxsize=1024)
def parse_fields(text: str) -> FieldSelector:
    """The selector of a `fieldSelector` parameter; raises SelectorError (a BadRequest)."""
    terms: list[FieldTerm] = []
    for part in _split_terms(text):
        if not part:
            continue
        pieces = _split_term(part)
        if pieces is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
        field, sign, value = pieces
        terms.append(FieldTerm(field, _unescaped(value), sign != "!="))
    return FieldSelector(tuple(sorted(terms, key=lambda t: (t.field, t.value))))


_NAME, _NAMESPACE = "metadata.name", "metadata.namespace"
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

# Kinds whose fields can be selected by more than name and namespace; a name maps to the field it means.
_FIELDS: dict[tuple[str, str], dict[str, str]] = {
    ("batch", "Job"): {f: f for f in (_NAME, _NAMESPACE, "status.successful")},
    ("certificates.k8s.io", "CertificateSigningRequest"): {f: f for f in (_NAME, "spec.signerName")},
    ("events.k8s.io", "Event"): {
        **{f: f for f in (_NAME, _NAMESPACE, "reason", "reportingController", "type")},
        **{f"regarding.{part}": f"regarding.{part}" for part in _INVOLVED},
    },
    ("resource.k8s.io", "ResourceSlice"): {f: f for f in (_NAME, "spec.nodeName", "spec.driver")},
    ("", "Event"): {
        **{f: f for f in (_NAME, _NAMESPACE, "reason", "reportingComponent", "source", "type")},
        **{f"involvedObject.{part}": f"involvedObject.{part}" for part in _INVOLVED},
    },
    ("", "Namespace"): {f: f for f in (_NAME, "status.phase")},
    ("", "Node"): {f: f for f in (_NAME, "spec.unschedulable")},
    ("", "Pod"): {
        **{
            f: f
            for f in (
                _NAME,
                _NAMESPACE,
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            )
        },
        "spec.host": "spec.nodeName",
    },
    ("", "ReplicationController"): {f: f for f in (_NAME, _NAMESPACE, "status.replicas")},
    ("", "Secret"): {f: f for f in (_NAME, _NAMESPACE, "type")},
    ("", "Service"): {f: f for f in (_NAME, _NAMESPACE, "spec.clusterIP", "spec.type")},
}


def selectable_fields(group: str, kind: str) -> frozenset[str]:
    """The fields by which objects of a built-in kind can be selected."""
    return frozenset(_FIELDS.get((group, kind), (_NAME, _NAMESPACE)))


def check_fields(
    selector: FieldSelector, group: str, kind: str, custom: tuple[str, ...] | None = None
) -> FieldSelector:
    """The selector with field names as they stand in objects; raises SelectorError for one that is not supported.

    `custom` are the selectable fields of a custom resource (`spec.color`), None for a built-in kind.
    """
    table = _FIELDS.get((group, kind)) if custom is None else {f: f for f in (_NAME, _NAMESPACE, *custom)}
    terms: list[FieldTerm] = []
    for term in selector.terms:
        if table is None:
            if term.field not in (_NAME, _NAMESPACE):
                raise SelectorError(f'"{term.field}" is not a known field selector: only "{_NAME}", "{_NAMESPACE}"')
            terms.append(term)
        elif term.field not in table:
            raise SelectorError(f"field label not supported: {term.field}")
        else:
            terms.append(FieldTerm(table[term.field], term.value, term.equal))
    return FieldSelector(tuple(terms))


def _pod_ips(obj: Object) -> str:
    return ",".join(entry.get("ip", "") for entry in (obj.get("status") or {}).get("podIPs") or ())


def _event_source(obj: Object) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    return str(source.get("component") or field_value(obj, "reportingComponent"))


def _unschedulable(obj: Object) -> str:
    return _text((obj.get("spec") or {}).get("unschedulable", False))


def _host_network(obj: Object) -> str:
    return _text((obj.get("spec") or {}).get("hostNetwork", False))


def _count(part: str) -> Callable[[Object], str]:
    return lambda obj: str((obj.get("status") or {}).get(part, 0))


# Fields that are not simply the text at a path.
_COMPUTED: dict[str, Callable[[Object], str]] = {
    "status.podIPs": _pod_ips,
    "source": _event_source,
    "spec.unschedulable": _unschedulable,
    "spec.hostNetwork": _host_network,
    "status.successful": _count("succeeded"),
}
# An event is the same object in two groups, which name some of its fields differently.
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "regarding": "involvedObject",
    "reportingComponent": "reportingController",
    "reportingController": "reportingComponent",
}
_ZERO_WHEN_ABSENT = {"ReplicationController": {"status.replicas"}}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def field_value(obj: Object, field: str) -> str:
    """The text of a selectable field of an object, empty where there is nothing."""
    if field == _NAME:
        return str(obj.get("metadata", {}).get("name", ""))
    computed = _COMPUTED.get(field)
    if computed is not None:
        return computed(obj)
    value: Any = obj
    for i, step in enumerate(field.split(".")):
        name = step if i or step in obj else _EVENT_NAMES.get(step, step)
        value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return "0" if field in _ZERO_WHEN_ABSENT.get(obj.get("kind", ""), ()) else ""
    return _text(value)
