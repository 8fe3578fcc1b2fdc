"""The node's voice: registers the Node, renews its Lease, writes its status when something changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k3s.api import times
from k3s.api.errors import AlreadyExists, ApiError, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object, uid
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.inotify import FolderWatch
from k3s.client.client import Client
from k3s.kubelet import eviction, node
from k3s.kubelet.eviction import Signal
from k3s.kubelet.host import Host
from k3s.kubelet.node import Identity, Room
from k3s.kubelet.runtime.interface import Image, Readiness, Runtime, RuntimeFailure, Version

log = logging.getLogger(__name__)

_RETRY_S = 1.0
# After a change of the CNI configuration the runtime needs a moment to read it.
_SETTLE_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
# Memory, disks and images are looked at this often; a pull or a removal of an image is told by `images_changed`.
_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class HeartbeatConfig:
    """What the node says of itself, and where to look. `cni_folder` is watched."""

    identity: Identity
    room: Room
    cni_folder: Path | None = None
    thresholds: tuple[tuple[str, str], ...] = tuple(eviction.DEFAULT.items())


class Heartbeat:
    """Keeps the Node object true. `now_ready` is called when the node becomes Ready for the first time."""

    def __init__(
        self, config: HeartbeatConfig, host: Host, client: Client, runtime: Runtime, clock: Clock, entropy: Entropy
    ) -> None:
        self._config = config
        self._host = host
        self._machine = host.machine()
        self._client = client
        self._runtime = runtime
        self._clock = clock
        self._entropy = entropy
        self._node: Object = {}
        # What was said last: the API server writes some amounts in another form than we do.
        self._said: Object = {}
        self._heard_at = 0.0
        self._images: list[Image] = []
        self._pressure: set[str] = set()
        self._pressed_at: dict[str, float] = {}
        self._version = Version("containerd", "")
        self._looked_at = -_LOOK_S
        self._reported_at = 0.0
        self._wake = asyncio.Event()
        self.pressed: set[str] = set()
        self.readiness = Readiness(False, False, "the runtime was not asked yet")

    def images_changed(self) -> None:
        """An image came or went: the status is written soon."""
        self._looked_at = -_LOOK_S
        self._wake.set()

    async def register(self) -> None:
        """Makes the Node, or brings an existing one up to date; tries until the API server has taken it."""
        identity = self._config.identity
        kind = builtin("v1", "Node")
        self._version = await self._runtime.version()
        await self._look()
        while True:
            try:
                wanted = node.registration(identity, self._machine, self._status({}))
                try:
                    self._node = await self._client.create(kind, wanted)
                except AlreadyExists:
                    self._node = await self._client.get(kind, "", identity.name)
                    patch = node.reconcile(self._node, identity, self._machine)
                    if patch:
                        self._node = await self._client.patch(kind, "", identity.name, patch)
                await self._renew()
                await self._report(always=True)
                log.info("Node registered", extra={"node": identity.name})
                return
            except (ApiError, OutcomeUnknown) as error:
                log.warning("Cannot register the node yet", extra={"reason": str(error)})
                await asyncio.sleep(_RETRY_S * (1 + self._entropy.fraction()))

    def _status(self, old: Object) -> Object:
        config = self._config
        return node.node_status(
            config.identity,
            self._machine,
            config.room,
            self._version,
            self.readiness,
            self._images,
            self._pressure,
            self._clock.now(),
            old,
        )

    async def _look(self) -> None:
        """Asks the runtime and, now and then, the machine."""
        try:
            self.readiness = await self._runtime.status()
        except RuntimeFailure as failure:
            self.readiness = Readiness(False, False, f"container runtime is down: {failure.message}")
        now = self._clock.monotonic()
        if now - self._looked_at < (node.RENEW_S / 2 if self.pressed else _LOOK_S):
            return
        self._looked_at = now
        try:
            self._images = await self._runtime.list_images()
        except RuntimeFailure as failure:
            log.warning("Images cannot be listed", extra={"reason": failure.message})
        pressed = eviction.pressed(self.signals(), dict(self._config.thresholds))
        self.pressed = pressed
        self._pressed_at, self._pressure = eviction.conditions(self._pressed_at, pressed, self._clock.now())

    def signals(self) -> dict[str, Signal]:
        """What the eviction thresholds are compared with."""
        disk = self._host.disk()
        limit, used = self._host.pids()
        return {
            "memory.available": Signal(self._machine.memory_bytes, self._host.memory_available()),
            "nodefs.available": Signal(disk.capacity, disk.available),
            "nodefs.inodesFree": Signal(disk.inodes, disk.inodes_free),
            "imagefs.available": Signal(disk.capacity, disk.available),
            "imagefs.inodesFree": Signal(disk.inodes, disk.inodes_free),
            "pid.available": Signal(limit, limit - used),
        }

    async def _report(self, *, always: bool = False) -> None:
        """Writes the status when it says something new, and every five minutes."""
        old = self._node.get("status") or {}
        new = self._status(old)
        due = self._clock.monotonic() - self._reported_at >= node.REPORT_S
        if not (always or due or node.differs(self._said, new)):
            return
        name = self._config.identity.name
        body = {"status": new}
        self._said = {}
        self._node = await self._client.patch(builtin("v1", "Node"), "", name, body, subresource="status")
        self._said = new
        self._reported_at = self._clock.monotonic()

    async def _renew(self) -> None:
        kind = builtin("coordination.k8s.io/v1", "Lease")
        name, now = self._config.identity.name, self._clock.now()
        try:
            body = {"spec": {"renewTime": times.micro(now)}}
            await self._client.patch(kind, node.LEASE_NAMESPACE, name, body)
        except NotFound:
            await self._client.create(kind, node.lease(self._config.identity, uid(self._node), now))

    async def run(self, became_ready: Callable[[], None]) -> None:
        """Renews and reports until cancelled."""
        told = False
        watch: FolderWatch | None = None
        if self._config.cni_folder is not None and self._config.cni_folder.is_dir():
            watch = FolderWatch(self._config.cni_folder, lambda _name: self._wake.set())
        next_renewal = self._clock.monotonic()
        try:
            while True:
                now = self._clock.monotonic()
                renewing = now >= next_renewal
                if renewing:
                    # A little chance keeps the nodes of a cluster from beating in step.
                    next_renewal = now + node.RENEW_S * (1 - 0.04 * self._entropy.fraction())
                await self._beat(renewing)
                if not told and self.readiness.runtime and self.readiness.network:
                    told = True
                    became_ready()
                try:
                    async with asyncio.timeout(max(0.0, next_renewal - self._clock.monotonic())):
                        await self._wake.wait()
                    self._wake.clear()
                    await self._settle()
                except TimeoutError:
                    pass
        finally:
            if watch is not None:
                watch.close()

    async def _settle(self) -> None:
        if self.readiness.network:
            return
        for pause in _SETTLE_S:
            await self._look()
            if self.readiness.network:
                return
            await asyncio.sleep(pause)

    async def _beat(self, renewing: bool) -> None:
        try:
            # Whoever was not heard for so long may have been declared lost.
            late = self._clock.now() - self._heard_at >= node.LEASE_S
            if renewing:
                await self._renew()
            await self._look()
            await self._report(always=late)
            if renewing:
                self._heard_at = self._clock.now()
        except NotFound:
            # Someone deleted the Node: it is made again.
            await self.register()
        except (ApiError, OutcomeUnknown) as error:
            log.warning("Node is not heard by the API server", extra={"reason": str(error)})
