"""What must be true once nothing goes wrong any more: what is wanted is there, and nobody writes without need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from k3s.api import object as objects
from k3s.api.kinds import REGISTRY, Kind, builtin
from k3s.api.object import Object, decode
from k3s.api.selectors import from_object
from k3s.store.interface import Event

if TYPE_CHECKING:
    from k3s.sim.cluster import SimCluster

_POD = builtin("v1", "Pod")
_NODE = builtin("v1", "Node")
_SERVICE = builtin("v1", "Service")
_NAMESPACE = builtin("v1", "Namespace")
_ENDPOINTS = builtin("v1", "Endpoints")
_SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
_DEPLOYMENT = builtin("apps/v1", "Deployment")
_REPLICA_SET = builtin("apps/v1", "ReplicaSet")
_STATEFUL_SET = builtin("apps/v1", "StatefulSet")
_DAEMON_SET = builtin("apps/v1", "DaemonSet")
_JOB = builtin("batch/v1", "Job")
_FINISHED = ("Succeeded", "Failed")
_LOOK_S = 2.0
# So long all has to be well: what was seen just before a moment is told soon after it.
_STEADY_S = 60.0
# What a quiet cluster may write: leases, and a node's status every five minutes.
_LEASES, _NODES = "/registry/coordination.k8s.io/leases/", "/registry/core/nodes/"
_STATUS_S = 300.0


async def settle(cluster: SimCluster, within_s: float) -> None:
    """Waits until nothing is left to do; what is left after `within_s` virtual seconds is a finding."""
    end = cluster.clock.monotonic() + within_s
    good_since = cluster.clock.monotonic()
    while (now := cluster.clock.monotonic()) - good_since < _STEADY_S:
        found = problems(cluster)
        if found:
            good_since = now
        if found and now >= end:
            for key, what in found:
                cluster.findings.add("not stable", key, what)
            return
        await asyncio.sleep(_LOOK_S)


async def silence(cluster: SimCluster, for_s: float) -> None:
    """Listens for `for_s` virtual seconds; whoever writes more than heartbeats is a finding."""
    nodes: dict[str, int] = {}

    def heard(event: Event) -> None:
        if event.key.startswith(_NODES):
            nodes[event.key] = nodes.get(event.key, 0) + 1
        elif not event.key.startswith(_LEASES):
            cluster.findings.add("not silent", event.key, _difference(event))

    cluster.store.watchers.append(heard)
    await asyncio.sleep(for_s)
    cluster.store.watchers.remove(heard)
    for key, count in nodes.items():
        if count > 1 + for_s // _STATUS_S:
            cluster.findings.add("not silent", key, f"{count} writes in {for_s:g} s")


def _difference(event: Event) -> str:
    """What a write changed, in short."""
    old = decode(event.previous.value) if event.previous else {}
    new = decode(event.value) if event.value is not None else {}
    parts = [
        f"{part}.{name}: {(old.get(part) or {}).get(name)} -> {(new.get(part) or {}).get(name)}"
        for part in ("metadata", "spec", "status")
        for name in sorted({*(old.get(part) or {}), *(new.get(part) or {})} - {"managedFields"})
        if (old.get(part) or {}).get(name) != (new.get(part) or {}).get(name)
    ]
    return "; ".join(parts) or "a write that changes nothing"


class State:
    """The objects of the server's cache."""

    def __init__(self, cluster: SimCluster) -> None:
        assert cluster.server is not None
        self._cache = cluster.server.plane.api.cache
        self.pods = self.all(_POD)

    def all(self, kind: Kind) -> list[Object]:
        """Every object of a kind."""
        return self._cache.list(kind)

    def pods_of(self, owner: Object) -> list[Object]:
        """The pods that an object controls."""
        uid = objects.uid(owner)
        return [p for p in self.pods if (ref := objects.controller_of(p)) is not None and ref["uid"] == uid]


Problems = Iterator[tuple[str, str]]


def problems(cluster: SimCluster) -> list[tuple[str, str]]:
    """What is not yet as it is wanted: (key, what)."""
    if cluster.server is None or not cluster.server.serves:
        return [("server", "does not serve")]
    state = State(cluster)
    looks = (_nodes, _pods, _deployments, _replica_sets, _stateful_sets, _daemon_sets, _jobs)
    found = [problem for look in looks for problem in look(state)]
    found += [*_services(state), *_left(state), *_machines(cluster, state)]
    return found


def _nodes(state: State) -> Problems:
    for node in state.all(_NODE):
        if not _condition(node, "Ready"):
            yield objects.name(node), "is not ready"
        if node["spec"].get("taints"):
            yield objects.name(node), f"has taints {node['spec']['taints']}"


def _pods(state: State) -> Problems:
    for pod in state.pods:
        key, phase = objects.key(pod), pod.get("status", {}).get("phase")
        if objects.is_deleting(pod):
            yield key, "is being deleted"
        elif phase not in _FINISHED and not _condition(pod, "Ready"):
            yield key, f"is {phase} on {pod['spec'].get('nodeName')}, not ready"


