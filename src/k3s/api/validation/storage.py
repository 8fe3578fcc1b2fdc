"""Rules for volumes and claims. Source: the storage API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation import volumes
from k3s.api.validation.causes import (
    Causes,
    each,
    forbidden,
    invalid,
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
_SOURCES = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "fc",
    "cinder",
    "flocker",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def claim(obj: Object) -> Causes:
    """A claim."""
    yield from claim_spec("spec", _spec(obj))


def claim_spec(at: str, spec: Spec) -> Causes:
    """The spec of a claim."""
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{at}.accessModes", "at least 1 access mode is required")
    yield from selector(f"{at}.selector", spec.get("selector"))
    for mode in modes:
        yield from one_of(f"{at}.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        why = "may not use ReadWriteOncePod with other access modes"
        yield forbidden(f"{at}.accessModes", why)
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        yield required(f"{at}.resources[storage]")
    elif quantity.compare(size, "0") <= 0:
        yield invalid(f"{at}.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        yield from each(
            f"{at}.storageClassName", spec["storageClassName"], names.dns_subdomain(spec["storageClassName"])
        )
    if spec.get("volumeMode") is not None:
        yield from one_of(f"{at}.volumeMode", spec["volumeMode"], _VOLUME_MODES)


def claim_update(old: Object, new: Object) -> Causes:
    """A changed claim: only its size may grow once it is bound, and its volume be set once."""
    yield from claim(new)
    before, after = dict(_spec(old)), dict(_spec(new))
    was, now = ((s.get("resources") or {}).get("requests") or {} for s in (before, after))
    free = {"resources", "volumeAttributesClassName"}
    if not before.get("volumeName"):
        free.add("volumeName")
    if {k: v for k, v in before.items() if k not in free} != {k: v for k, v in after.items() if k not in free}:
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        yield forbidden("spec", why)
    sizes = was.get("storage"), now.get("storage")
    if sizes[0] is not None and sizes[1] is not None and quantity.compare(sizes[1], sizes[0]) < 0:
        yield forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def volume(obj: Object) -> Causes:
    """A persistent volume."""
    spec = _spec(obj)
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required("spec.accessModes")
    for mode in modes:
        yield from one_of("spec.accessModes", mode, _MODES)
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    if "storage" not in capacity or len(capacity) > 1:
        yield unsupported("spec.capacity", capacity, ("storage",))
    elif quantity.compare(capacity["storage"], "0") <= 0:
        yield invalid("spec.capacity[storage]", capacity["storage"], "must be greater than zero")
    policy = spec.get("persistentVolumeReclaimPolicy", "Retain")
    yield from one_of("spec.persistentVolumeReclaimPolicy", policy, ("Delete", "Recycle", "Retain"))
    needed = (spec.get("nodeAffinity") or {}).get("required")
    if needed is not None:
        yield from node_selector("spec.nodeAffinity.required", needed)
    given = [kind for kind in _SOURCES if kind in spec]
    if not given:
        yield required("spec", "must specify a volume type")
    for kind in given[1:]:
        yield forbidden(f"spec.{kind}", "may not specify more than 1 volume type")
    if given[:1] == ["hostPath"]:
        yield from volumes.host_path("spec.hostPath", spec["hostPath"])
    if given[:1] == ["local"] and not spec["local"].get("path"):
        yield required("spec.local.path")
    if given[:1] == ["local"] and not needed:
        yield required("spec.nodeAffinity", "Local volume requires node affinity")
    if given[:1] == ["csi"]:
        for part in ("driver", "volumeHandle"):
            if not spec["csi"].get(part):
                yield required(f"spec.csi.{part}")
    if spec.get("storageClassName"):
        name = spec["storageClassName"]
        yield from each("spec.storageClassName", name, names.dns_subdomain(name))
    if spec.get("volumeMode") is not None:
        yield from one_of("spec.volumeMode", spec["volumeMode"], _VOLUME_MODES)


def volume_update(old: Object, new: Object) -> Causes:
    """A changed volume: its source and its mode stay."""
    yield from volume(new)
    before, after = _spec(old), _spec(new)
    if {k: before.get(k) for k in _SOURCES} != {k: after.get(k) for k in _SOURCES}:
        yield forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
    yield from unchanged("volumeMode", before.get("volumeMode"), after.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        yield from unchanged("nodeAffinity", before.get("nodeAffinity"), after.get("nodeAffinity"))
