"""Rules for the metadata of every object. Source: API conventions, ObjectMeta and OwnerReference."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k3s.api import names
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.owners import MANAGER_LIMIT, strange_character
from k3s.api.validation.causes import (
    Cause,
    Causes,
    canonical_ip,
    duplicate,
    each,
    forbidden,
    invalid,
    labels,
    required,
    too_long,
)

_ANNOTATIONS_LIMIT = 256 * 1024
_SUBRESOURCE_LIMIT = 256
STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")

# Kinds whose names follow another rule than a DNS subdomain.
_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "namespaces": names.dns_label,
    "services": names.dns_label,
    "statefulsets.apps": names.dns_label,
    "roles.rbac.authorization.k8s.io": names.path_segment,
    "clusterroles.rbac.authorization.k8s.io": names.path_segment,
    "rolebindings.rbac.authorization.k8s.io": names.path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": names.path_segment,
    "apiservices.apiregistration.k8s.io": names.path_segment,
    "certificatesigningrequests.certificates.k8s.io": names.path_segment,
    "ipaddresses.networking.k8s.io": lambda name: _details(canonical_ip("", name)),
    "events": names.path_segment,
}


def _details(causes: Causes) -> list[str]:
    return [cause["message"].partition(": ")[2].partition(": ")[2] for cause in causes]


def name_rule(kind: Kind) -> Callable[[str], list[str]]:
    """What a name of this kind has to look like."""
    return _NAME_RULES.get(kind.qualified, names.dns_subdomain)


def create(kind: Kind, obj: Object) -> Causes:
    """The metadata of a new object."""
    meta = obj.get("metadata") or {}
    yield from _names("metadata", meta, name_rule(kind))
    yield from _all("metadata", meta)
    yield from _qualified(kind, meta)


def embedded(at: str, meta: Object) -> Causes:
    """The metadata of an object inside a custom one, which may do without a name."""
    yield from _names(at, meta if meta.get("name") else {**meta, "name": "x"}, names.path_segment)
    yield from _all(at, meta)


# Kinds whose own rules see the metadata of a change not once as a change (U), but as that of a new object (A) too.
_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_POLICIES = (
    f"mutatingwebhookconfigurations.{_ADMISSION}",
    f"validatingwebhookconfigurations.{_ADMISSION}",
    f"mutatingadmissionpolicies.{_ADMISSION}",
    f"validatingadmissionpolicies.{_ADMISSION}",
    f"mutatingadmissionpolicybindings.{_ADMISSION}",
    f"validatingadmissionpolicybindings.{_ADMISSION}",
)
_OWN_RULES = {
    **dict.fromkeys(("configmaps", "secrets", "serviceaccounts", "pods"), "UA"),
    **dict.fromkeys(("persistentvolumeclaims", "namespaces", "nodes", "replicationcontrollers"), "AU"),
    **dict.fromkeys(
        (f"{kind}.{_RBAC}" for kind in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")), "AU"
    ),
    **dict.fromkeys((*_POLICIES, f"flowschemas.{_FLOW}", f"prioritylevelconfigurations.{_FLOW}"), "A"),
    "persistentvolumes": "AA",
    "limitranges": "A",
    "apiservices.apiregistration.k8s.io": "UA",
    "controllerrevisions.apps": "UA",
    "replicasets.apps": "AU",
    "certificatesigningrequests.certificates.k8s.io": "AU",
    "endpointslices.discovery.k8s.io": "A",
    "runtimeclasses.node.k8s.io": "AU",
    "storageclasses.storage.k8s.io": "AU",
    "volumeattachments.storage.k8s.io": "AA",
    "csinodes.storage.k8s.io": "A",
}


def told(kind: Kind) -> int:
    """How often rules of changes see the metadata of one: those of every kind, and the kind's own."""
    return 1 + _OWN_RULES.get(kind.qualified, "U").count("U")


