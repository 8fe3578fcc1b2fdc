"""What objects use of a ResourceQuota, which quotas count them, and whether one more still fits. Pure.

Source: "Resource Quotas" in the Kubernetes documentation; texts as upstream's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from k3s.api import quantity, times
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.podamounts import add, amounts_of, parsed, pod_total
from k3s.api.qos import qos_class
from k3s.api.quantity import BINARY, Quantity
from k3s.api.validation.resources import is_extended, is_huge_page, is_native

Usage = dict[str, Quantity]
ONE = quantity.parse("1")
# A quota on one of these makes every container say how much it wants.
_DEMANDED = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
_MEASURED = ("cpu", "memory", "ephemeral-storage")
_MEASURES = frozenset(f"{part}{name}" for part in ("", "requests.", "limits.") for name in _MEASURED)
_POD_RESOURCES = _MEASURES | {"pods", "count/pods"}
_SERVICE_RESOURCES = frozenset({"services", "services.nodeports", "services.loadbalancers", "count/services"})
_CLAIM_RESOURCES = ("persistentvolumeclaims", "requests.storage")
_BY_CLASS = ".storageclass.storage.k8s.io/"
_CLASS_NOTE = "volume.beta.kubernetes.io/storage-class"
# Kinds that may be counted without "count/" before their name.
_PLAIN = frozenset({"configmaps", "secrets", "resourcequotas", "replicationcontrollers"})
_AFFINITIES = ("podAffinity", "podAntiAffinity")


class Exceeded(Exception):
    """Why a quota refuses; the text is upstream's."""


class Write(NamedTuple):
    """A write that may use something: what it makes of what (None: nothing was there), at `now`."""

    kind: Kind
    subresource: str
    old: Object | None
    new: Object
    now: float


# --- what is used


def usage(kind: Kind, obj: Object, now: float) -> Usage:
    """What an object uses, by the names that a quota may limit."""
    plural = kind.qualified
    if plural == "pods":
        return _pod_usage(obj, now)
    if plural == "services":
        return _service_usage(obj)
    if plural == "persistentvolumeclaims":
        return _claim_usage(obj)
    return dict.fromkeys(_counters(kind), ONE)


def counts(kind: Kind, names: Iterable[str]) -> list[str]:
    """Those of the names that are used by objects of a kind."""
    plural = kind.qualified
    if plural == "pods":
        return [name for name in names if name in _POD_RESOURCES or _is_device(name)]
    if plural == "services":
        return [name for name in names if name in _SERVICE_RESOURCES]
    if plural == "persistentvolumeclaims":
        ends = tuple(_BY_CLASS + name for name in _CLAIM_RESOURCES)
        mine = {*_CLAIM_RESOURCES, f"count/{plural}"}
        return [name for name in names if name in mine or name.endswith(ends)]
    counters = _counters(kind)
    return [name for name in names if name in counters]


def _counters(kind: Kind) -> tuple[str, ...]:
    plural = kind.qualified
    return (f"count/{plural}", plural) if plural in _PLAIN else (f"count/{plural}",)


def _is_device(name: str) -> bool:
    if is_huge_page(name) or name.startswith("requests.hugepages-"):
        return True
    return name.startswith("requests.") and not is_native(name)


def _pod_usage(pod: Object, now: float) -> Usage:
    """A pod that ended, or whose time to end is over, is only counted as an object."""
    if has_ended(pod, now):
        return {"count/pods": ONE}
    spec = pod["spec"]
    requests, limits = pod_total(spec, "requests"), pod_total(spec, "limits")
    overhead = parsed(spec.get("overhead"))
    add(requests, overhead)
    add(limits, {name: amount for name, amount in overhead.items() if limits.get(name)})
    return {"count/pods": ONE, **_compute(requests, limits)}


