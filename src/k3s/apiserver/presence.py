"""The server's sign of life: a Lease in kube-system, renewed while it runs; those of servers that are gone are removed.

Source: upstream's "API server identity" and its start hooks. Names, labels and duration are upstream's. It renews every
ten seconds what is good for an hour; here that is done four times an hour, because idle means idle.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable

from k3s.api import times
from k3s.api.errors import ApiError, Conflict, NotFound
from k3s.api.kinds import builtin
from k3s.api.object import Object, evolve
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client

log = logging.getLogger(__name__)

LEASE = builtin("coordination.k8s.io/v1", "Lease")
SPACE = "kube-system"
COMPONENT = {"apiserver.kubernetes.io/identity": "kube-apiserver"}
DURATION_S = 3600
_RENEW_EVERY_S = DURATION_S / 4
_RETRY_S = 10.0


def name_of(host: str) -> str:
    """The name of the server on a host: the same at every start."""
    parts = (host.encode(), b"kube-apiserver")
    digest = hashlib.sha256(b"".join(len(part).to_bytes(2, "big") + part for part in parts)).digest()[:16]
    return "apiserver-" + base64.b32encode(digest).decode().rstrip("=").lower()


def renewed(lease: Object | None, host: str, holder: str, now: float) -> Object:
    """The lease of the server on `host` as it is to be written; `lease` is the one that is there."""
    labels = {**COMPONENT, "kubernetes.io/hostname": host}
    made = lease or {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name_of(host), "namespace": SPACE, "labels": labels},
    }
    spec = {"holderIdentity": holder, "leaseDurationSeconds": DURATION_S, "renewTime": times.micro(now)}
    return evolve(made, ("spec",), {**made.get("spec", {}), **spec})


def is_over(lease: Object, now: float) -> bool:
    """Whether a server has not renewed its lease in time; one that does not say when it ends has ended."""
    spec = lease.get("spec", {})
    if not spec.get("renewTime") or spec.get("leaseDurationSeconds") is None:
        return True
    return times.parse(spec["renewTime"]) + float(spec["leaseDurationSeconds"]) < now


class Presence:
    """A service that keeps the lease of this server."""

    def __init__(self, client: Client, host: str, clock: Clock, entropy: Entropy) -> None:
        self._client = client
        self._host = host
        self._clock = clock
        self._holder = f"{name_of(host)}_{entropy.uid()}"

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled."""
        ready()
        while True:
            try:
                await self._renew()
                await self._sweep()
                wait = _RENEW_EVERY_S
            except ApiError as error:
                log.warning("Cannot renew the lease of this server: %s; it is tried again", error)
                wait = _RETRY_S
            await asyncio.sleep(wait)

    async def _renew(self) -> None:
        try:
            found = await self._client.get(LEASE, SPACE, name_of(self._host))
        except NotFound:
            await self._client.create(LEASE, renewed(None, self._host, self._holder, self._clock.now()))
        else:
            await self._client.update(LEASE, renewed(found, self._host, self._holder, self._clock.now()))

    async def _sweep(self) -> None:
        """Removes the leases of servers that are gone, unless they renew them now."""
        label = ",".join(f"{key}={value}" for key, value in COMPONENT.items())
        for lease in (await self._client.list(LEASE, SPACE, labels=label)).items:
            meta = lease["metadata"]
            if is_over(lease, self._clock.now()):
                try:
                    await self._client.delete(LEASE, SPACE, meta["name"], revision=int(meta["resourceVersion"]))
                except (NotFound, Conflict):
                    continue
