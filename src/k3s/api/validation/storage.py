"""Rules for volumes, claims, storage classes and CSI objects. Source: the storage API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation import volumes
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    name_of,
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


def storage_class(obj: Object) -> Causes:
    """A storage class."""
    name = obj.get("provisioner", "")
    if not name:
        yield required("provisioner")
    else:
        yield from each("provisioner", name, names.qualified_name(name.lower()))
    for key in obj.get("parameters") or {}:
        if not key:
            yield invalid("parameters", key, "field can not be empty")
    yield from one_of("reclaimPolicy", obj.get("reclaimPolicy", "Delete"), ("Delete", "Retain"))
    binding = obj.get("volumeBindingMode")
    if binding is None:
        yield required("volumeBindingMode")
    else:
        yield from one_of("volumeBindingMode", binding, ("Immediate", "WaitForFirstConsumer"))


def storage_class_update(old: Object, new: Object) -> Causes:
    """A changed storage class: what it does to volumes stays."""
    yield from storage_class(new)
    if (old.get("parameters") or {}) != (new.get("parameters") or {}):
        yield forbidden("parameters", "updates to parameters are forbidden.")
    for name in ("provisioner", "reclaimPolicy", "volumeBindingMode"):
        yield from unchanged(name, old.get(name), new.get(name))


def csi_driver(obj: Object) -> Causes:
    """A CSI driver."""
    spec = _spec(obj)
    name = (obj.get("metadata") or {}).get("name", "")
    if len(name) > 63:
        yield invalid("name", name, "must be no more than 63 characters")
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    yield from one_of("spec.fsGroupPolicy", spec.get("fsGroupPolicy", "File"), policies)
    seen: set[str] = set()
    for i, token in enumerate(spec.get("tokenRequests") or ()):
        audience = token.get("audience", "")
        if audience in seen:
            yield duplicate(f"spec.tokenRequests[{i}].audience", audience)
        seen.add(audience)
    for mode in spec.get("volumeLifecycleModes") or ():
        yield from one_of("spec.volumeLifecycleModes", mode, ("Persistent", "Ephemeral"))


def csi_node(obj: Object) -> Causes:
    """The CSI drivers of a node."""
    seen: set[str] = set()
    for i, driver in enumerate(_spec(obj).get("drivers") or ()):
        at = f"spec.drivers[{i}]"
        name = driver.get("name", "")
        yield from name_of(f"{at}.name", name)
        if not driver.get("nodeID"):
            yield required(f"{at}.nodeID")
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None and count < 0:
            yield invalid(f"{at}.allocatable.count", count, "must be greater than or equal to 0")
        keys: set[str] = set()
        for key in driver.get("topologyKeys") or ():
            if not key:
                yield required(at, "topology key can not be empty")
                continue
            if key in keys:
                yield duplicate(at, key)
            yield from each(at, key, names.qualified_name(key))
            keys.add(key)
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)


def attachment(obj: Object) -> Causes:
    """The wish to attach a volume to a node."""
    spec = _spec(obj)
    for part in ("attacher", "nodeName"):
        if not spec.get(part):
            yield required(f"spec.{part}")
    source = spec.get("source") or {}
    if not source.get("persistentVolumeName") and not source.get("inlineVolumeSpec"):
        yield required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")


def attachment_update(old: Object, new: Object) -> Causes:
    """The spec of an attachment stays."""
    yield from attachment(new)
    yield from unchanged("spec", old.get("spec"), new.get("spec"))


def capacity(obj: Object) -> Causes:
    """How much a storage class has left."""
    if not obj.get("storageClassName"):
        yield required("storageClassName")
    if "capacity" in obj and quantity.compare(obj["capacity"], "0") < 0:
        yield invalid("capacity", obj["capacity"], "must be greater than or equal to 0")


def attributes_class(obj: Object) -> Causes:
    """A class of volume attributes."""
    if not obj.get("driverName"):
        yield required("driverName")
    if not obj.get("parameters"):
        yield required("parameters", "must contain at least one key/value pair")


def attributes_class_update(old: Object, new: Object) -> Causes:
    """Driver and parameters stay."""
    yield from attributes_class(new)
    for name in ("driverName", "parameters"):
        yield from unchanged(name, old.get(name), new.get(name))
