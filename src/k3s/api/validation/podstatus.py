"""What the status of a pod may say, and what of it may change.

Source: the Pod API documentation; order and wording as upstream 1.36's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    internal,
    invalid,
    ip,
    is_ip,
    one_of,
    required,
    too_long,
    unchanged,
)

Spec = Mapping[str, Any]

_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
_NO_COUNT = "must be a non-negative integer"
_BOUND = "may not be set on pods that are already bound to a node"
_MESSAGE_BYTES = 1024
_STATUSES = {
    "containerStatuses": "containers",
    "initContainerStatuses": "initContainers",
    "ephemeralContainerStatuses": "ephemeralContainers",
}


def status(old: Object, new: Object) -> Causes:
    """The status of a pod: its class of service stays, what ended stays so, addresses are such."""
    before, found = old.get("status") or {}, new.get("status") or {}
    yield from _conditions(found.get("conditions") or ())
    nominated = found.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        yield from each("status.nominatedNodeName", nominated, names.dns_subdomain(nominated))
        if (old.get("spec") or {}).get("nodeName"):
            yield forbidden("status.nominatedNodeName", _BOUND)
    if found.get("observedGeneration", 0) < 0:
        yield invalid("status.observedGeneration", found["observedGeneration"], _NO_COUNT)
    if before.get("qosClass"):
        yield from unchanged("status.qosClass", before["qosClass"], found.get("qosClass", ""))
    yield from _transitions(old, new)
    yield from _claim_statuses("status.resourceClaimStatuses", new)
    yield from _extended(new)
    yield from _addresses(before, found)
    for part in _STATUSES:
        yield from _users(f"status.{part}", found.get(part) or (), new)
    for part, listed in _STATUSES.items():
        yield from _devices(f"status.{part}", found.get(part) or (), (new.get("spec") or {}).get(listed) or ())


def _conditions(conditions: Sequence[Spec]) -> Causes:
    for i, condition in enumerate(conditions):
        kind = condition.get("type", "")
        if condition.get("observedGeneration", 0) < 0:
            at = f"status.conditions[{i}].observedGeneration"
            yield invalid(at, condition["observedGeneration"], _NO_COUNT)
        if kind not in _SYSTEM_CONDITIONS:
            yield from each(f"status.conditions[{i}].Type", kind, names.qualified_name(kind))


def _transitions(old: Object, new: Object) -> Causes:
    """A container that is not started again stays terminated; one may have all of them started again."""
    spec = old.get("spec") or {}
    rules = [
        rule for part in _STATUSES.values() for c in spec.get(part) or () for rule in c.get("restartPolicyRules") or ()
    ]
    again = any(rule.get("action") == "RestartAllContainers" for rule in rules)
    for part, listed in _STATUSES.items():
        ephemeral = listed == "ephemeralContainers"
        if again and not ephemeral:
            continue
        own = {c.get("name"): c for c in spec.get(listed) or ()}
        now = {s.get("name"): s.get("state") or {} for s in (new.get("status") or {}).get(part) or ()}
        for i, was in enumerate((old.get("status") or {}).get(part) or ()):
            name, over = was.get("name"), (was.get("state") or {}).get("terminated")
            if over is None or name not in now or "terminated" in now[name]:
                continue
            if ephemeral or not _restarts(own.get(name), spec, over.get("exitCode", 0)):
                yield forbidden(f"status.{part}[{i}].state", "may not be transitioned to non-terminated state")


def _restarts(container: Spec | None, spec: Spec, code: int) -> bool:
    """Whether a container is started again after it ended so: by its rules, its own policy, or that of the pod."""
    if container is None:
        return False
    own = container.get("restartPolicy")
    for rule in container.get("restartPolicyRules") or () if own is not None else ():
        codes = rule.get("exitCodes")
        if codes is not None and (code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return True
    policy = own if own is not None else spec.get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _claim_statuses(field: str, pod: Object) -> Causes:
    known = {c.get("name") for c in (pod.get("spec") or {}).get("resourceClaims") or ()}
    seen: set[str] = set()
    for i, value in enumerate((pod.get("status") or {}).get("resourceClaimStatuses") or ()):
        at, name = f"{field}[{i}].name", value.get("name", "")
        if name not in known:
            yield invalid(at, name, "must match the name of an entry in `spec.resourceClaims`")
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)
        if value.get("resourceClaimName") is not None:
            here = f"{field}[{i}].resourceClaimName"
            yield from each(here, value["resourceClaimName"], names.dns_subdomain(value["resourceClaimName"]))


def _addresses(before: Spec, found: Spec) -> Causes:
    host = found.get("hostIPs") or ()
    yield from _families("status.podIPs", before.get("podIPs") or (), found.get("podIPs") or ())
    if host and found.get("hostIP", "") != host[0].get("ip", ""):
        yield invalid("status.hostIPs[0].ip", host[0].get("ip", ""), "must be equal to `hostIP`")
    yield from _families("status.hostIPs", before.get("hostIPs") or (), host)


def _families(at: str, before: Sequence[Spec], entries: Sequence[Spec]) -> Causes:
    """At most one address of each family; those that were there may be written in any way."""
    texts, known = [entry.get("ip", "") for entry in entries], {entry.get("ip") for entry in before}
    for i, text in enumerate(texts):
        if text not in known:
            yield from ip(f"{at}[{i}]", text)
    if len(texts) < 2:
        return
    bad = next((f"[{i}]: {text}" for i, text in enumerate(texts) if not is_ip(text)), None)
    if bad is not None:
        why = f"Internal error: failed to check for dual stack with error:invalid IP{bad}"
        yield {"reason": "InternalError", "message": why, "field": at}
    if bad is not None or len(texts) > 2 or len({":" in text for text in texts}) != 2:
        yield invalid(at, [internal(e) for e in entries], "may specify no more than one IP for each IP family")


def _extended(pod: Object) -> Causes:
    """The claim that the scheduler made for extended resources, and what of it each container has."""
    value = (pod.get("status") or {}).get("extendedResourceClaimStatus")
    if value is None:
        return
    at, spec = "status.extendedResourceClaimStatus", pod.get("spec") or {}
    known = {c.get("name"): c for part in ("initContainers", "containers") for c in spec.get(part) or ()}
    mappings = value.get("requestMappings") or ()
    if not mappings:
        yield required(f"{at}.requestMappings", "at least one request mapping is required")
    seen: set[tuple[str, ...]] = set()
    for i, mapping in enumerate(mappings):
        here = f"{at}.requestMappings[{i}]"
        key = tuple(mapping.get(field, "") for field in _MAPPED)
        container, resource, request = key
        if container not in known:
            why = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            yield invalid(f"{here}.containerName", container, why)
        elif resource not in ((known[container].get("resources") or {}).get("requests") or {}):
            why = "must match the extended resource name of an entry in "
            why += "spec.initContainers.resources.requests or spec.containers.resources.requests"
            yield invalid(f"{here}.resourceName", resource, why)
        yield from each(f"{at}.requestName", request, names.dns_label(request))
        if key in seen:
            yield from (duplicate(f"{here}.{field}", part) for field, part in zip(_MAPPED, key, strict=True))
        seen.add(key)
    claim = value.get("resourceClaimName", "")
    if not claim:
        yield required(f"{at}.resourceClaimName")
    else:
        yield from each(f"{at}.resourceClaimName", claim, names.dns_subdomain(claim))


_MAPPED = ("containerName", "resourceName", "requestName")


def _users(field: str, statuses: Sequence[Spec], pod: Object) -> Causes:
    """Who runs in the containers."""
    name = ((pod.get("spec") or {}).get("os") or {}).get("name", "linux")
    for i, value in enumerate(statuses):
        linux = (value.get("user") or {}).get("linux")
        at = f"{field}[{i}].user.linux"
        if linux is not None and name == "windows":
            yield forbidden(at, "cannot be set for a windows pod")
        elif linux is not None:
            ids = {"uid": linux.get("uid", 0), "gid": linux.get("gid", 0)}
            ids |= {f"supplementalGroups[{j}]": g for j, g in enumerate(linux.get("supplementalGroups") or ())}
            for part, number in ids.items():
                if not 0 <= number <= 2147483647:
                    yield invalid(f"{at}.{part}", number, "must be between 0 and 2147483647, inclusive")


def _devices(field: str, statuses: Sequence[Spec], containers: Sequence[Spec]) -> Causes:
    """How the devices of the containers do; ephemeral ones have none."""
    own = {c.get("name"): c.get("resources") or {} for c in containers}
    for i, value in enumerate(statuses):
        here, devices = f"{field}[{i}].allocatedResourcesStatus", value.get("allocatedResourcesStatus") or ()
        if devices and field.endswith("ephemeralContainerStatuses"):
            yield forbidden(here, "must not be specified in container status")
            continue
        for j, device in enumerate(devices):
            if value.get("name") in own:
                yield from _asked(f"{here}[{j}].name", device.get("name", ""), own[value.get("name")])
            seen: set[str] = set()
            for k, one in enumerate(device.get("resources") or ()):
                yield from _health(f"{here}[{j}].resources[{k}]", one)
                if one.get("resourceID", "") in seen:
                    yield duplicate(f"{here}[{j}].resources[{k}].resourceID", one.get("resourceID", ""))
                seen.add(one.get("resourceID", ""))


def _asked(at: str, name: str, resources: Spec) -> Causes:
    """A device is one that its container asked for: as a resource, or by a claim."""
    if not name.startswith("claim:"):
        if name not in (resources.get("requests") or {}):
            yield invalid(at, name, "must match one of the container's resource requests")
        return
    claims = {
        f"claim:{c.get('name', '')}/{c['request']}" if c.get("request") else f"claim:{c.get('name', '')}"
        for c in resources.get("claims") or ()
    }
    if name not in claims:
        why = "must match one of the container's resource claims in a format "
        why += "'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
        yield invalid(at, name, why)


def _health(at: str, one: Spec) -> Causes:
    yield from one_of(f"{at}.health", one.get("health", ""), ("Healthy", "Unhealthy", "Unknown"))
    message = one.get("message")
    if message == "":
        yield required(f"{at}.message", "must be non-empty if specified")
    elif message is not None and len(message.encode()) > _MESSAGE_BYTES:
        yield too_long(f"{at}.message", _MESSAGE_BYTES)