def changed(kind: Kind, new: Object) -> list[Cause]:
    """The metadata of a changed object: told by the rules of every object, of every change and of its kind.

    A fault is told as often as rules find it: clients count causes.
    """
    meta = new.get("metadata") or {}
    whole = list(_all("metadata", meta))
    own = list(_qualified(kind, meta))
    if not whole and not own:
        return []
    change = [cause for cause in whole if not cause["field"].startswith(_ONLY_OF_NEW)]
    causes = whole + change
    for rules in _OWN_RULES.get(kind.qualified, "U"):
        causes += (whole if rules == "A" else change) + own
    return causes


_ONLY_OF_NEW = ("metadata.generation", "metadata.finalizers")


def _names(at: str, meta: Object, rule: Callable[[str], list[str]]) -> Causes:
    prefix, name = meta.get("generateName", ""), meta.get("name", "")
    if prefix:
        yield from each(f"{at}.generateName", prefix, rule(names.generate_name_base(prefix)))
    if not name:
        yield required(f"{at}.name", "name or generateName is required")
    else:
        yield from each(f"{at}.name", name, rule(name))


def _all(at: str, meta: Object) -> Causes:
    if meta.get("generation", 0) < 0:
        yield invalid(f"{at}.generation", meta["generation"], "must be greater than or equal to 0")
    yield from labels(f"{at}.labels", meta.get("labels"))
    yield from annotation_keys(f"{at}.annotations", meta.get("annotations"))
    yield from _owners(f"{at}.ownerReferences", meta.get("ownerReferences") or [])
    finalizers = meta.get("finalizers") or []
    for finalizer in finalizers:
        yield from each(f"{at}.finalizers", finalizer, names.qualified_name(finalizer))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        yield invalid(f"{at}.finalizers", finalizers, why)
    yield from _managers(f"{at}.managedFields", meta.get("managedFields") or ())


# Kinds whose rules do not know the finalizers of the API: there any name will do.
_ANY_FINALIZER = (
    "customresourcedefinitions.apiextensions.k8s.io",
    "apiservices.apiregistration.k8s.io",
    *_POLICIES,
)


def _qualified(kind: Kind, meta: Object) -> Causes:
    if not kind.custom and kind.qualified not in _ANY_FINALIZER:
        for i, finalizer in enumerate(meta.get("finalizers") or ()):
            yield from _finalizer(f"metadata.finalizers[{i}]", finalizer)


def _finalizer(field: str, finalizer: str) -> Causes:
    if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
        yield invalid(field, finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def _managers(field: str, entries: Iterable[Object]) -> Causes:
    """Names in the entries that a client wrote: all else about them was read, or ignored."""
    for i, entry in enumerate(entries):
        manager = entry.get("manager", "")
        if len(manager.encode()) > MANAGER_LIMIT:
            yield too_long(f"{field}[{i}].manager", MANAGER_LIMIT)
        strange = strange_character(manager)
        if strange:
            yield invalid(f"{field}[{i}].manager", manager, strange)
        if len(entry.get("subresource", "").encode()) > _SUBRESOURCE_LIMIT:
            yield too_long(f"{field}[{i}].subresource", _SUBRESOURCE_LIMIT)


def annotation_keys(field: str, values: dict[str, str] | None) -> Causes:
    """Keys of annotations, without regard to case, and the size of all of them."""
    size = 0
    for key, value in (values or {}).items():
        yield from each(field, key, names.qualified_name(key.lower()))
        size += len(key) + len(value)
    if size > _ANNOTATIONS_LIMIT:
        yield too_long(field, _ANNOTATIONS_LIMIT)


def _owners(field: str, owners: list[Object]) -> Causes:
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
    """The finalizers in the spec of a new namespace; messages do not say which of them."""
    for finalizer in finalizers or ():
        yield from each(field, finalizer, names.qualified_name(finalizer))
        yield from _finalizer(field, finalizer)


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
