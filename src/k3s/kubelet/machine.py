"""What this machine is: processors, memory, disks, kernel, identities, resolver. Read from /proc and /etc."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
# systemd's stub answers on a loopback address, which a pod cannot reach; its upstreams are in the second file.
_RESOLV = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_FALLBACK_SERVER = "8.8.8.8"


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that do not change while the machine runs."""

    cpus: int
    memory_bytes: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Resolver:
    """What /etc/resolv.conf says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """Room on a file system, in bytes and inodes."""

    capacity: int
    available: int
    inodes: int
    inodes_free: int


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""


def read() -> Machine:
    """The facts of this machine."""
    release = dict(
        line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line and line[0] != "#"
    )
    machine_id = _text("/etc/machine-id") or _text("/var/lib/dbus/machine-id")
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_meminfo()["MemTotal"],
        machine_id=machine_id,
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=release.get("PRETTY_NAME", "Linux").strip('"'),
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def _meminfo() -> dict[str, int]:
    made: dict[str, int] = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number:
            made[name] = int(number[0]) * (1024 if rest.endswith("kB") else 1)
    return made


def memory_available() -> int:
    """Bytes that can be had without swapping."""
    return _meminfo()["MemAvailable"]


def cpu_ns() -> int:
    """Processor time that all of the machine has used since it started, in nanoseconds."""
    user, nice, system, _idle, _waiting, *rest = map(int, _text("/proc/stat").split("\n", 1)[0].split()[1:])
    # Interrupts and what a hypervisor took count as used; guests are in `user` already.
    return (user + nice + system + sum(rest[:3])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def disk(path: Path) -> Disk:
    """The file system of `path`. Raises OSError."""
    found = os.statvfs(path)
    return Disk(
        capacity=found.f_blocks * found.f_frsize,
        available=found.f_bavail * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
    )


def pids() -> tuple[int, int]:
    """How many process ids there may be, and how many are in use."""
    limit = int(_text("/proc/sys/kernel/pid_max") or 32768)
    running = _text("/proc/loadavg").split()[3].partition("/")[2]
    return limit, int(running)


def resolver_of(text: str) -> Resolver:
    """The content of a resolv.conf as values; the last search line counts."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = tuple(word for word in words[1:] if word != ".")
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), searches, tuple(options))


def _reachable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def resolver(chosen: str = "") -> Resolver:
    """What pods may use to resolve names: `chosen` file, else the first file whose servers are all reachable from pods.

    When there is none, a public server (the documented fallback of k3s). Raises OSError for a chosen file.
    """
    if chosen:
        return resolver_of(Path(chosen).read_text())
    for path in _RESOLV:
        with contextlib.suppress(OSError):
            found = resolver_of(path.read_text())
            if found.servers and all(_reachable(server) for server in found.servers):
                return found
    return Resolver((_FALLBACK_SERVER,))
