"""The cgroups of pods, below which the runtime makes those of containers: version 1 (also hybrid) and version 2."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from k3s.kubelet import resources

log = logging.getLogger(__name__)

_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


class Cgroups:
    """Makes, limits and removes pod cgroups. `root` is where the hierarchies are mounted."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._root = root
        self.unified = (root / "cgroup.controllers").exists()

    def _hierarchies(self) -> list[Path]:
        if self.unified:
            return [self._root]
        with os.scandir(self._root) as entries:
            return [Path(e.path) for e in entries if e.is_dir() and not e.is_symlink()]

    def _enable(self, folder: Path) -> None:
        """Hands the controllers down to the children of each folder on the way to `folder` (version 2)."""
        steps = [self._root]
        for part in folder.parent.relative_to(self._root).parts:
            steps.append(steps[-1] / part)
        for step in steps:
            step.mkdir(exist_ok=True)
            there = (step / "cgroup.controllers").read_text().split()
            on = set((step / "cgroup.subtree_control").read_text().split())
            wanted = [c for c in _CONTROLLERS if c in there and c not in on]
            if wanted:
                (step / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in wanted))

    def ensure(self, path: str, limits: Mapping[str, int]) -> None:
        """Makes the cgroup `path` with `cpu_shares`, `cpu_quota` and `memory`. Raises OSError."""
        relative = path.lstrip("/")
        if self.unified:
            folder = self._root / relative
            self._enable(folder)
            folder.mkdir(exist_ok=True)
            self._write(folder / "cpu.weight", resources.cpu_weight(limits.get("cpu_shares", 2)))
            quota = limits.get("cpu_quota")
            self._write(folder / "cpu.max", f"{quota or 'max'} {resources.PERIOD_US}")
            if "memory" in limits:
                self._write(folder / "memory.max", limits["memory"])
            return
        for controller in ("cpu", "memory"):
            if (self._root / controller).is_dir():
                (self._root / controller / relative).mkdir(parents=True, exist_ok=True)
        cpu = self._root / "cpu" / relative
        self._write(cpu / "cpu.shares", limits.get("cpu_shares", 2))
        if "cpu_quota" in limits:
            self._write(cpu / "cpu.cfs_period_us", resources.PERIOD_US)
            self._write(cpu / "cpu.cfs_quota_us", limits["cpu_quota"])
        if "memory" in limits:
            self._write(self._root / "memory" / relative / "memory.limit_in_bytes", limits["memory"])

    def _write(self, path: Path, value: int | str) -> None:
        # A kernel without a controller has no file for it; the pod runs without that limit.
        with contextlib.suppress(FileNotFoundError):
            path.write_text(str(value))

    def remove(self, path: str) -> None:
        """Removes a pod's cgroup and the empty ones below it; what still has processes stays and is told."""
        busy = False
        for hierarchy in self._hierarchies():
            top = hierarchy / path.lstrip("/")
            for folder, _folders, _files in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    busy = True
        if busy:
            log.warning("Cgroup is still in use", extra={"path": path})

    def pods(self) -> set[str]:
        """The paths of all pod cgroups that exist."""
        found: set[str] = set()
        for hierarchy in self._hierarchies():
            for middle in ("", "/burstable", "/besteffort"):
                folder = hierarchy / (resources.ROOT.lstrip("/") + middle)
                with contextlib.suppress(FileNotFoundError):
                    found |= {f"{resources.ROOT}{middle}/{e.name}" for e in os.scandir(folder) if e.name[:3] == "pod"}
        return found
