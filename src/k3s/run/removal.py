"""Takes a node apart: shims, mounts, links, packet rules, cgroups, folders (as k3s-killall and k3s-uninstall)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_LINKS = ("cni0", "k3s-dns")
_RUN = Path("/run/k3s")
# What the CNI library notes of each pod; others (podman) note theirs beside ours, so that only ours are taken away.
_CNI_RESULTS = Path("/var/lib/cni/results")
_CNI_NETWORK = "cbr0"
_PODS = Path("/var/lib/kubelet/pods")
_OUTSIDE = (Path("/etc/rancher"), Path("/var/lib/kubelet"), Path("/var/log/pods"), Path("/var/log/containers"))


def remove(data_dir: Path, keep_data: bool) -> Iterator[str]:
    """Removes everything, telling each step."""
    yield f"stopping containers and their shims: {_kill_shims()}"
    namespaces = _namespaces()
    for mount in _mounts_below((f"{_RUN}/", f"{data_dir}/", f"{_PODS}/", *map(str, namespaces))):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    yield "unmounted volumes and container roots"
    for path in (*namespaces, *_CNI_RESULTS.glob(f"{_CNI_NETWORK}-*")):
        with contextlib.suppress(OSError):
            path.unlink()
    for link in (*_ports_of("cni0"), *_LINKS):
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
    yield "removed links"
    for family in ("ip", "ip6"):
        for table in ("k3s", "k3s-pods"):
            subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    _remove_cni_iptables()
    yield "removed packet rules"
    _remove_cgroups()
    for folder in (_RUN, _PODS, *(() if keep_data else (data_dir, *_OUTSIDE))):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (_CNI_RESULTS, _CNI_RESULTS.parent):
        with contextlib.suppress(OSError):
            folder.rmdir()
    yield "removed folders" if not keep_data else f"kept {data_dir} and /etc/rancher"


def _kill_shims() -> int:
    """Kills our containerd, its shims, and what runs below them; answers how many processes that were."""
    parents: dict[int, int] = {}
    roots: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"containerd" in words[0] and any(
                w.startswith(b"/run/k3s/") or b"/agent/etc/containerd" in w for w in words
            ):
                roots.append(int(entry.name))
    doomed = set(roots)
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in doomed} - doomed
        grew = bool(more)
        doomed |= more
    for pid in doomed - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(doomed)


def _namespaces() -> list[Path]:
    """The network namespaces of our pods, as the CNI library noted them."""
    found: list[Path] = []
    for path in _CNI_RESULTS.glob(f"{_CNI_NETWORK}-*"):
        with contextlib.suppress(OSError, ValueError):
            interfaces = json.loads(path.read_bytes()).get("result", {}).get("interfaces", ())
            paths = {Path(i["sandbox"]).resolve() for i in interfaces if i.get("sandbox")}
            found += [p for p in paths if p.parent == Path("/run/netns")]
    return found


def _mounts_below(prefixes: tuple[str, ...]) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((m for m in mounts if m.startswith(prefixes)), reverse=True)


def _ports_of(bridge: str) -> list[str]:
    folder = Path("/sys/class/net") / bridge / "brif"
    return [p.name for p in folder.iterdir()] if folder.is_dir() else []


def _remove_cni_iptables() -> None:
    """Drops what the portmap plugin left: rules and chains whose names start with CNI-."""
    saved = subprocess.run(["iptables-save"], check=False, capture_output=True, text=True)
    if saved.returncode != 0 or "CNI-" not in saved.stdout:
        return
    kept = "\n".join(line for line in saved.stdout.splitlines() if "CNI-" not in line) + "\n"
    subprocess.run(["iptables-restore"], input=kept, text=True, check=False, capture_output=True)


def _remove_cgroups() -> None:
    root = Path("/sys/fs/cgroup")
    for folder in [*root.glob("*/kubepods"), root / "kubepods"]:
        for inner in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []:
            if inner.is_dir():
                with contextlib.suppress(OSError):
                    inner.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
