"""What runs containers on this node, ready for use: containerd (or another runtime) with the images that we ship."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from k3s.base import files
from k3s.base.aio import Tasks
from k3s.base.inotify import FolderWatch
from k3s.kubelet import images
from k3s.kubelet.containerd import Containerd, ContainerdConfig
from k3s.kubelet.images import Importer
from k3s.kubelet.runtime.cri import CriRuntime
from k3s.kubelet.runtime.interface import RuntimeFailure

log = logging.getLogger(__name__)

# A file that is being copied into the folder is read once nothing was written for this long.
_QUIET_S = 1.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`endpoint` names the socket of a runtime that others run; then nothing is started and nothing imported."""

    containerd: ContainerdConfig
    images: Path  # <agent>/images: archives to import, lists to pull
    endpoint: str = ""


class Engine:
    """The runtime as a service; `runtime` may be used once `run` has called `ready`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self.socket = config.endpoint.removeprefix("unix://") or str(config.containerd.socket)
        self.runtime = CriRuntime(self.socket)
        self._stamps = config.containerd.root / "imported.json"

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled. Raises RuntimeError when containerd cannot start or ends."""
        if self._config.endpoint:
            await self.runtime.version()
            ready()
            try:
                await asyncio.Event().wait()
            finally:
                await self.runtime.close()
        containerd = Containerd(self._config.containerd)
        tasks = Tasks("engine")
        try:
            probe = await containerd.start()
            await probe.close()
            importer = Importer(self._config.containerd.socket)
            await images.ensure_pause(self.runtime, importer, self._config.containerd.sandbox_image)
            await self._import(importer)
            tasks.spawn(self._pull_listed(importer), "pull listed images")
            tasks.spawn(self._follow(importer, tasks), "follow images")
            ready()
            code = await containerd.wait()
            raise RuntimeError(
                f"containerd ended with code {code}; see {self._config.containerd.root / 'containerd.log'}"
            )
        finally:
            await tasks.close()
            await self.runtime.close()
            await containerd.stop()

    async def _import(self, importer: Importer) -> None:
        """Imports the archives that are new or changed since they were imported last."""
        folder = self._config.images
        if not folder.is_dir():
            return
        known: dict[str, list[int]] = {}
        if self._stamps.exists():
            known = msgspec.json.decode(self._stamps.read_bytes())
        seen: dict[str, list[int]] = {}
        for path in images.archives(folder):
            about = path.stat()
            stamp = [about.st_size, about.st_mtime_ns]
            if known.get(path.name) == stamp:
                seen[path.name] = stamp
                continue
            try:
                await importer.load(path)
                seen[path.name] = stamp
                log.info("Image archive imported", extra={"path": str(path)})
            except (RuntimeError, OSError) as error:
                log.error("Image archive was not imported", extra={"path": str(path), "reason": str(error)})
        if seen != known:
            files.write(self._stamps, msgspec.json.encode(seen))

    async def _pull_listed(self, importer: Importer) -> None:
        for name in images.listed_images(self._config.images):
            try:
                full = images.full_name(name)
                found = await self.runtime.image_status(full)
                if found is None:
                    await self.runtime.pull_image(full, None, None)
                if found is None or not found.pinned:
                    await importer.pin(full)
            except (RuntimeFailure, RuntimeError, images.ImageFailure) as failure:
                log.error("Listed image was not pulled", extra={"image": name, "reason": str(failure)})

    async def _follow(self, importer: Importer, tasks: Tasks) -> None:
        """Imports, and pulls, what comes into the folder later."""
        wake = asyncio.Event()
        watch = FolderWatch(files.folder(self._config.images), lambda _name: wake.set())
        try:
            while True:
                await wake.wait()
                while wake.is_set():
                    wake.clear()
                    await asyncio.sleep(_QUIET_S)
                await self._import(importer)
                # A registry that does not answer must not hold up archives.
                tasks.spawn(self._pull_listed(importer), "pull listed images")
        finally:
            watch.close()
