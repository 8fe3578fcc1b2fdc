"""metrics.k8s.io, made of the kubelets' figures when somebody asks: what `kubectl top` and autoscalers read.

A kubelet tells how much processor time was used since a container began, so that a rate needs two samples. The last one
of each node is kept; who asks when there is none, or an old one, waits a second for another. Nothing is gathered when
nobody asks. Source: the metrics.k8s.io types.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from k3s.api import object as objects
from k3s.api import quantity, times
from k3s.api.errors import ApiError, MethodNotAllowed, NotFound, not_found
from k3s.api.fieldselectors import parse_fields
from k3s.api.kinds import builtin
from k3s.api.object import Object, decode, encode
from k3s.api.selectors import parse_labels
from k3s.apiserver.identity import User
from k3s.apiserver.request import parse
from k3s.base.clock import Clock
from k3s.base.message import JSON, Request, Response

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
#: The Service that stands for this server, as k3s' metrics server has it.
SERVICE = ("kube-system", "metrics-server")
_API_VERSION = f"{GROUP}/{VERSION}"
_BASE = f"/apis/{_API_VERSION}"
_NODE = builtin("v1", "Node")
_POD = builtin("v1", "Pod")
_NANO = 1_000_000_000
# Two samples are this far apart at least, and are used for so long before the next one is taken.
_APART_S, _FRESH_S, _OLD_S = 1.0, 10.0, 120.0

#: A document of a node's kubelet, by the node's name and the path. Raises ApiError.
Fetch = Callable[[str, str], Awaitable[bytes]]
#: What is measured: a node (empty namespace, pod and container), or a container of a pod.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """Processor nanoseconds since the start and bytes of memory, at a time in seconds since 1970."""

    at: float
    cpu_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What one thing uses: processor in nanoseconds a second over `window_s`, memory in bytes at `at`."""

    at: float
    window_s: float
    cpu: int
    memory_bytes: int


@dataclass(slots=True)
class _Seen:
    """The last two looks at a node, the newer one last; `at` is when it was taken on the monotonic clock."""

    looks: list[Mapping[Key, Sample]] = field(default_factory=list)
    at: float = -math.inf
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def samples(summary: bytes) -> dict[Key, Sample]:
    """What a kubelet's stats summary says. Raises NotFound when it is none."""
    try:
        told = decode(summary)
        found = {("", "", ""): _sample(told["node"])}
        for pod in told.get("pods") or ():
            ref = pod["podRef"]
            for container in pod.get("containers") or ():
                found[ref["namespace"], ref["name"], container["name"]] = _sample(container)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise NotFound(f"the kubelet's summary cannot be read: {error!r}") from error
    return found


def _sample(stats: Object) -> Sample:
    cpu = stats["cpu"]
    return Sample(times.parse(cpu["time"]), int(cpu["usageCoreNanoSeconds"]), int(stats["memory"]["workingSetBytes"]))


def figures(old: Mapping[Key, Sample], new: Mapping[Key, Sample]) -> dict[Key, Figures]:
    """What was used between two looks, by everything that was there both times and was not started anew."""
    found = {}
    for key, sample in new.items():
        before = old.get(key)
        if before is None or sample.at <= before.at or sample.cpu_ns < before.cpu_ns:
            continue
        window_s = sample.at - before.at
        cpu = round((sample.cpu_ns - before.cpu_ns) / window_s)
        found[key] = Figures(sample.at, window_s, cpu, sample.memory_bytes)
    return found


