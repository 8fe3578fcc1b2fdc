"""Rules for persistent volumes and claims, new and changed. Source: the storage API documentation."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation import meta, structs, volumesources
from k3s.api.validation.causes import (
    IMMUTABLE,
    Causes,
    each,
    forbidden,
    internal,
    invalid,
    labels,
    one_of,
    required,
    selector,
    unchanged,
    unsupported,
)
from k3s.api.validation.scheduling import node_selector

Spec = Mapping[str, Any]
_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES = ("Block", "Filesystem")
_POLICIES = ("Delete", "Recycle", "Retain")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_CLAIM_FIXED = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)
_RESIZES = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)
# The order in which sources are looked at: of two, the later one is at fault.
_SOURCES = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)
# Labels of nodes that have a newer name, which may take their place in the affinity of a volume.
_NEWER = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def claim(obj: Object) -> Causes:
    """A claim."""
    yield from claim_spec("spec", _spec(obj))


_TEMPLATE_META = frozenset({"labels", "annotations", "creationTimestamp"})


def claim_template(at: str, template: Spec) -> Causes:
    """A claim that is made for a pod: of its metadata only labels and annotations count."""
    metadata = template.get("metadata") or {}
    yield from meta.annotation_keys(f"{at}.metadata.annotations", metadata.get("annotations"))
    yield from labels(f"{at}.metadata.labels", metadata.get("labels"))
    for field in metadata:
        if field not in _TEMPLATE_META and metadata[field]:
            yield forbidden(f"{at}.metadata.{'uID' if field == 'uid' else field}", "cannot be set")
    yield from claim_spec(f"{at}.spec", template.get("spec") or {})


def _modes(at: str, modes: Any) -> Causes:
    for mode in modes:
        yield from one_of(f"{at}.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and any(mode in _MODES[:3] for mode in modes):
        yield forbidden(f"{at}.accessModes", "may not use ReadWriteOncePod with other access modes")


def claim_spec(at: str, spec: Spec) -> Causes:
    """The spec of a claim."""
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{at}.accessModes", "at least 1 access mode is required")
    yield from selector(f"{at}.selector", spec.get("selector"))
    yield from _modes(at, modes)
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield required(f"{at}.resources[storage]")
    elif quantity.compare(size, "0") <= 0:
        yield invalid(f"{at}.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        name = spec["storageClassName"]
        yield from each(f"{at}.storageClassName", name, names.dns_subdomain(name))
    if spec.get("volumeMode") is not None:
        yield from one_of(f"{at}.volumeMode", spec["volumeMode"], _VOLUME_MODES)
    yield from _filled_from(at, spec)
    if spec.get("volumeAttributesClassName"):
        name = spec["volumeAttributesClassName"]
        yield from each(f"{at}.volumeAttributesClassName", name, names.dns_subdomain(name))


def _filled_from(at: str, spec: Spec) -> Causes:
    """What a claim's volume is filled from, said once or twice."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field, value in (("dataSource", source), ("dataSourceRef", reference)):
        if value is None:
            continue
        here, group = f"{at}.{field}", value.get("apiGroup") or ""
        for part in ("name", "kind"):
            if not value.get(part):
                yield required(f"{here}.{part}")
        if not group and value.get("kind") != "PersistentVolumeClaim":
            why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            yield invalid(here, value.get("kind", ""), why)
        if group:
            yield from each(f"{here}.apiGroup", group, names.dns_subdomain(group))
        if value.get("namespace"):
            yield from each(f"{here}.namespace", value["namespace"], names.dns_label(value["namespace"]))
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        why = "may not be specified when dataSourceRef.namespace is specified"
        yield invalid(at, f"{at}.dataSource", why)
    elif any(source.get(part) != reference.get(part) for part in ("apiGroup", "kind", "name")):
        yield invalid(at, f"{at}.dataSource", "must match dataSourceRef")


def claim_update(old: Object, new: Object) -> Causes:
    """A changed claim: only its size may grow once it is bound, and its volume be set once."""
    before, after = dict(_spec(old)), dict(_spec(new))
    was, now = ((s.get("resources") or {}).get("requests") or {} for s in (before, after))
    yield from claim(new)
    yield from _class_note(old, new)
    bound = (new.get("status") or {}).get("phase") == "Bound"
    if not before.get("volumeName") and after.get("volumeName"):
        before["volumeName"] = after["volumeName"]
    if before.get("storageClassName") is None and after.get("storageClassName") is not None:
        noted = (old["metadata"].get("annotations") or {}).get(_BETA_CLASS)
        if noted is None or noted == after["storageClassName"]:
            after.pop("storageClassName")
    if bound and now and "storage" in was:
        after["resources"] = {**after["resources"], "requests": {**now, "storage": was["storage"]}}
    if bound and after.get("volumeAttributesClassName") is not None:
        after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if {k: v for k, v in before.items() if v is not None} != {k: v for k, v in after.items() if v is not None}:
        changed = structs.difference("PersistentVolumeClaimSpec", before, after)
        yield forbidden("spec", f"{_CLAIM_FIXED}\n{changed}")
    size, old_size = now.get("storage", "0"), was.get("storage", "0")
    has = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
    if quantity.compare(size, old_size) < 0 and quantity.compare(size, has) <= 0:
        yield forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")
    yield from unchanged("volumeMode", _spec(old).get("volumeMode"), _spec(new).get("volumeMode"))
    yield from _attributes(old, new, "update from non-nil value to an empty string is forbidden")


