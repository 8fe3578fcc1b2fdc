"""The API server's metrics, by upstream's names."""

from __future__ import annotations

from collections.abc import Callable

from k3s.api.kinds import Registry
from k3s.apiserver.cache import Cache
from k3s.apiserver.hub import Hub
from k3s.apiserver.request import Target
from k3s.base import metrics

_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
}
_READING = frozenset({"get", "list", "watch", "head"})


class Meters:
    """Counts requests; what is open or stored is counted when somebody asks."""

    def __init__(
        self, registry: metrics.Registry, kinds: Registry, cache: Cache, hub: Hub, more: Callable[[], None]
    ) -> None:
        labels = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code")
        self._kinds = kinds
        self._more = more
        self._cache = cache
        self._registry = registry
        self._total = registry.counter("apiserver_request_total", "Requests answered.", labels)
        self._seconds = registry.histogram(
            "apiserver_request_duration_seconds", "Seconds until the answer was ready.", labels[:-1]
        )
        registry.gauge("apiserver_longrunning_requests", "Watches that are open.", read=lambda: float(len(hub)))
        self._inflight = registry.gauge(
            "apiserver_current_inflight_requests", "Requests that are being answered.", ("request_kind",)
        )
        self._objects = registry.gauge("apiserver_resource_objects", "Objects stored.", ("group", "resource"))

    def under_way(self, target: Target, by: int) -> None:
        """A request that takes time begins (1) or is answered (-1); what is answered at once is never under way."""
        self._inflight.add(by, "readOnly" if target.info.verb in _READING else "mutating")

    def seen(self, target: Target, status: int, seconds: float) -> None:
        """A request was answered."""
        labels = _labels(target)
        self._total.add(*labels, str(status))
        if target.info.verb != "watch":
            self._seconds.observe(seconds, *labels)

    def text(self) -> str:
        """All metrics of the process, the counts of objects brought up to date first."""
        self._more()
        for kind in self._kinds.stored():
            self._objects.set(float(self._cache.bucket(kind).count), kind.group, kind.plural)
        return self._registry.text()


def _labels(target: Target) -> tuple[str, ...]:
    info = target.info
    if not info.is_resource:
        return (info.verb.upper(), "", "", "", "", "", "", "apiserver")
    scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
    verb = _VERBS.get(info.verb, info.verb.upper())
    dry_run = "All" if "dryRun" in target.query else ""
    return (verb, dry_run, info.group, info.version, info.resource, info.subresource, scope, "apiserver")