class Metrics:
    """Answers requests of the group; `fetch` reads from kubelets."""

    def __init__(self, reader: Reader, fetch: Fetch, clock: Clock) -> None:
        self._reader = reader
        self._fetch = fetch
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    async def __call__(self, request: Request, user: User) -> Response:
        """The answer of a path of the group; who may ask has been decided already."""
        try:
            return Response(200, encode(await self._answer(request)), JSON)
        except ApiError as error:
            return Response(error.code, encode(error.to_status()), JSON)

    async def _answer(self, request: Request) -> Object:
        target = parse(request.method, request.target)
        info = target.info
        if request.method not in ("GET", "HEAD") or info.verb == "watch":
            raise MethodNotAllowed("the server does not allow this method on the requested resource", {})
        if target.path.rstrip("/") == _BASE:
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": _API_VERSION,
                "resources": _RESOURCES,
            }
        found = _DOCUMENTS.get(target.path)
        if found is not None:
            return found
        of = {"nodes": self._nodes, "pods": self._pods}.get(info.resource)
        if of is None or info.subresource or (info.resource == "nodes" and info.namespace):
            raise NotFound("the server could not find the requested resource", {})
        labels = parse_labels(target.query.get("labelSelector", ""))
        fields = parse_fields(target.query.get("fieldSelector", ""))
        one = info.name if info.verb == "get" else ""
        kind = _NODE if info.resource == "nodes" else _POD
        wanted = [
            obj
            for obj in self._reader.list(kind, info.namespace)
            if (not one or objects.name(obj) == one) and labels.matches(objects.labels(obj)) and fields.matches(obj)
        ]
        items = await of(wanted)
        if not one:
            return {"kind": f"{_KINDS[info.resource]}List", "apiVersion": _API_VERSION, "metadata": {}, "items": items}
        if not items:
            shown = f"{info.namespace}/{one}" if info.namespace else one
            raise not_found(GROUP, "nodemetrics" if info.resource == "nodes" else "podmetrics", shown)
        return items[0]

    async def _nodes(self, nodes: list[Object]) -> list[Object]:
        found = await self._look({objects.name(node): set() for node in nodes})
        items = []
        for node in nodes:
            used = found[objects.name(node)].get(("", "", ""))
            if used is not None:
                items.append({**_head("NodeMetrics", node, [used]), "usage": _usage(used)})
        return items

    async def _pods(self, pods: list[Object]) -> list[Object]:
        running = [pod for pod in pods if objects.get(pod, "status", "phase") == "Running"]
        wanted: dict[str, set[Key]] = {}
        for pod in running:
            wanted.setdefault(pod["spec"].get("nodeName", ""), set()).update(_running(pod))
        found = await self._look(wanted)
        items = []
        for pod in running:
            here = found.get(pod["spec"].get("nodeName", ""), {})
            keys = [(objects.namespace(pod), objects.name(pod), c["name"]) for c in pod["spec"]["containers"]]
            used = {key[2]: here[key] for key in keys if key in here}
            if used:
                containers = [{"name": name, "usage": _usage(figure)} for name, figure in used.items()]
                items.append({**_head("PodMetrics", pod, list(used.values())), "containers": containers})
        return items

    # --- looking at nodes

    async def _look(self, wanted: Mapping[str, set[Key]]) -> dict[str, Mapping[Key, Figures]]:
        """The figures of nodes, if possible of what is wanted of each; none for those that do not answer."""
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._of_node(name, wanted[name])) for name in sorted(wanted)}
        return {name: task.result() for name, task in tasks.items()}

    async def _of_node(self, name: str, wanted: set[Key]) -> Mapping[Key, Figures]:
        seen = self._seen.setdefault(name, _Seen())
        async with seen.lock:
            try:
                return await self._figures(name, seen, wanted)
            except ApiError:
                self._seen.pop(name, None)  # a node that is gone or does not answer has no figures
                return {}

    async def _figures(self, name: str, seen: _Seen, wanted: set[Key]) -> Mapping[Key, Figures]:
        age = self._clock.monotonic() - seen.at
        if age > _OLD_S:
            seen.looks.clear()
        # What began lately may not have been seen yet.
        if age > _FRESH_S or (age > _APART_S and wanted - seen.looks[-1].keys()):
            await self._look_again(name, seen)
        # Or once only. What the kubelet does not tell of is not waited for.
        if len(seen.looks) < 2 or wanted & seen.looks[-1].keys() - seen.looks[0].keys():
            await self._look_again(name, seen)
        return figures(*seen.looks)

    async def _look_again(self, name: str, seen: _Seen) -> None:
        """Another look at a node, a while after the one before. Raises ApiError."""
        since_s = self._clock.monotonic() - seen.at
        if since_s < _APART_S:
            await asyncio.sleep(_APART_S - since_s)
        seen.looks = [*seen.looks[-1:], samples(await self._fetch(name, "/stats/summary"))]
        seen.at = self._clock.monotonic()


