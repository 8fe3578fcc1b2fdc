"""Rules for the metadata of every object. Source: API conventions, ObjectMeta and OwnerReference."""

from __future__ import annotations

from collections.abc import Callable

from k3s.api import names
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation.causes import Causes, duplicate, each, forbidden, invalid, labels, required, too_long

_ANNOTATIONS_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")

# Kinds whose names follow another rule than a DNS subdomain.
_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "namespaces": names.dns_label,
    "services": names.dns1035_label,
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
    "apiservices.apiregistration.k8s.io": names.path_segment,
    "certificatesigningrequests.certificates.k8s.io": names.dns_subdomain,
    "ipaddresses.networking.k8s.io": lambda name: [],
    "events": names.path_segment,
    "events.events.k8s.io": names.path_segment,
}


def name_rule(kind: Kind) -> Callable[[str], list[str]]:
    """What a name of this kind has to look like."""
    return _NAME_RULES.get(kind.qualified, names.dns_subdomain)


def create(kind: Kind, obj: Object) -> Causes:
    """The metadata of a new object."""
    meta = obj.get("metadata") or {}
    rule = name_rule(kind)
    prefix, name = meta.get("generateName", ""), meta.get("name", "")
    if prefix:
        yield from each("metadata.generateName", prefix, rule(names.generate_name_base(prefix)))
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from each("metadata.name", name, rule(name))
    yield from common(obj)


def common(obj: Object) -> Causes:
    """What holds for the metadata of a new and of a changed object."""
    meta = obj.get("metadata") or {}
    if meta.get("generation", 0) < 0:
        yield invalid("metadata.generation", meta["generation"], "must be greater than or equal to 0")
    yield from labels("metadata.labels", meta.get("labels"))
    yield from annotation_keys("metadata.annotations", meta.get("annotations"))
    yield from _owners(obj)
    for i, finalizer in enumerate(meta.get("finalizers") or ()):
        yield from each("metadata.finalizers", finalizer, names.qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(f"metadata.finalizers[{i}]", finalizer, text)


def annotation_keys(field: str, values: dict[str, str] | None) -> Causes:
    """Keys of annotations, without regard to case, and the size of all of them."""
    size = 0
    for key, value in (values or {}).items():
        yield from each(field, key, names.qualified_name(key.lower()))
        size += len(key) + len(value)
    if size > _ANNOTATIONS_LIMIT:
        yield too_long(field, _ANNOTATIONS_LIMIT)


def _owners(obj: Object) -> Causes:
    owners = (obj.get("metadata") or {}).get("ownerReferences") or []
    field = "metadata.ownerReferences"
    first = None
    for owner in owners:
        group, _, version = owner.get("apiVersion", "").rpartition("/")
        if not version:
            yield invalid(f"{field}.apiVersion", owner.get("apiVersion", ""), "version must not be empty")
        for part in ("kind", "name", "uid"):
            if not owner.get(part):
                yield invalid(f"{field}.{part}", owner.get(part, ""), "must not be empty")
        if owner.get("kind") == "Event" and version == "v1" and group in ("", "events.k8s.io"):
            yield invalid(field, owner, f"{group}/v1, Kind=Event is disallowed from being an owner")
        if not owner.get("controller"):
            continue
        here = f"{owner.get('kind', '')}/{owner.get('name', '')}"
        if first is not None:
            text = "Only one reference can have Controller set to true. "
            yield invalid(field, owners, f'{text}Found "true" in references for {first} and {here}')
        first = first or here


def finalizer_names(field: str, finalizers: list[str] | None) -> Causes:
    """The finalizers in the spec of a namespace."""
    for i, finalizer in enumerate(finalizers or ()):
        yield from each(f"{field}[{i}]", finalizer, names.qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(f"{field}[{i}]", finalizer, text)


def unique(field: str, values: list[str]) -> Causes:
    """No value twice; the second one is at fault."""
    seen: set[str] = set()
    for i, value in enumerate(values):
        if value in seen:
            yield duplicate(f"{field}[{i}]", value)
        seen.add(value)


def only_adds(field: str, old: list[str] | None, new: list[str] | None) -> Causes:
    """While an object is being deleted, finalizers may only go."""
    extra = sorted(set(new or ()) - set(old or ()))
    if extra:
        yield forbidden(field, f"no new finalizers can be added if the object is being deleted, found new: {extra}")
