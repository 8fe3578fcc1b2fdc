"""Garbage: images when the disk fills, dead containers that nobody shows any more, and what pods left that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from k3s.base.clock import Clock
from k3s.kubelet import images
from k3s.kubelet.host import Host
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Runtime, RuntimeFailure, Sandbox

log = logging.getLogger(__name__)

_PERIOD_S = 300.0
# What belongs to no pod gets this long to end.
_ORPHAN_GRACE_S = 2.0


class Collector:
    """Removes what is not needed; `images_changed` is called when an image went, `keep` names images that stay."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        host: Host,
        images_changed: Callable[[], None],
        high: int,
        low: int,
        keep: tuple[str, ...],
    ) -> None:
        self.period_s = _PERIOD_S
        self._runtime, self._clock, self._host = runtime, clock, host
        self._high, self._low, self._keep = high, low, set(keep)
        self._images_changed = images_changed
        self._first_seen: dict[str, float] = {}
        self._last_used: dict[str, float] = {}

    async def images(self) -> None:
        """Removes unused images, the longest unused first, when the disk is fuller than the high threshold."""
        stored = await self._runtime.list_images()
        now = self._clock.now()
        in_use = set(self._keep)
        for container in await self._runtime.list_containers():
            in_use |= {container.image, container.image_id}
        for image in stored:
            self._first_seen.setdefault(image.id, now)
            if {image.id, *image.tags, *image.digests} & in_use:
                self._last_used[image.id] = now
        there = {image.id for image in stored}
        for times in (self._first_seen, self._last_used):
            for gone in times.keys() - there:
                del times[gone]
        disk = self._host.disk()
        over = images.bytes_over(disk.capacity, disk.capacity - disk.available, self._high, self._low)
        chosen = images.to_collect(stored, in_use, self._first_seen, self._last_used, over, now)
        for image in chosen:
            await self._runtime.remove_image(image.id)
            log.info("Image removed to free space", extra={"image": image.id, "bytes": image.size})
        if chosen:
            self._images_changed()

    async def containers(self, kept: set[str]) -> None:
        """Removes containers that have ended and that no pod shows."""
        for container in await self._runtime.list_containers():
            if container.state == cri.EXITED and container.id not in kept:
                await self._runtime.remove_container(container.id)

    async def orphans(
        self,
        left: Mapping[str, tuple[list[Sandbox], list[Container]]],
        known: Callable[[], set[str]],
    ) -> None:
        """Ends and removes what the runtime and the disk hold for pods that do not exist any more.

        `known` gives the uids of those that do, asked when the disk is looked at: pods begin while containers end.
        """
        for pod_uid, (sandboxes, found) in left.items():
            try:
                for container in found:
                    if container.state == cri.RUNNING:
                        await self._runtime.stop_container(container.id, _ORPHAN_GRACE_S)
                    await self._runtime.remove_container(container.id)
                for sandbox in sandboxes:
                    await self._runtime.stop_pod_sandbox(sandbox.id)
                    await self._runtime.remove_pod_sandbox(sandbox.id)
                log.info("Pod that is gone was removed", extra={"uid": pod_uid})
            except RuntimeFailure as failure:
                log.warning("Pod that is gone is left behind", extra={"uid": pod_uid, "reason": failure.message})
        try:
            self._host.remove_orphans(known())
        except OSError as error:
            log.warning("Files of a pod that is gone are left behind", extra={"reason": str(error)})
