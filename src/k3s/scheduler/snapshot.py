"""Nodes with the pods on them and what those use, as values: assuming or forgetting a pod gives a new snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from k3s.api import object as objects
from k3s.api import quantity
from k3s.api.object import Object

# Requests of containers that name none, for scoring only (upstream: GetNonzeroRequests).
_DEFAULT_CPU_MILLI = 100
_DEFAULT_MEMORY = 200 * 1024 * 1024

Port = tuple[str, str, int]  # address, protocol, number


@dataclass(frozen=True)
class PodFacts:
    """What placing asks of a pod, computed once per version of it."""

    obj: Object

    @cached_property
    def key(self) -> str:
        return objects.key(self.obj)

    @cached_property
    def spec(self) -> Object:
        return self.obj["spec"]  # type: ignore[no-any-return]

    @cached_property
    def labels(self) -> Mapping[str, str]:
        return objects.labels(self.obj)

    @cached_property
    def priority(self) -> int:
        return int(self.spec.get("priority") or 0)

    @cached_property
    def requests(self) -> Mapping[str, int]:
        """Units by resource, thousandths for cpu; as upstream sums containers, sidecars, init containers, overhead."""
        return pod_requests(self.spec)

    @cached_property
    def scored(self) -> tuple[int, int]:
        """CPU (thousandths) and memory (bytes) for scoring: containers without requests count with a default."""
        cpu = memory = 0
        for container in self.spec.get("containers", ()):
            asked = container.get("resources", {}).get("requests") or {}
            cpu += _units("cpu", asked["cpu"]) if "cpu" in asked else _DEFAULT_CPU_MILLI
            memory += _units("memory", asked["memory"]) if "memory" in asked else _DEFAULT_MEMORY
        return cpu, memory

    @cached_property
    def ports(self) -> frozenset[Port]:
        return frozenset(
            (port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), port["hostPort"])
            for container in self.spec.get("containers", ())
            for port in container.get("ports") or ()
            if port.get("hostPort")
        )

    def affinity(self, kind: str, strength: str) -> list[Any]:
        """The terms of `podAffinity`, `podAntiAffinity` (`required` or `preferred`)."""
        found = objects.get(self.spec, "affinity", kind, f"{strength}DuringSchedulingIgnoredDuringExecution")
        return found or []

    @cached_property
    def has_affinity(self) -> bool:
        affinity = self.spec.get("affinity") or {}
        return bool(affinity.get("podAffinity") or affinity.get("podAntiAffinity"))


def _amounts(resources: Mapping[str, Any] | None) -> dict[str, int]:
    asked = (resources or {}).get("requests") or {}
    return {name: _units(name, amount) for name, amount in asked.items()}


def _units(name: str, amount: Any) -> int:
    """Thousandths of cpu, whole units of all else; at most what 64 bits hold, as upstream: scores divide by it."""
    units = quantity.milli(amount) if name == "cpu" else quantity.value(amount)
    return min(units, quantity.MAX_INT64)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def pod_requests(spec: Object) -> dict[str, int]:
    """What a pod asks of its node: the larger of its containers together and each init container, plus overhead.

    Sidecars (init containers that restart always) count with the containers and with the init containers after them
    (KEP-753).
    """
    running: dict[str, int] = {}
    for container in spec.get("containers", ()):
        _add(running, _amounts(container.get("resources")))
    sidecars: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container.get("resources"))
        if container.get("restartPolicy") == "Always":
            _add(sidecars, amounts)
            amounts = {}
        together = dict(sidecars)
        _add(together, amounts)
        largest = {n: max(largest.get(n, 0), together.get(n, 0)) for n in {*largest, *together}}
    _add(running, sidecars)
    total = {n: max(running.get(n, 0), largest.get(n, 0)) for n in {*running, *largest}}
    for name, amount in _amounts(spec.get("resources")).items():
        total[name] = amount
    _add(total, _amounts({"requests": spec.get("overhead")}))
    return total


@dataclass(frozen=True)
class NodeFacts:
    """A node and the pods on it, with what they use together."""

    obj: Object
    pods: Mapping[str, PodFacts] = field(default_factory=dict)
    requested: Mapping[str, int] = field(default_factory=dict)
    scored: tuple[int, int] = (0, 0)

    @cached_property
    def name(self) -> str:
        return objects.name(self.obj)

    @cached_property
    def labels(self) -> Mapping[str, str]:
        return objects.labels(self.obj)

    @cached_property
    def taints(self) -> list[Object]:
        return self.obj.get("spec", {}).get("taints") or []

    @cached_property
    def unschedulable(self) -> bool:
        return bool(self.obj.get("spec", {}).get("unschedulable"))

    @cached_property
    def allocatable(self) -> Mapping[str, int]:
        amounts = self.obj.get("status", {}).get("allocatable") or {}
        return {name: _units(name, amount) for name, amount in amounts.items()}

    @cached_property
    def images(self) -> Mapping[str, int]:
        found = self.obj.get("status", {}).get("images") or ()
        return {name: int(i.get("sizeBytes", 0)) for i in found for name in i.get("names") or ()}

    @cached_property
    def ports(self) -> frozenset[Port]:
        return frozenset(port for pod in self.pods.values() for port in pod.ports)

    @cached_property
    def with_affinity(self) -> tuple[PodFacts, ...]:
        return tuple(pod for pod in self.pods.values() if pod.has_affinity)

    def holding(self, pods: Iterable[PodFacts]) -> NodeFacts:
        """The same node with exactly these pods."""
        held = {pod.key: pod for pod in pods}
        requested: dict[str, int] = {}
        cpu = memory = 0
        for pod in held.values():
            _add(requested, pod.requests)
            cpu, memory = cpu + pod.scored[0], memory + pod.scored[1]
        return NodeFacts(self.obj, held, requested, (cpu, memory))

    def with_pod(self, pod: PodFacts) -> NodeFacts:
        """The same node with one more pod (or a newer version of one)."""
        if pod.key in self.pods:
            return self.holding([*(p for p in self.pods.values() if p.key != pod.key), pod])
        requested = dict(self.requested)
        _add(requested, pod.requests)
        scored = (self.scored[0] + pod.scored[0], self.scored[1] + pod.scored[1])
        return NodeFacts(self.obj, {**self.pods, pod.key: pod}, requested, scored)

    def without(self, keys: Iterable[str]) -> NodeFacts:
        """The same node without these pods."""
        gone = set(keys)
        return self.holding(pod for key, pod in self.pods.items() if key not in gone)


@dataclass(frozen=True)
class Snapshot:
    """All nodes at one moment. Pods on a node that is not known (yet) wait in `strays`."""

    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    strays: Mapping[str, tuple[PodFacts, ...]] = field(default_factory=dict)

    def with_node(self, node: Object) -> Snapshot:
        """With a node added, or its newer version."""
        name = objects.name(node)
        old = self.nodes.get(name)
        pods = old.pods.values() if old else self.strays.get(name, ())
        facts = replace(old, obj=node) if old else NodeFacts(node).holding(pods)
        strays = {n: p for n, p in self.strays.items() if n != name} if name in self.strays else self.strays
        return Snapshot({**self.nodes, name: facts}, strays)

    def without_node(self, name: str) -> Snapshot:
        """Without a node; its pods become strays until they are gone, too."""
        old = self.nodes.get(name)
        if old is None:
            return self
        nodes = {n: facts for n, facts in self.nodes.items() if n != name}
        strays = {**self.strays, name: tuple(old.pods.values())} if old.pods else self.strays
        return Snapshot(nodes, strays)

    def with_pod(self, node: str, pod: PodFacts) -> Snapshot:
        """With a pod on a node: bound, or assumed to be."""
        if node in self.nodes:
            return Snapshot({**self.nodes, node: self.nodes[node].with_pod(pod)}, self.strays)
        held = tuple(p for p in self.strays.get(node, ()) if p.key != pod.key)
        return Snapshot(self.nodes, {**self.strays, node: (*held, pod)})

    def without_pod(self, node: str, key: str) -> Snapshot:
        """Without a pod that ended, went, or was not bound after all."""
        if node in self.nodes:
            if key not in self.nodes[node].pods:
                return self
            return Snapshot({**self.nodes, node: self.nodes[node].without([key])}, self.strays)
        held = tuple(p for p in self.strays.get(node, ()) if p.key != key)
        return Snapshot(self.nodes, {**self.strays, node: held})
