"""The machine as the kubelet sees it, behind one seam: the real one, and one in memory for simulation and tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from k3s.api.object import Object
from k3s.client.client import Client
from k3s.kubelet import environment, machine, mounts, resources, volumes
from k3s.kubelet.cgroups import Cgroups
from k3s.kubelet.files import PodFiles
from k3s.kubelet.launch import Mount, NodeFacts
from k3s.kubelet.machine import Disk, Machine, Resolver
from k3s.kubelet.runtime.interface import Container
from k3s.kubelet.sources import Sources


class Host(Protocol):
    """What the kubelet asks of the machine beside its container runtime."""

    def machine(self) -> Machine:
        """The facts that do not change."""

    def disk(self) -> Disk:
        """The file system that holds pods' files."""

    def memory_available(self) -> int:
        """Bytes of memory that can be had."""

    def cpu_ns(self) -> int:
        """Processor time used since the machine started, in nanoseconds."""

    def pids(self) -> tuple[int, int]:
        """How many process ids there may be, and how many are in use."""

    def resolver(self, chosen: str) -> Resolver:
        """How names are resolved; `chosen` is a resolv.conf, or empty."""

    def files(self, client: Client, sources: Sources) -> PodFiles:
        """The files of one pod."""

    def remove_orphans(self, known: set[str]) -> None:
        """Removes the folders and cgroups of pods whose uid is not known."""

    def ensure_cgroup(self, path: str, limits: Mapping[str, int]) -> None:
        """Makes a cgroup with limits. Raises OSError."""

    def remove_cgroup(self, path: str) -> None:
        """Removes a cgroup. Raises OSError."""


class LinuxHost:
    """This machine; `root` is the kubelet's folder, `logs` and `links` where logs are kept and linked."""

    def __init__(self, root: Path, logs: Path, links: Path) -> None:
        self._root, self._logs, self._links = root, logs, links
        self._cgroups = Cgroups()
        root.mkdir(parents=True, exist_ok=True)

    def machine(self) -> Machine:
        return machine.read()

    def disk(self) -> Disk:
        return machine.disk(self._root)

    def memory_available(self) -> int:
        return machine.memory_available()

    def cpu_ns(self) -> int:
        return machine.cpu_ns()

    def pids(self) -> tuple[int, int]:
        return machine.pids()

    def resolver(self, chosen: str) -> Resolver:
        return machine.resolver(chosen)

    def files(self, client: Client, sources: Sources) -> PodFiles:
        return PodFiles(client, sources, self._root, self._logs, self._links)

    def remove_orphans(self, known: set[str]) -> None:
        folder = self._root / "pods"
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name not in known:
                mounts.remove_folder(str(path))
        for cgroup in self._cgroups.pods():
            if cgroup.rpartition("/pod")[2] not in known:
                self._cgroups.remove(cgroup)

    def ensure_cgroup(self, path: str, limits: Mapping[str, int]) -> None:
        self._cgroups.ensure(path, limits)

    def remove_cgroup(self, path: str) -> None:
        self._cgroups.remove(path)


class FakeHost:
    """A machine in memory: nothing is written anywhere. Its attributes may be changed to make it short of something."""

    def __init__(self, cpus: int = 4, memory_bytes: int = 8 << 30) -> None:
        self.cpus, self.memory_bytes = cpus, memory_bytes
        self.free_memory = memory_bytes // 2
        self.free_disk = 80 << 30
        self.used_cpu_ns = 0

    def machine(self) -> Machine:
        return Machine(self.cpus, self.memory_bytes, "fake", "fake", "fake", "6.1", "Fake Linux", "amd64")

    def disk(self) -> Disk:
        return Disk(100 << 30, self.free_disk, 1 << 20, 1 << 19)

    def memory_available(self) -> int:
        return self.free_memory

    def cpu_ns(self) -> int:
        return self.used_cpu_ns

    def pids(self) -> tuple[int, int]:
        return 32768, 100

    def resolver(self, chosen: str) -> Resolver:
        return Resolver(("192.0.2.53",))

    def files(self, client: Client, sources: Sources) -> PodFiles:
        return FakeFiles(client, sources, Path("/fake"), Path("/fake/logs"), Path("/fake/links"))

    def remove_orphans(self, known: set[str]) -> None:
        pass

    def ensure_cgroup(self, path: str, limits: Mapping[str, int]) -> None:
        assert path.startswith(resources.ROOT), path

    def remove_cgroup(self, path: str) -> None:
        pass


class FakeFiles(PodFiles):
    """A pod's files that are planned and filled like real ones, and kept in memory: `content[volume][path]`."""

    content: dict[str, dict[str, volumes.File]]

    async def prepare(self, pod: Object, facts: NodeFacts, node: Mapping[str, str], now: float) -> None:
        volumes.plans(pod, str(self.root))
        await self.refresh(pod, facts, node, now)

    def write(self, plan: volumes.Plan, content: Mapping[str, volumes.File], pod: Object) -> None:
        self.content = {**getattr(self, "content", {}), plan.name: dict(content)}

    def mounts(
        self, pod: Object, container: Object, variables: Mapping[str, str], addresses: tuple[str, ...], facts: NodeFacts
    ) -> list[Mount]:
        plans = {plan.name: plan for plan in volumes.plans(pod, str(self.root))}
        for mount in container.get("volumeMounts") or ():
            environment.expand(mount.get("subPathExpr") or "", variables)
            if mount["name"] not in plans:
                raise volumes.VolumeError(f'container "{container["name"]}" mounts the unknown "{mount["name"]}"')
        return []

    def message_mount(self, pod: Object, container: Object, attempt: int) -> Mount:
        return Mount("/dev/termination-log", "/fake/termination-log")

    def termination_message(self, pod: Object, ended: Container) -> str:
        return ""

    def make_log_folder(self, pod: Object, container: str) -> None:
        pass

    def link_log(self, pod: Object, started: Container) -> None:
        pass

    def unmount(self, pod: Object) -> None:
        pass

    def remove(self, pod: Object, ended: list[Container]) -> None:
        pass
