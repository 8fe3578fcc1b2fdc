"""Worlds made of a list of objects, for tests of deciders; the indexes are the real ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k3s.api import object as objects
from k3s.api.kinds import REGISTRY, Kind
from k3s.api.object import Object
from k3s.controllers import known
from k3s.controllers.actions import Action, Decision, Parallel
from k3s.controllers.world import World, indexes

KINDS = [kind for kind in vars(known).values() if isinstance(kind, Kind)]


class Listed:
    """A Source over a fixed list of objects."""

    def __init__(self, kind: Kind, found: Iterable[Object]) -> None:
        self._objects = {objects.key(obj): obj for obj in found}
        self._indexes = indexes(kind)

    def get(self, key: str) -> Object | None:
        return self._objects.get(key)

    def values(self) -> Iterable[Object]:
        return self._objects.values()

    def index(self, name: str, value: str) -> list[Object]:
        return [obj for obj in self._objects.values() if value in self._indexes[name](obj)]


def world_of(*found: Object, failure: str = "", memory: Any = None, observed: Any = None) -> World:
    """A world of these objects, with every kind that controllers know."""
    by_kind: dict[Kind, list[Object]] = {kind: [] for kind in KINDS}
    for obj in found:
        kind = REGISTRY.of(obj)
        assert kind is not None
        by_kind[kind].append(obj)
    return World({kind: Listed(kind, listed) for kind, listed in by_kind.items()}, failure, memory, observed)


def flat(decision: Decision) -> list[Action]:
    """The actions of a decision, with those of Parallel in their place."""
    return [a for action in decision.actions for a in (action.actions if isinstance(action, Parallel) else [action])]


def meta(name: str, namespace: str = "default", owner: Object | None = None, **more: Any) -> Object:
    """Metadata as the server completes it."""
    found: Object = {
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **more,
    }
    if namespace:
        found["namespace"] = namespace
    if owner is not None:
        found["ownerReferences"] = [objects.owner_ref(owner)]
    return found


def pod(
    name: str,
    owner: Object | None = None,
    *,
    labels: dict[str, str] | None = None,
    phase: str = "Running",
    ready: bool = True,
    node: str = "n1",
    ip: str = "",
    since: str = "2026-01-01T00:00:00Z",
    spec: Object | None = None,
    **more: Any,
) -> Object:
    """A pod; running and ready on node n1 unless told otherwise."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
    status: Object = {"phase": phase, "conditions": conditions}
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    body = {"containers": [{"name": "c"}], **(spec or {})}
    if node:
        body["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, owner=owner, labels=labels or {"app": "web"}, **more),
        "spec": body,
        "status": status,
    }


def node(name: str, ready: str = "True", **spec: Any) -> Object:
    """A node with a Ready condition."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(name, "", labels={"kubernetes.io/hostname": name}),
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}
SELECTOR = {"matchLabels": {"app": "web"}}