def _class_note(old: Object, new: Object) -> Causes:
    """The annotation that once named the storage class stays, unless the field takes its place."""
    was, now = ((o["metadata"].get("annotations") or {}).get(_BETA_CLASS) for o in (old, new))
    if was == now:
        return
    moved = was is not None and now is None and _spec(old).get("storageClassName") is None
    if not (moved and _spec(new).get("storageClassName") == was):
        yield invalid(f"metadata.annotations.{_BETA_CLASS}", now or "", IMMUTABLE)


def _attributes(old: Object, new: Object, emptied: str) -> Causes:
    field = "spec.volumeAttributesClassName"
    was, now = (_spec(o).get("volumeAttributesClassName") for o in (old, new))
    if was is not None and now is None:
        yield forbidden(field, "update from non-nil value to nil is forbidden")
    elif was is not None and now == "" and was != now and emptied:
        yield forbidden(field, emptied)


def claim_status(obj: Object) -> Causes:
    """Sizes in the status of a claim."""
    found = obj.get("status") or {}
    for name, text in (found.get("capacity") or {}).items():
        yield from _basic(f"status.capacity[{name}]", text)
    at = "status.allocatedResourceStatus"
    for name, word in (found.get("allocatedResourceStatuses") or {}).items():
        yield from _resource_key(at, name)
        if word not in _RESIZES:
            yield unsupported(at, name, _RESIZES)
    for name, text in (found.get("allocatedResources") or {}).items():
        wrong = list(_resource_key("status.allocatedResources", name))
        yield from wrong or _basic(f"status.allocatedResources[{name}]", text)


def _basic(field: str, text: str) -> Causes:
    if quantity.value(text) < 0:
        yield invalid(field, quantity.value(text), "must be a valid resource quantity")


def _resource_key(field: str, name: str) -> Causes:
    problems = names.qualified_name(name)
    yield from each(field, name, problems)
    if not problems and ("/" not in name or "kubernetes.io/" in name) and name != "storage":
        yield unsupported(field, name, ("storage",))


_INLINE = "may not be specified in the context of inline volumes"


def volume(obj: Object) -> Causes:
    """A persistent volume."""
    spec = _spec(obj)
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required("spec.accessModes")
    yield from _modes("spec", modes)
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    if "storage" not in capacity or len(capacity) > 1:
        yield unsupported("spec.capacity", capacity or None, ("storage",))
    for name, text in capacity.items():
        yield from _basic(f"spec.capacity[{name}]", text)
        if quantity.compare(text, "0") <= 0:
            yield invalid(f"spec.capacity[{name}]", text, "must be greater than zero")
    policy = spec.get("persistentVolumeReclaimPolicy", "Retain")
    yield from one_of("spec.persistentVolumeReclaimPolicy", policy, _POLICIES)
    affinity = spec.get("nodeAffinity")
    if affinity is not None and affinity.get("required") is None:
        yield required("spec.nodeAffinity.required", "must specify required node constraints")
    elif affinity is not None:
        yield from node_selector("spec.nodeAffinity.required", affinity["required"])
    yield from _source(obj, spec)
    if policy == "Recycle" and posixpath.normpath((spec.get("hostPath") or {}).get("path") or ".") == "/":
        why = "may not be 'recycle' for a hostPath mount of '/'"
        yield forbidden("spec.persistentVolumeReclaimPolicy", why)
    if spec.get("storageClassName"):
        name = spec["storageClassName"]
        yield from each("spec.storageClassName", name, names.dns_subdomain(name))
    if spec.get("volumeMode") is not None:
        yield from one_of("spec.volumeMode", spec["volumeMode"], _VOLUME_MODES)
    yield from _attributes_class("spec", spec)