def _status(obj: Object, wanted: dict[str, object]) -> Problems:
    status = obj.get("status") or {}
    off = {name: status.get(name, 0) for name, value in wanted.items() if status.get(name, 0) != value}
    if off:
        yield f"{obj['kind'].lower()} {objects.key(obj)}", f"status says {off}, wanted is {wanted}"


def _deployments(state: State) -> Problems:
    for one in state.all(_DEPLOYMENT):
        count = one["spec"]["replicas"]
        wanted = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
        yield from _status(one, {**wanted, "observedGeneration": one["metadata"]["generation"]})


def _replica_sets(state: State) -> Problems:
    for one in state.all(_REPLICA_SET):
        count = one["spec"]["replicas"]
        yield from _status(one, dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), count))
        live = [p for p in state.pods_of(one) if p["status"].get("phase") not in _FINISHED]
        if len(live) != count:
            yield objects.key(one), f"has {len(live)} pods, wanted are {count}"


def _stateful_sets(state: State) -> Problems:
    for one in state.all(_STATEFUL_SET):
        count = one["spec"]["replicas"]
        yield from _status(one, dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), count))
        names = sorted(objects.name(pod) for pod in state.pods_of(one))
        wanted = sorted(f"{objects.name(one)}-{number}" for number in range(count))
        if names != wanted:
            yield objects.key(one), f"has pods {names}, wanted are {wanted}"


def _daemon_sets(state: State) -> Problems:
    for one in state.all(_DAEMON_SET):
        nodes = sorted(objects.name(node) for node in state.all(_NODE))
        counts = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
        yield from _status(one, dict.fromkeys(counts, len(nodes)))
        there = sorted(pod["spec"].get("nodeName", "") for pod in state.pods_of(one))
        if there != nodes:
            yield objects.key(one), f"runs on {there}, wanted are {nodes}"


def _jobs(state: State) -> Problems:
    for one in state.all(_JOB):
        status, key = one.get("status") or {}, objects.key(one)
        if not _condition(one, "Complete") and not _condition(one, "Failed"):
            yield key, f"has not ended: {status}"
        elif _condition(one, "Complete") and status.get("succeeded") != one["spec"].get("completions", 1):
            yield key, f"is complete with {status.get('succeeded')} of {one['spec'].get('completions', 1)}"
        if status.get("active") or (status.get("uncountedTerminatedPods") or {}):
            yield key, f"still counts: {status}"


def _services(state: State) -> Problems:
    for service in state.all(_SERVICE):
        selector = service["spec"].get("selector")
        if not selector:
            continue
        match, space, key = from_object({"matchLabels": selector}), objects.namespace(service), objects.key(service)
        ready = sorted(
            pod["status"]["podIP"]
            for pod in state.pods
            if objects.namespace(pod) == space and match.matches(objects.labels(pod)) and _condition(pod, "Ready")
        )
        slices = [s for s in state.all(_SLICE) if objects.namespace(s) == space]
        mine = [s for s in slices if objects.labels(s).get("kubernetes.io/service-name") == objects.name(service)]
        ends = [end for piece in mine for end in piece.get("endpoints") or () if end["conditions"].get("ready")]
        told = sorted(address for end in ends for address in end["addresses"])
        if told != ready:
            yield f"service {key}", f"slices say {told}, ready are {ready}"
        old = next((e for e in state.all(_ENDPOINTS) if objects.key(e) == key), None)
        subsets = (old.get("subsets") or ()) if old else ()
        named = sorted(address["ip"] for subset in subsets for address in subset.get("addresses") or ())
        if named != ready:
            yield f"service {key}", f"endpoints say {named}, ready are {ready}"


def _left(state: State) -> Problems:
    """What should have gone: dying objects, objects of owners or namespaces that are gone."""
    every = [obj for kind in REGISTRY.stored() if kind.is_storage_version for obj in state.all(kind)]
    uids = {objects.uid(obj) for obj in every}
    spaces = {objects.name(space) for space in state.all(_NAMESPACE)}
    for obj in every:
        key = f"{obj['kind'].lower()} {objects.key(obj)}"
        if objects.is_deleting(obj) and obj["kind"] != "Pod":
            yield key, "is being deleted"
        if objects.namespace(obj) and objects.namespace(obj) not in spaces:
            yield key, "its namespace is gone"
        refs = objects.owner_refs(obj)
        if refs and not any(ref["uid"] in uids for ref in refs):
            yield key, f"its owners are gone: {[ref['name'] for ref in refs]}"


def _machines(cluster: SimCluster, state: State) -> Problems:
    """The nodes run what the API says, nothing else."""
    wanted = {objects.uid(pod): pod for pod in state.pods if pod.get("status", {}).get("phase") == "Running"}
    running = {container.pod_uid for found in cluster.running().values() for container in found}
    for uid in wanted.keys() - running:
        yield objects.key(wanted[uid]), "is Running in the API, and on no node"
    for node in cluster.nodes.values():
        for sandbox in node.runtime.ready_sandboxes():
            if sandbox.pod_uid not in wanted:
                yield f"{sandbox.namespace}/{sandbox.name}", f"runs on {node.name}, which it should not"


def _condition(obj: Object, name: str) -> bool:
    conditions: Iterable[Object] = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == name and c["status"] == "True" for c in conditions)
