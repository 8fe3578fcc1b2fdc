"""Plugins about everything, or about single kinds, that are off unless asked for.

Source: "Admission Controllers" in the Kubernetes documentation, a section each; texts as upstream's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from k3s.api.errors import TooManyRequests
from k3s.api.kinds import Registry, split_api_version
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CONNECT, CREATE, DELETE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizes
from k3s.base.clock import Clock


class AlwaysDeny(Plugin):
    """Refuses every write: for tests of clients."""

    name = "AlwaysDeny"
    resources = frozenset({"*"})
    validates = frozenset({CREATE, UPDATE, DELETE, CONNECT})

    def validate(self, request: AdmissionRequest) -> None:
        raise refuse(request, "admission control is denying all modifications")


class Nothing(Plugin):
    """Does nothing itself: AlwaysAdmit, and what the write path does about namespaces."""


class AlwaysAdmit(Nothing):
    """Admits all."""

    name = "AlwaysAdmit"


class NamespaceExists(Nothing):
    """Nothing is written in a namespace that is absent: the write path itself sees to that, for every kind."""

    name = "NamespaceExists"


class NamespaceAutoProvision(Nothing):
    """Who creates something in a namespace that is absent gets the namespace, too: the write path makes it first."""

    name = "NamespaceAutoProvision"


class DenyServiceExternalIPs(Plugin):
    """Nobody draws traffic for addresses of his choice to a Service; those that have them keep or lose them."""

    name = "DenyServiceExternalIPs"
    resources = frozenset({"services"})
    validates = frozenset({CREATE, UPDATE})

    def validate(self, request: AdmissionRequest) -> None:
        if request.subresource or request.obj is None:
            return
        before = set(((request.old or {}).get("spec") or {}).get("externalIPs") or ())
        if set((request.obj.get("spec") or {}).get("externalIPs") or ()) - before:
            raise refuse(request, "Use of external IPs is denied by admission control")


class OwnerReferencesPermissionEnforcement(Plugin):
    """Who names owners has to be allowed to delete the object, and to set finalizers of an owner that it blocks."""

    name = "OwnerReferencesPermissionEnforcement"
    resources = frozenset({"*"})
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, authorizer: Authorizes, registry: Registry) -> None:
        self._authorizer = authorizer
        self._registry = registry

    def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or request.subresource == "status":
            return
        new, old = _references(request.obj), _references(request.old)
        if new == old:
            return
        kind = request.kind
        own = Attributes(
            request.user,
            "delete",
            kind.group,
            kind.version,
            kind.plural,
            namespace=request.namespace,
            name=request.name,
        )
        decision = self._authorizer.authorize(own)
        if not decision.allowed:
            raise refuse(request, f"cannot set an ownerRef on a resource you can't delete: {decision.reason}, <nil>")
        for reference in _newly_blocking(new, old):
            self._check_owner(request, reference)

    def _check_owner(self, request: AdmissionRequest, reference: Object) -> None:
        group, version = split_api_version(reference.get("apiVersion", ""))
        kind = self._registry.by_kind(group, version, reference.get("kind", ""))
        what = "cannot set blockOwnerDeletion"
        if kind is None:
            shown = f"{group}/{version}, Kind={reference.get('kind', '')}".removeprefix("/")
            why = f'no matches for kind "{reference.get("kind", "")}" in version "{reference.get("apiVersion", "")}"'
            raise refuse(request, f"{what} in this case because cannot find RESTMapping for APIVersion {shown}: {why}")
        asked = Attributes(
            request.user,
            "update",
            kind.group,
            kind.version,
            kind.plural,
            "finalizers",
            request.namespace if kind.namespaced else "",
            reference.get("name", ""),
        )
        decision = self._authorizer.authorize(asked)
        if not decision.allowed:
            why = "if an ownerReference refers to a resource you can't set finalizers on"
            raise refuse(request, f"{what} {why}: {decision.reason}, <nil>")


def _references(obj: Object | None) -> list[Object]:
    found: list[Object] = ((obj or {}).get("metadata") or {}).get("ownerReferences") or []
    return found


def _newly_blocking(new: Iterable[Object], old: Iterable[Object]) -> list[Object]:
    blocked = {reference.get("uid") for reference in old if reference.get("blockOwnerDeletion")}
    return [r for r in new if r.get("blockOwnerDeletion") and r.get("uid") not in blocked]


class _Bucket:
    """Tokens that fill up with time."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class EventRateLimit(Plugin):
    """Limits how fast events come: from all, by namespace, by user, by what they are about."""

    name = "EventRateLimit"
    resources = frozenset({"events", "events.events.k8s.io"})
    validates = frozenset({CREATE, UPDATE})
    _KEPT = 4096

    def __init__(self, limits: Iterable[Mapping[str, Any]], clock: Clock) -> None:
        self._limits = [(limit, OrderedDict[str, _Bucket]()) for limit in limits]
        self._clock = clock

    def validate(self, request: AdmissionRequest) -> None:
        if request.dry_run:
            return
        now = self._clock.monotonic()
        for limit, buckets in self._limits:
            key = _key(str(limit["type"]), request)
            if not self._takes(limit, buckets, key, now):
                raise TooManyRequests(f"limit reached on type {limit['type']} for key {key}", {}, retry_after_s=1)

    def _takes(self, limit: Mapping[str, Any], buckets: OrderedDict[str, _Bucket], key: str, now: float) -> bool:
        burst, rate = float(limit["burst"]), float(limit["qps"])
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = _Bucket(burst, now)
            while len(buckets) > int(limit.get("cacheSize") or self._KEPT):
                buckets.popitem(last=False)
        buckets.move_to_end(key)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _key(type: str, request: AdmissionRequest) -> str:
    if type == "Namespace":
        return request.namespace
    if type == "User":
        return request.user.name
    if type == "SourceAndObject":
        event = request.obj or {}
        source, about = event.get("source") or {}, event.get("involvedObject") or event.get("regarding") or {}
        parts = [source.get("component"), source.get("host")]
        parts += [about.get(part) for part in ("kind", "namespace", "name", "uid", "apiVersion")]
        return "".join(str(part or "") for part in parts)
    return ""
