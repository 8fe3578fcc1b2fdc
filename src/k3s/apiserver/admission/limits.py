"""LimitRanger: default requests and limits of containers, and the bounds of containers, pods and claims.

Source: "Limit Ranges" in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from k3s.api import quantity
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.api.podamounts import Amounts, pod_total
from k3s.api.quantity import Quantity
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, listed, refuse
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

LIMIT_RANGE = builtin("v1", "LimitRange")
ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanger(Plugin):
    """Applies every LimitRange of the namespace, in order of name."""

    name = "LimitRanger"
    resources = frozenset({"pods", "persistentvolumeclaims"})
    admits = frozenset({CREATE})
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def admit(self, request: AdmissionRequest) -> Object:
        obj = request.obj
        assert obj is not None
        if request.kind.plural != "pods" or request.subresource:
            return obj
        for limit_range in self._ranges(request.namespace):
            obj = with_defaults(obj, limit_range)
        return obj

    def validate(self, request: AdmissionRequest) -> None:
        obj = request.obj
        if obj is None or request.subresource or "deletionTimestamp" in obj["metadata"]:
            return
        is_pod = request.kind.plural == "pods"
        if is_pod and request.operation == UPDATE:
            return  # what a running pod may use does not change here
        for limit_range in self._ranges(request.namespace):
            problems = list(pod_problems(obj, limit_range) if is_pod else claim_problems(obj, limit_range))
            if problems:
                raise refuse(request, listed(problems))

    def _ranges(self, namespace: str) -> list[Object]:
        ranges = self._reader.list(LIMIT_RANGE, namespace)
        return sorted(ranges, key=lambda found: str(found["metadata"]["name"])) if ranges else []


def with_defaults(pod: Object, limit_range: Object) -> Object:
    """The pod with the default requests and limits that its containers lack, and a note of them; itself when none."""
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    for item in _items(limit_range, "Container"):
        limits |= item.get("default") or {}
        requests |= item.get("defaultRequest") or {}
    if not limits and not requests:
        return pod
    spec, notes = dict(pod["spec"]), []
    for field, title in (("containers", "container"), ("initContainers", "init container")):
        if spec.get(field):
            changed = [_filled(container, title, requests, limits) for container in spec[field]]
            spec[field] = [container for container, _ in changed]
            notes += [note for _, found in changed for note in found]
    if not notes:
        return pod
    annotations = {**(pod["metadata"].get("annotations") or {})}
    annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)
    return {**pod, "metadata": {**pod["metadata"], "annotations": annotations}, "spec": spec}


def _filled(container: Object, title: str, requests: Object, limits: Object) -> tuple[Object, list[str]]:
    resources = container.get("resources") or {}
    notes, new = [], dict(resources)
    for field, word, defaults in (("requests", "request", requests), ("limits", "limit", limits)):
        own = resources.get(field) or {}
        missing = {name: amount for name, amount in defaults.items() if name not in own}
        if missing:
            new[field] = {**own, **missing}
            notes.append(f"{', '.join(sorted(missing))} {word} for {title} {container.get('name', '')}")
    return ({**container, "resources": new}, notes) if notes else (container, [])


def pod_problems(pod: Object, limit_range: Object) -> Iterator[str]:
    """How a pod's containers, or their sums, break a limit range."""
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            for container in containers:
                yield from _problems(item, _amounts(container, "requests"), _amounts(container, "limits"))
        elif item.get("type") == "Pod":
            yield from _problems(item, pod_total(spec, "requests"), pod_total(spec, "limits"))


def claim_problems(claim: Object, limit_range: Object) -> Iterator[str]:
    """How a persistent volume claim's request breaks a limit range."""
    requests = _amounts(claim["spec"], "requests")
    for item in _items(limit_range, "PersistentVolumeClaim"):
        yield from _least(item, requests, {})
        for name, bound in _parsed(item.get("max")):
            start = f"maximum {name} usage per {item['type']} is {bound}"
            if name not in requests:
                yield f"{start}.  No request is specified"
            elif requests[name] > bound:
                yield f"{start}, but request is {requests[name]}"


def _problems(item: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    yield from _least(item, requests, limits)
    for name, bound in _parsed(item.get("max")):
        start = f"maximum {name} usage per {item['type']} is {bound}"
        if name not in limits:
            yield f"{start}.  No limit is specified"
        elif limits[name] > bound:
            yield f"{start}, but limit is {limits[name]}"
        elif name in requests and requests[name] > bound:
            yield f"{start}, but request is {requests[name]}"
    for name, bound in _parsed(item.get("maxLimitRequestRatio")):
        start = f"{name} max limit to request ratio per {item['type']} is {bound}"
        if not requests.get(name):
            yield f"{start}, but no request is specified or request is 0"
        elif not limits.get(name):
            yield f"{start}, but no limit is specified or limit is 0"
        elif limits[name].nano * quantity.NANO > bound.nano * requests[name].nano:
            yield f"{start}, but provided ratio is {limits[name].nano / requests[name].nano:f}"


def _least(item: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, bound in _parsed(item.get("min")):
        start = f"minimum {name} usage per {item['type']} is {bound}"
        if name not in requests:
            yield f"{start}.  No request is specified"
        elif requests[name] < bound:
            yield f"{start}, but request is {requests[name]}"
        elif name in limits and limits[name] < bound:
            yield f"{start}, but limit is {limits[name]}"


def _items(limit_range: Object, kind: str) -> Iterable[Object]:
    return [item for item in (limit_range.get("spec") or {}).get("limits") or () if item.get("type") == kind]


def _parsed(amounts: Object | None) -> Iterator[tuple[str, Quantity]]:
    for name in sorted(amounts or {}):
        yield name, quantity.parse((amounts or {})[name])


def _amounts(holder: Object, field: str) -> dict[str, Quantity]:
    return dict(_parsed((holder.get("resources") or {}).get(field)))
