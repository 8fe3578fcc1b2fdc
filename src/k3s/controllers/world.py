"""What a decider may look at: the objects of the informers, through indexes, read only.

The indexes are the same for every kind that they fit, so that any decider finds an object's dependents, a node's pods
or a selector's pods without a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from k3s.api import object as objects
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.controllers.known import CONTROLLER_REVISION, ENDPOINT_SLICE, POD, REPLICA_SET, SERVICE

#: The label that ties an EndpointSlice to its Service (discovery.k8s.io).
SERVICE_NAME = "kubernetes.io/service-name"

Objects = list[Object]
IndexFunction = Callable[[Object], Iterable[str]]


class Source(Protocol):
    """The objects of one kind; an informer is one."""

    def get(self, key: str) -> Object | None:
        """The object with this key."""

    def values(self) -> Iterable[Object]:
        """All objects."""

    def index(self, name: str, value: str) -> Objects:
        """The objects that an index lists under a value."""


def by_owner(obj: Object) -> Iterable[str]:
    """The uids of all owners."""
    return [ref["uid"] for ref in objects.owner_refs(obj)]


def by_namespace(obj: Object) -> Iterable[str]:
    """The namespace."""
    return (objects.namespace(obj),)


def by_orphanage(obj: Object) -> Iterable[str]:
    """The namespace, for objects without a controller."""
    return () if objects.controller_of(obj) else (objects.namespace(obj),)


def by_node(pod: Object) -> Iterable[str]:
    """The node that a pod is bound to; the empty string for a pod that waits."""
    return (pod["spec"].get("nodeName", ""),)


def by_label(obj: Object) -> Iterable[str]:
    """`namespace/key=value` for each label."""
    space = objects.namespace(obj)
    return [f"{space}/{key}={value}" for key, value in objects.labels(obj).items()]


def by_selector(service: Object) -> Iterable[str]:
    """`namespace/key=value` of the first pair of a Service's selector: whatever it selects has that label."""
    selector = service["spec"].get("selector")
    if not selector:
        return ()
    first = min(selector)
    return (f"{objects.namespace(service)}/{first}={selector[first]}",)


def by_service(obj: Object) -> Iterable[str]:
    """`namespace/name` of the Service that a slice belongs to."""
    service = objects.labels(obj).get(SERVICE_NAME)
    return (f"{objects.namespace(obj)}/{service}",) if service else ()


def indexes(kind: Kind) -> Mapping[str, IndexFunction]:
    """The indexes that an informer of this kind keeps."""
    found: dict[str, IndexFunction] = {"owner": by_owner}
    if kind.namespaced:
        found["namespace"] = by_namespace
    if kind in (POD, REPLICA_SET, CONTROLLER_REVISION):
        found["orphan"] = by_orphanage
    if kind is POD:
        found |= {"node": by_node, "label": by_label}
    if kind is SERVICE:
        found["selector"] = by_selector
    if kind is ENDPOINT_SLICE:
        found["service"] = by_service
    return found


class World:
    """The state of the cluster at one moment, as one controller sees it.

    `failure` is what went wrong when this key's last decision was carried out, `memory` what that decision asked to
    be remembered, `observed` what the controller's `observe` found outside the caches.
    """

    __slots__ = ("_sources", "failure", "memory", "observed")

    def __init__(
        self, sources: Mapping[Kind, Source], failure: str = "", memory: Any = None, observed: Any = None
    ) -> None:
        self._sources = sources
        self.failure = failure
        self.memory = memory
        self.observed = observed

    def kinds(self) -> Iterable[Kind]:
        """The kinds that can be looked at."""
        return self._sources.keys()

    def get(self, kind: Kind, key: str) -> Object | None:
        """The object with this key (`namespace/name`, or `name`)."""
        return self._sources[kind].get(key)

    def list(self, kind: Kind, namespace: str = "") -> Objects:
        """All objects of a kind, or those of one namespace."""
        source = self._sources[kind]
        return source.index("namespace", namespace) if namespace else list(source.values())

    def dependents(self, kind: Kind, uid: str) -> Objects:
        """The objects that name this uid among their owners."""
        return self._sources[kind].index("owner", uid)

    def owned(self, kind: Kind, uid: str) -> Objects:
        """The objects whose controller has this uid."""
        found = self._sources[kind].index("owner", uid)
        return [obj for obj in found if (ref := objects.controller_of(obj)) is not None and ref["uid"] == uid]

    def orphans(self, kind: Kind, namespace: str) -> Objects:
        """The objects of a namespace that have no controller (pods, replica sets, controller revisions)."""
        return self._sources[kind].index("orphan", namespace)

    def pods_on(self, node: str) -> Objects:
        """The pods bound to a node; with the empty string, those that wait for one."""
        return self._sources[POD].index("node", node)

    def pods_with(self, namespace: str, match_labels: Mapping[str, str]) -> Objects:
        """The pods of a namespace that carry all these labels (at least one)."""
        source = self._sources[POD]
        candidates = [source.index("label", f"{namespace}/{key}={value}") for key, value in match_labels.items()]
        wanted = match_labels.items()
        return [pod for pod in min(candidates, key=len) if wanted <= objects.labels(pod).items()]

    def services_selecting(self, pod: Object) -> Objects:
        """The Services whose selector matches the pod's labels."""
        source, labels = self._sources[SERVICE], objects.labels(pod)
        return [
            service
            for value in by_label(pod)
            for service in source.index("selector", value)
            if service["spec"]["selector"].items() <= labels.items()
        ]

    def slices_of(self, service_key: str) -> Objects:
        """The EndpointSlices that carry this Service's name."""
        return self._sources[ENDPOINT_SLICE].index("service", service_key)