def _running(pod: Object) -> set[Key]:
    """The containers of a pod that run."""
    statuses = objects.get(pod, "status", "containerStatuses", default=[])
    names = [status["name"] for status in statuses if objects.get(status, "state", "running") is not None]
    return {(objects.namespace(pod), objects.name(pod), name) for name in names}


def _head(kind: str, obj: Object, used: list[Figures]) -> Object:
    meta: Object = {"name": objects.name(obj), "creationTimestamp": times.format(used[0].at)}
    if objects.namespace(obj):
        meta["namespace"] = objects.namespace(obj)
    if objects.labels(obj):
        meta["labels"] = objects.labels(obj)
    window = f"{max(figure.window_s for figure in used):.3f}".rstrip("0").rstrip(".")
    stamp = times.format(min(figure.at for figure in used))
    return {"kind": kind, "apiVersion": _API_VERSION, "metadata": meta, "timestamp": stamp, "window": f"{window}s"}


def _usage(used: Figures) -> Object:
    memory = quantity.format(quantity.of(used.memory_bytes // 1024 * 1024, quantity.BINARY))
    return {"cpu": f"{used.cpu}n" if used.cpu else "0", "memory": memory}


_KINDS = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_RESOURCES = [
    {"name": name, "singularName": "", "namespaced": name == "pods", "kind": kind, "verbs": ["get", "list"]}
    for name, kind in _KINDS.items()
]


def _schemas() -> Object:
    """The types of the group as OpenAPI has them."""
    text, usage = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    common = {"kind": text, "apiVersion": text, "metadata": {"type": "object"}, "timestamp": text, "window": text}
    container = {"type": "object", "properties": {"name": text, "usage": usage}}
    more = {"NodeMetrics": {"usage": usage}, "PodMetrics": {"containers": {"type": "array", "items": container}}}
    return {
        f"io.k8s.metrics.pkg.apis.metrics.{VERSION}.{kind}": {
            "type": "object",
            "description": f"What {name} use, as their kubelets measured it.",
            "properties": {**common, **more[kind]},
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": kind}],
        }
        for name, kind in _KINDS.items()
    }


def _paths() -> Object:
    """The lists of the group as OpenAPI has them: that is where `kubectl explain` finds which kind a resource has."""
    return {
        f"{_BASE}/{name}": {
            "get": {
                "description": f"list objects of kind {kind}",
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": "list",
                "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": kind},
            }
        }
        for name, kind in _KINDS.items()
    }


_INFO = {"title": "Kubernetes", "version": VERSION}
_DOCUMENTS: dict[str, Object] = {
    "/openapi/v3": {"paths": {_BASE[1:]: {"serverRelativeURL": f"/openapi/v3{_BASE}?hash={VERSION}"}}},
    f"/openapi/v3{_BASE}": {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    },
    "/openapi/v2": {"swagger": "2.0", "info": _INFO, "paths": _paths(), "definitions": _schemas()},
}


def api_service() -> Object:
    """The APIService that leads here."""
    spec = {
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": SERVICE[0], "name": SERVICE[1], "port": 443},
    }
    meta = {"name": f"{VERSION}.{GROUP}"}
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": meta, "spec": spec}


def reader_role() -> Object:
    """The role that lets viewers, editors and admins of a namespace read its figures."""
    labels = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("admin", "edit", "view")}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": labels},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    }