def has_ended(pod: Object, now: float) -> bool:
    """Whether a pod has ended, or has been given its time to."""
    meta = pod["metadata"]
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    grace = meta.get("deletionGracePeriodSeconds")
    return "deletionTimestamp" in meta and grace is not None and now > times.parse(meta["deletionTimestamp"]) + grace


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Usage:
    found = {"pods": ONE}
    for name in _MEASURED:
        if name in requests:
            found[name] = found[f"requests.{name}"] = requests[name]
        if name in limits:
            found[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if is_huge_page(name):
            found[name] = found[f"requests.{name}"] = amount
        elif is_extended(name):
            found[f"requests.{name}"] = amount
    return found


def _service_usage(service: Object) -> Usage:
    spec = service["spec"]
    ports = spec.get("ports") or []
    found = {"count/services": ONE, "services": ONE}
    found |= {"services.loadbalancers": quantity.ZERO, "services.nodeports": quantity.ZERO}
    if spec.get("type") == "LoadBalancer":
        found["services.loadbalancers"] = ONE
        if spec.get("allocateLoadBalancerNodePorts") is False:
            ports = [port for port in ports if port.get("nodePort")]
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        found["services.nodeports"] = quantity.parse(len(ports))
    return found


def _claim_usage(claim: Object) -> Usage:
    found = {"count/persistentvolumeclaims": ONE, "persistentvolumeclaims": ONE}
    asked = amounts_of(claim["spec"], "requests").get("storage")
    given = parsed((claim.get("status") or {}).get("allocatedResources")).get("storage")
    if asked is not None:
        if given is not None and given > asked:
            asked = given
        found["requests.storage"] = asked = Quantity(asked.value * quantity.NANO, asked.form)
    notes = claim["metadata"].get("annotations") or {}
    name = notes.get(_CLASS_NOTE, claim["spec"].get("storageClassName"))
    if name:
        found[f"{name}{_BY_CLASS}persistentvolumeclaims"] = ONE
        if asked is not None:
            found[f"{name}{_BY_CLASS}requests.storage"] = asked
    return found


# --- which quotas count it


def scopes(quota: Object) -> Iterator[Object]:
    """The scopes of a quota, as requirements."""
    spec = quota.get("spec") or {}
    for name in spec.get("scopes") or ():
        yield {"scopeName": name, "operator": "Exists"}
    yield from (spec.get("scopeSelector") or {}).get("matchExpressions") or ()


def matches(quota: Object, hard: Iterable[str], kind: Kind, obj: Object) -> bool:
    """Whether a quota with these limits counts an object."""
    return bool(counts(kind, hard)) and all(in_scope(scope, kind, obj) for scope in scopes(quota))


def in_scope(scope: Object, kind: Kind, obj: Object) -> bool:
    """Whether an object is in a scope."""
    name = scope.get("scopeName")
    if kind.qualified == "persistentvolumeclaims":
        return name == "VolumeAttributesClass" and _selected(scope, _attribute_classes(obj))
    if kind.qualified != "pods":
        return False
    spec = obj["spec"]
    if name in ("Terminating", "NotTerminating"):
        deadline = spec.get("activeDeadlineSeconds")
        return bool(deadline is not None and deadline >= 0) is (name == "Terminating")
    if name in ("BestEffort", "NotBestEffort"):
        return (qos_class(obj) == "BestEffort") is bool(name == "BestEffort")
    if name == "PriorityClass":
        own = spec.get("priorityClassName")
        return _selected(scope, {own} if own else set())
    return name == "CrossNamespacePodAffinity" and _looks_elsewhere(spec.get("affinity") or {})


def _selected(scope: Object, own: set[str]) -> bool:
    operator, values = scope.get("operator"), set(scope.get("values") or ())
    if operator == "Exists":
        return bool(own)
    if operator == "DoesNotExist":
        return not own
    if operator == "In":
        return bool(own & values)
    return not own or bool(own - values)


def _attribute_classes(claim: Object) -> set[str]:
    status = claim.get("status") or {}
    found = {
        claim["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    }
    return {name for name in found if name}


def _looks_elsewhere(affinity: Object) -> bool:
    for side in _AFFINITIES:
        rules = affinity.get(side) or {}
        terms = [*(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())]
        weighted = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [term.get("podAffinityTerm") or {} for term in weighted]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


# --- whether it fits


def handles(kind: Kind, operation: str, subresource: str) -> bool:
    """Whether such a write can use anything."""
    plural = kind.qualified
    if plural == "pods":
        return (operation, subresource) in (("CREATE", ""), ("UPDATE", "resize"))
    if plural == "services":
        return operation in ("CREATE", "UPDATE") and subresource == ""
    if plural == "persistentvolumeclaims":
        return operation in ("CREATE", "UPDATE") and subresource in ("", "status")
    return operation == "CREATE" and subresource == ""


def charged(quotas: Sequence[Object], write: Write) -> list[Object]:
    """The quotas as they are once a write took place; those that it does not concern are the same. Raises Exceeded."""
    kind, new = write.kind, write.new
    concerned = []
    for quota in quotas:
        hard = (quota.get("status") or {}).get("hard") or {}
        if matches(quota, hard, kind, new):
            _check_ready(quota, counts(kind, hard), write)
            concerned.append(quota["metadata"]["name"])
    if not concerned:
        return list(quotas)
    wanted = usage(kind, new, write.now)
    negative = sorted(name for name, amount in wanted.items() if amount.nano < 0)
    if negative:
        raise Exceeded(f"quota usage is negative for resource(s): {','.join(negative)}")
    return [_charged(q, wanted, write) if q["metadata"]["name"] in concerned else q for q in quotas]


def _check_ready(quota: Object, names: list[str], write: Write) -> None:
    name = quota["metadata"]["name"]
    if write.kind.qualified == "pods":
        missing = _unsaid(write.new["spec"], _DEMANDED & set(names))
        if missing:
            raise Exceeded(f"failed quota: {name}: must specify {missing}")
    used = quota["status"].get("used") or {}
    if any(resource not in used for resource in names):
        raise Exceeded(f"status unknown for quota: {name}, resources: {','.join(sorted(names))}")


def _unsaid(spec: Object, demanded: frozenset[str]) -> str:
    """Which containers leave out what a quota demands: `cpu for: a,b; memory for: a`."""
    if spec.get("resources"):
        whole = _compute(amounts_of(spec, "requests"), amounts_of(spec, "limits"))
        demanded = demanded.difference(whole)
    lacking: dict[str, set[str]] = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        said = _compute(amounts_of(container, "requests"), amounts_of(container, "limits"))
        for name in demanded.difference(said):
            lacking.setdefault(name, set()).add(str(container.get("name", "")))
    return "; ".join(f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))


def _charged(quota: Object, wanted: Usage, write: Write) -> Object:
    status = quota["status"]
    hard, used = parsed(status.get("hard")), parsed(status.get("used"))
    more = wanted
    if write.old is not None and matches(quota, hard, write.kind, write.old):
        before = usage(write.kind, write.old, write.now)
        more = {name: amount - before.get(name, quantity.ZERO) for name, amount in wanted.items()}
    more = {name: amount for name, amount in more.items() if name in hard and amount.nano > 0}
    if not more:
        return quota
    after = {name: used.get(name, quantity.ZERO) + amount for name, amount in more.items()}
    over = [name for name in sorted(more) if after[name] > hard[name]]
    if over and write.subresource != "status":
        raise Exceeded(
            f"exceeded quota: {quota['metadata']['name']}, requested: {_shown(over, more)}, "
            f"used: {_shown(over, used)}, limited: {_shown(over, hard)}"
        )
    told = {**(status.get("used") or {}), **{name: str(amount) for name, amount in after.items()}}
    return {**quota, "status": {**status, "used": told}}


def _shown(names: Iterable[str], amounts: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={amounts.get(name, quantity.ZERO)}" for name in names)


# --- what is used in all


def total(quota: Object, objects: Iterable[tuple[Kind, Sequence[Object]]], now: float) -> Usage:
    """What the objects of a namespace use of a quota: an amount, maybe zero, for each of its limits."""
    hard = parsed((quota.get("spec") or {}).get("hard"))
    used = {name: Quantity(0, BINARY if amount.form == BINARY else amount.form) for name, amount in hard.items()}
    for kind, found in objects:
        names = counts(kind, hard)
        if not names:
            continue
        for obj in found:
            if matches(quota, names, kind, obj):
                amounts = usage(kind, obj, now)
                add(used, {name: amounts[name] for name in names if name in amounts})
    return used