def _attributes_class(at: str, spec: Spec) -> Causes:
    name = spec.get("volumeAttributesClassName")
    if name is None:
        return
    if not name:
        yield required(f"{at}.volumeAttributesClassName", "an empty string is disallowed")
    else:
        yield from each(f"{at}.volumeAttributesClassName", name, names.dns_subdomain(name))
    if spec.get("csi") is None:
        yield required(f"{at}.csi", "has to be specified when using volumeAttributesClassName")


def inline_volume(at: str, spec: Spec) -> Causes:
    """A volume that is no object of its own, of a driver of the container storage interface."""
    for name in ("claimRef", "capacity"):
        if spec.get(name):
            yield forbidden(f"{at}.{name}", _INLINE)
    if spec.get("csi") is None:
        yield required(f"{at}.csi", "has to be specified in the context of inline volumes")
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{at}.accessModes")
    yield from _modes(at, modes)
    if spec.get("persistentVolumeReclaimPolicy", "Retain") != "Retain":
        yield forbidden(f"{at}.persistentVolumeReclaimPolicy", "may only be Retain in the context of inline volumes")
    if spec.get("nodeAffinity") is not None:
        yield forbidden(f"{at}.nodeAffinity", _INLINE)
    yield from volumesources.check(at, spec, _SOURCES, volumesources.OF_PERSISTENT)
    if spec.get("storageClassName"):
        yield forbidden(f"{at}.storageClassName", _INLINE)
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        why = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        yield forbidden(f"{at}.volumeMode", why)
    yield from _attributes_class(at, spec)


def _source(obj: Object, spec: Spec) -> Causes:
    """Where the data is. A volume that is of one node says of which."""
    iscsi = spec.get("iscsi") or {}
    portal = iscsi.get("targetPortal", "")
    name = (obj.get("metadata") or {}).get("name", "")
    if "initiatorName" in iscsi and len(f"{name}:{portal}") > 64:
        yield invalid("spec.iscsi.targetportal", portal, volumesources.ISCSI_LENGTH)
    yield from volumesources.check("spec", spec, _SOURCES, volumesources.OF_PERSISTENT)
    first = next((kind for kind in _SOURCES if spec.get(kind) is not None), "")
    if first == "local" and spec.get("nodeAffinity") is None:
        yield required("spec.nodeAffinity", "Local volume requires node affinity")


def volume_update(old: Object, new: Object) -> Causes:
    """A changed volume: its source and its mode stay."""
    yield from volume(new)
    before, after = _spec(old), _spec(new)
    was, now = ({k: s[k] for k in _SOURCES if s.get(k) is not None} for s in (before, after))
    csi, old_csi = now.get("csi"), was.get("csi")
    if csi and old_csi and "controllerExpandSecretRef" not in old_csi:
        now["csi"] = {key: value for key, value in csi.items() if key != "controllerExpandSecretRef"}
    if was != now:
        changed = structs.difference("PersistentVolumeSource", was, now)
        why = f"spec.persistentvolumesource is immutable after creation\n{changed}"
        yield forbidden("spec.persistentvolumesource", why)
    yield from unchanged("volumeMode", before.get("volumeMode"), after.get("volumeMode"))
    affinity, old_affinity = after.get("nodeAffinity"), before.get("nodeAffinity")
    if old_affinity is not None and _renamed(old_affinity, affinity) != affinity:
        why = f"{IMMUTABLE}, except for updating from beta label to GA"
        yield invalid("nodeAffinity", _shown(affinity), why)
    yield from _attributes(old, new, "")


def _renamed(old: Spec, new: Spec | None) -> Any:
    """The old affinity with the newer names of labels that the new one uses."""
    terms = ((old.get("required") or {}).get("nodeSelectorTerms")) or []
    now = (((new or {}).get("required") or {}).get("nodeSelectorTerms")) or []
    out = []
    for i, term in enumerate(terms):
        rules = term.get("matchExpressions") or []
        others = (now[i].get("matchExpressions") or []) if i < len(now) else []
        keys = [other.get("key") for other in others] + [None] * len(rules)
        changed = [
            {**rule, "key": keys[j]} if _NEWER.get(rule.get("key", "")) == keys[j] else rule
            for j, rule in enumerate(rules)
        ]
        out.append({**term, "matchExpressions": changed} if rules else term)
    return {**old, "required": {**(old.get("required") or {}), "nodeSelectorTerms": out}} if terms else old


def _shown(affinity: Spec | None) -> Any:
    if affinity is None:
        return None
    needed = affinity.get("required")
    parts = ("matchExpressions", "matchFields")
    terms = [
        internal({part: [internal(rule) for rule in term.get(part) or ()] or None for part in parts})
        for term in (needed or {}).get("nodeSelectorTerms") or ()
    ]
    return {"Required": None if needed is None else {"NodeSelectorTerms": terms}}
