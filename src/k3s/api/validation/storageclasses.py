"""Rules for storage classes, attachments and what CSI drivers tell of themselves (storage.k8s.io).

Source: the storage API documentation; order and wording as upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation.causes import (
    NEGATIVE,
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    one_of,
    required,
    selector,
    too_long,
    unchanged,
)
from k3s.api.validation.persistent import inline_volume

Spec = Mapping[str, Any]
_PARAMETERS_SIZE = 256 * 1024
_PARAMETERS_COUNT = 512
_ERROR_LENGTH = 1024
_NODE_ID_LENGTH = 256
_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_MODES = ("Persistent", "Ephemeral")
_MOST_SECONDS = 1 << 32


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def storage_class(obj: Object) -> Causes:
    """A storage class."""
    yield from _provisioner("provisioner", obj.get("provisioner", ""))
    yield from _parameters("parameters", obj.get("parameters") or {})
    yield from one_of("reclaimPolicy", obj.get("reclaimPolicy", "Delete"), ("Delete", "Retain"))
    binding = obj.get("volumeBindingMode")
    if binding is None:
        yield required("volumeBindingMode")
    else:
        yield from one_of("volumeBindingMode", binding, ("Immediate", "WaitForFirstConsumer"))
    yield from _topologies("allowedTopologies", obj.get("allowedTopologies") or ())


def storage_class_update(old: Object, new: Object) -> Causes:
    """A changed storage class: what it does to volumes stays."""
    for name in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        yield from unchanged(name, old.get(name) or None, new.get(name) or None)


def _provisioner(at: str, name: str) -> Causes:
    if not name:
        yield required(at)
    else:
        yield from each(at, name, names.qualified_name(name.lower()))


def _parameters(at: str, parameters: Spec) -> Causes:
    if len(parameters) > _PARAMETERS_COUNT:
        yield too_long(at, _PARAMETERS_COUNT)
        return
    for key in parameters:
        if not key:
            yield invalid(at, key, "field can not be empty.")
    if sum(len(key) + len(value) for key, value in parameters.items()) > _PARAMETERS_SIZE:
        yield too_long(at, _PARAMETERS_SIZE)


def _topologies(at: str, terms: Any) -> Causes:
    seen: list[dict[str, set[str]]] = []
    for i, term in enumerate(terms):
        chosen: dict[str, set[str]] = {}
        here = f"{at}[{i}].matchLabelExpressions"
        for j, rule in enumerate(term.get("matchLabelExpressions") or ()):
            key, values = rule.get("key", ""), rule.get("values") or ()
            if not values:
                yield required(f"{here}[{j}].values")
            known: set[str] = set()
            for k, value in enumerate(values):
                if value in known:
                    yield duplicate(f"{here}[{j}].values[{k}]", value)
                known.add(value)
            yield from each(f"{here}[{j}].key", key, names.qualified_name(key))
            if key in chosen:
                yield duplicate(f"{here}[{j}].key", key)
            chosen[key] = known
        if chosen in seen:
            yield duplicate(here, "")
        seen.append(chosen)


def driver_name(at: str, name: str) -> Causes:
    """The name of a CSI driver: a short domain, in any case."""
    if not name:
        yield required(at)
        return
    if len(name) > 63:
        yield too_long(at, 63)
    yield from each(at, name, names.dns_subdomain(name.lower()))


def csi_driver(obj: Object) -> Causes:
    """A CSI driver."""
    spec = _spec(obj)
    yield from one_of("spec.fsGroupPolicy", spec.get("fsGroupPolicy", "File"), _POLICIES)
    yield from _tokens("spec.tokenRequests", spec.get("tokenRequests") or ())
    for mode in spec.get("volumeLifecycleModes") or ():
        yield from one_of("spec.volumeLifecycleModes", mode, _MODES)
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        why = "must be greater than or equal to 10 seconds"
        yield invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, why)
    hidden = spec.get("serviceAccountTokenInSecrets")
    if hidden is not None and not spec.get("tokenRequests"):
        why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        yield invalid("spec.serviceAccountTokenInSecrets", hidden, why)


def _tokens(at: str, requests: Any) -> Causes:
    seen: set[str] = set()
    for i, token in enumerate(requests):
        audience, seconds = token.get("audience", ""), token.get("expirationSeconds")
        if audience in seen:
            yield duplicate(f"{at}[{i}].audience", audience)
            continue
        seen.add(audience)
        if seconds is not None and seconds < 600:
            yield invalid(f"{at}[{i}].expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
        if seconds is not None and seconds > _MOST_SECONDS:
            why = "may not specify a duration larger than 2^32 seconds"
            yield invalid(f"{at}[{i}].expirationSeconds", seconds, why)


def csi_driver_update(old: Object, new: Object) -> Causes:
    """Whether it attaches, and what its volumes are, stays."""
    yield from csi_driver(new)
    before, after = _spec(old), _spec(new)
    yield from unchanged("spec.attachedRequired", before.get("attachRequired"), after.get("attachRequired"))
    for name in ("volumeLifecycleModes",):
        yield from unchanged(f"spec.{name}", before.get(name), after.get(name))


def csi_node(obj: Object) -> Causes:
    """The CSI drivers of a node."""
    seen: set[str] = set()
    for i, driver in enumerate(_spec(obj).get("drivers") or ()):
        at, name, node = f"spec.drivers[{i}]", driver.get("name", ""), driver.get("nodeID", "")
        yield from driver_name(f"{at}.name", name)
        if not node:
            yield required(f"{at}.nodeID")
        elif len(node) > _NODE_ID_LENGTH:
            yield invalid(f"{at}.nodeID", node, f"must be {_NODE_ID_LENGTH} characters or less")
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None and count < 0:
            yield invalid(f"{at}.allocatable.count", count, NEGATIVE)
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)
        keys: set[str] = set()
        for key in driver.get("topologyKeys") or ():
            if not key:
                yield required(at)
            if key in keys:
                yield duplicate(at, key)
            keys.add(key)
            yield from each(at, key, names.qualified_name(key))


def csi_node_update(old: Object, new: Object) -> Causes:
    """A driver of a node stays as it is, but for what it can take."""
    yield from csi_node(new)
    before, after = (
        [{**driver, "allocatable": None} for driver in _spec(obj).get("drivers") or ()] for obj in (old, new)
    )
    for was in before:
        for now in after:
            if was.get("name") == now.get("name"):
                yield from unchanged("spec.drivers", was, now)


def attachment(obj: Object) -> Causes:
    """The wish to attach a volume to a node."""
    spec, status = _spec(obj), obj.get("status") or {}
    yield from driver_name("spec.attacher", spec.get("attacher", ""))
    source = spec.get("source") or {}
    volume, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if volume is None and inline is None:
        yield required("spec.source", why)
    elif volume is not None and inline is not None:
        yield forbidden("spec.source", why)
    elif volume == "":
        yield required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
    elif inline is not None:
        yield from inline_volume("spec.source.inlineVolumeSpec", inline)
    yield from each("spec.nodeName", spec.get("nodeName", ""), names.dns_subdomain(spec.get("nodeName", "")))
    if volume is not None:
        yield from each("spec.source.persistentVolumeName", volume, names.dns_subdomain(volume))
    known = status.get("attachmentMetadata") or {}
    if sum(len(key) + len(value) for key, value in known.items()) > _PARAMETERS_SIZE:
        yield too_long("status.attachmentMetadata", _PARAMETERS_SIZE)
    for part in ("attachError", "detachError"):
        yield from _error(f"status.{part}", status.get(part))


def _error(at: str, error: Spec | None) -> Causes:
    if error is None:
        return
    if len(error.get("message", "").encode()) > _ERROR_LENGTH:
        yield too_long(f"{at}.message", _ERROR_LENGTH)
    if error.get("errorCode", 0) < 0:
        yield invalid(f"{at}.errorCode", error["errorCode"], "must be between 0 and 2147483647, inclusive")


def attachment_update(old: Object, new: Object) -> Causes:
    """The spec of an attachment stays."""
    yield from attachment(new)
    yield from unchanged("spec", old.get("spec"), new.get("spec"))


def capacity(obj: Object) -> Causes:
    """How much a storage class has left."""
    yield from selector("nodeTopology", obj.get("nodeTopology"))
    name = obj.get("storageClassName", "")
    yield from each("storageClassName", name, names.dns_subdomain(name))
    if "capacity" in obj and quantity.compare(obj["capacity"], "0") < 0:
        yield invalid("capacity", obj["capacity"], NEGATIVE)


def capacity_update(old: Object, new: Object) -> Causes:
    """What was asked about stays."""
    for name in ("nodeTopology", "storageClassName"):
        yield from unchanged(name, old.get(name), new.get(name))


def attributes_class(obj: Object) -> Causes:
    """A class of volume attributes."""
    yield from _provisioner("spec.driverName", obj.get("driverName", ""))
    parameters = obj.get("parameters") or {}
    yield from _parameters("spec.parameters", parameters)
    if not parameters:
        yield required("spec.parameters", "must contain at least one key/value pair")


def attributes_class_update(old: Object, new: Object) -> Causes:
    """Driver and parameters stay."""
    yield from attributes_class(new)
    for name in ("driverName", "parameters"):
        if (old.get(name) or None) != (new.get(name) or None):
            yield forbidden(name, f"updates to {name} are forbidden.")
