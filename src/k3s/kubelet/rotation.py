"""Keeps container logs small: a full file is renamed, the runtime opens a new one, old ones are packed and removed.

Names and limits as the kubelet has them: `<n>.log.<YYYYMMDD-HHMMSS>`, all but the newest with `.gz`, 10 MiB, 5 files.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
from pathlib import Path

from k3s.api import times
from k3s.base import aio
from k3s.base.clock import Clock
from k3s.kubelet.runtime.interface import Runtime, RuntimeFailure

log = logging.getLogger(__name__)

ROTATE_S = 10.0


class Rotation:
    """Rotates the logs of containers that run; `max_files` counts the file that is written to."""

    def __init__(self, runtime: Runtime, clock: Clock, max_bytes: int, max_files: int) -> None:
        self._runtime, self._clock = runtime, clock
        self._max_bytes, self._max_files = max_bytes, max_files

    async def check(self, path: Path, container_id: str) -> None:
        """Rotates one log when it is full."""
        try:
            if path.stat().st_size < self._max_bytes:
                return
        except FileNotFoundError:
            return
        stamp = times.format(self._clock.now())
        rotated = path.with_name(f"{path.name}.{stamp[:10].replace('-', '')}-{stamp[11:19].replace(':', '')}")
        try:
            await aio.blocking(self._make_room, path)
            path.rename(rotated)
            await self._runtime.reopen_container_log(container_id)
        except (OSError, RuntimeFailure) as error:
            if rotated.exists() and not path.exists():
                # The runtime still writes to the renamed file: it gets its name back.
                rotated.rename(path)
            log.warning("Container log was not rotated", extra={"path": str(path), "reason": str(error)})

    def _make_room(self, path: Path) -> None:
        """Packs the rotated files that are not packed yet and removes the oldest."""
        old = sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name + ".") and p.suffix != ".tmp")
        # Room for the file that is written to and the one that is about to be rotated.
        for extra in old[: max(0, len(old) - (self._max_files - 2))]:
            extra.unlink()
            old.remove(extra)
        for plain in old:
            if plain.suffix == ".gz":
                continue
            packed = plain.with_name(plain.name + ".gz")
            temporary = packed.with_name(packed.name + ".tmp")
            with plain.open("rb") as source, gzip.open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(temporary, packed)
            plain.unlink()
