"""APIService objects: those of group versions that this server has itself, and what the others say. Pure.

Source: the APIService documentation, and upstream's table of priorities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from k3s.api import object as objects
from k3s.api import times
from k3s.api.kinds import builtin, version_rank
from k3s.api.object import Object
from k3s.apiserver.services import SERVICE, pieces

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

API_SERVICE = builtin("apiregistration.k8s.io/v1", "APIService")
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"

# Group -> priority of the group, and of its versions where it is not 15.
_BUILT_IN: dict[str, tuple[int, dict[str, int]]] = {
    "": (18000, {"v1": 1}),
    "apiregistration.k8s.io": (18000, {"v1": 10}),
    "apps": (17800, {}),
    "events.k8s.io": (17750, {}),
    "authentication.k8s.io": (17700, {}),
    "authorization.k8s.io": (17600, {}),
    "autoscaling": (17500, {"v2": 30}),
    "batch": (17400, {}),
    "certificates.k8s.io": (17300, {}),
    "networking.k8s.io": (17200, {}),
    "policy": (17100, {}),
    "rbac.authorization.k8s.io": (17000, {}),
    "storage.k8s.io": (16800, {}),
    "apiextensions.k8s.io": (16700, {}),
    "admissionregistration.k8s.io": (16700, {}),
    "scheduling.k8s.io": (16600, {}),
    "coordination.k8s.io": (16500, {}),
    "node.k8s.io": (16300, {}),
    "discovery.k8s.io": (16200, {}),
    "resource.k8s.io": (16200, {"v1": 21}),
    "flowcontrol.apiserver.k8s.io": (16100, {"v1": 21}),
}
_CUSTOM = (1000, 100)
# The group of APIServices itself has none.
WITHOUT = "apiregistration.k8s.io"

#: Each group with its versions, the preferred one first.
Groups = Sequence[tuple[str, tuple[str, ...]]]
#: Status, reason and message of the condition Available.
Found = tuple[str, str, str]
LOCAL: Found = ("True", "Local", "Local APIServices are always available")
PASSED: Found = ("True", "Passed", "all checks passed")


def name_of(group: str, version: str) -> str:
    """The name of the APIService of a group version; `v1.` for the core group."""
    return f"{version}.{group}"


def priorities(group: str, version: str) -> tuple[int, int]:
    """The priority of a group and of its version that this server has itself."""
    known = _BUILT_IN.get(group)
    return _CUSTOM if known is None else (known[0], known[1].get(version, 15))


def own(group: str, version: str, managed: str) -> Object:
    """The APIService of a group version that this server has itself."""
    of_group, of_version = priorities(group, version)
    spec: Object = {"group": group} if group else {}
    spec |= {"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}
    meta = {"name": name_of(group, version), "labels": {MANAGED: managed}}
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": meta, "spec": spec}


def managed(obj: Object) -> str:
    """How this server looks after an APIService; empty for those that users made."""
    return objects.labels(obj).get(MANAGED, "")


def available(obj: Object) -> bool:
    """Whether the last check of an APIService went well."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Available" and c["status"] == "True" for c in conditions)


def told(obj: Object, found: Found, now: float) -> Object:
    """The APIService with the condition Available as it was found; itself when it says so already."""
    status, reason, message = found
    conditions = (obj.get("status") or {}).get("conditions") or []
    before = next((c for c in conditions if c["type"] == "Available"), None)
    new = {"type": "Available", "status": status, "reason": reason, "message": message}
    if before is not None and all(before.get(key) == value for key, value in new.items()):
        return obj
    same = before is not None and before["status"] == status
    new["lastTransitionTime"] = before["lastTransitionTime"] if before is not None and same else times.format(now)
    others = [c for c in conditions if c["type"] != "Available"]
    return {**obj, "status": {**(obj.get("status") or {}), "conditions": [*others, new]}}


def problem(reference: Object, reader: Reader) -> Found | None:
    """Why a Service cannot be asked, from what is known of it; None when it can."""
    namespace, name, port = reference.get("namespace", ""), reference.get("name", ""), reference.get("port") or 443
    shown = f'service/{name} in "{namespace}"'
    service = reader.get(SERVICE, namespace, name)
    if service is None:
        return "False", "ServiceNotFound", f"{shown} is not present"
    spec = service["spec"]
    if spec.get("type", "ClusterIP") != "ClusterIP":
        return None
    wanted = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if wanted is None:
        return "False", "ServicePortError", f"{shown} is not listening on port {port}"
    found = pieces(reader, namespace, name)
    if not found:
        return "False", "EndpointsNotFound", f"cannot find endpointslices for {shown}"
    port_name = wanted.get("name") or ""
    if not any(_ready(piece, port_name) for piece in found):
        return "False", "MissingEndpoints", f'endpointslices for {shown} have no addresses with port name "{port_name}"'
    return None


def _ready(piece: Object, port_name: str) -> bool:
    ready = any((e.get("conditions") or {}).get("ready") is not False for e in piece.get("endpoints") or ())
    return ready and any((p.get("name") or "") == port_name and p.get("port") for p in piece.get("ports") or ())


def groups(own: Groups, others: Mapping[tuple[str, str], Object]) -> Groups:
    """All groups with their versions in the order of discovery: `own` ones, and the APIServices' specs of `others`."""
    if not others:
        return own
    ranks = {(group, version): priorities(group, version) for group, versions in own for version in versions}
    for (group, version), spec in others.items():
        ranks[group, version] = (spec["groupPriorityMinimum"], spec["versionPriority"])
    versions_of: dict[str, list[str]] = {group: list(versions) for group, versions in own}
    for group, version in others:
        versions = versions_of.setdefault(group, [])
        if version not in versions:
            versions.append(version)
    for group in {group for group, _ in others}:
        versions_of[group].sort(key=lambda version: (-ranks[group, version][1], version_rank(version)))
    order = [group for group, _ in own]
    for group in sorted(versions_of.keys() - set(order)):
        mine = (-max(ranks[group, version][0] for version in versions_of[group]), group)
        at = next((i for i, other in enumerate(order) if mine < _rank(other, versions_of[other], ranks)), len(order))
        order.insert(at, group)
    return [(group, tuple(versions_of[group])) for group in order]


def _rank(group: str, versions: list[str], ranks: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[int, str]:
    # This group comes before all others, and the core group has a list of its own.
    first = group in ("", WITHOUT)
    return (-20000 if first else -max(ranks[group, version][0] for version in versions), group)
