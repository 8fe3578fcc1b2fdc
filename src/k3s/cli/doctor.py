"""`k3s doctor`: what would stop k3s on this host, each with its remedy. Looks only, changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import time  # noqa: TID251 - the host's clock is what is judged

from k3s.cli import check_config
from k3s.cli.check_config import Finding
from k3s.cli.main import fail

_PORTS = {6443: "API server", 10250: "kubelet", 10256: "service health", 6444: "load balancer of the agent"}
#: Below this a node with some pods runs out of watches: each pod's folders and every log follower take some.
_INOTIFY = {"max_user_instances": 512, "max_user_watches": 65_536}
_DISK_FREE = 0.10
_DISK_BYTES = 1 << 30
_EARLIEST = 315_532_800.0  # 1980-01-01, before which certificates cannot be made


def ports(taken: Callable[[int], bool]) -> Iterator[Finding]:
    """The ports that k3s listens on."""
    for port, use in _PORTS.items():
        if taken(port):
            yield Finding(
                "missing", f"port {port} ({use})", f"taken: see `ss -ltnp 'sport = :{port}'` and stop who has it"
            )
        else:
            yield Finding("ok", f"port {port} ({use})", "free")


def is_taken(port: int) -> bool:
    """Whether something listens on a port of this host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


def inotify(proc: Path) -> Iterator[Finding]:
    """Limits on watched files: too low ones are "too many open files" later."""
    for name, least in _INOTIFY.items():
        path = proc / "sys/fs/inotify" / name
        found = int(path.read_text()) if path.exists() else 0
        remedy = "" if found >= least else f": sysctl fs.inotify.{name}={least}"
        yield Finding("ok" if found >= least else "warning", f"fs.inotify.{name}", f"{found}{remedy}")


def kernel(proc: Path) -> Iterator[Finding]:
    """Parts of the kernel that a node uses, loaded or loadable."""
    systems = (proc / "filesystems").read_text()
    good = "\toverlay\n" in systems
    yield Finding("ok" if good else "warning", "overlayfs", "present" if good else "not loaded: modprobe overlay")
    bridge = proc / "sys/net/bridge/bridge-nf-call-iptables"
    found = "present" if bridge.exists() else "not loaded: modprobe br_netfilter"
    yield Finding("ok" if bridge.exists() else "warning", "br_netfilter", found)


def clock(now: float) -> Iterator[Finding]:
    """The clock: certificates begin and end."""
    good = now > _EARLIEST
    yield Finding("ok" if good else "missing", "clock", "after 1980" if good else "before 1980: set the time")


def disk(path: Path) -> Iterator[Finding]:
    """Room where the data is: below a limit pods are evicted."""
    while not path.exists():
        path = path.parent
    use = shutil.disk_usage(path)
    good = use.free > max(_DISK_BYTES, use.total * _DISK_FREE)
    found = f"{use.free >> 20} MiB free of {use.total >> 20}"
    yield Finding("ok" if good else "warning", f"disk of {path}", found if good else f"{found}: make room")


def routes(proc: Path) -> Iterator[Finding]:
    """A way out, by which the node finds its own address."""
    route = proc / "net/route"
    lines = route.read_text().splitlines()[1:] if route.exists() else []
    default = any(line.split()[1] == "00000000" for line in lines if line.split()[1:])
    found = "present" if default else "missing: add one, or name the node's address with --node-ip"
    yield Finding("ok" if default else "warning", "default route", found)


def findings(proc: Path, data: Path, taken: Callable[[int], bool], now: float) -> Iterator[Finding]:
    """Everything that is looked at."""
    yield from ports(taken)
    yield from inotify(proc)
    yield from kernel(proc)
    yield from clock(now)
    yield from disk(data)
    yield from routes(proc)
    yield from check_config.cgroups(proc)
    yield from check_config.system(proc)
    if os.geteuid() != 0:
        yield Finding("warning", "user", "not root: only the control plane can run; use sudo for a node")


def main(args: Sequence[str]) -> int:
    """Prints what is wrong and what to do; exit code 1 when something would stop k3s."""
    if args and args[0] not in ("-h", "--help"):
        fail(f"doctor takes no arguments, not {args[0]!r}")
    if args:
        print(__doc__)
        return 0
    marks = {"ok": "ok  ", "warning": "WARN", "missing": "FAIL"}
    found = list(findings(Path("/proc"), Path("/var/lib/rancher/k3s"), is_taken, time()))
    for finding in found:
        print(f"{marks[finding.state]}  {finding.what}: {finding.found}")
    return 1 if any(finding.state == "missing" for finding in found) else 0
