"""Takes a node apart: shims, mounts, links, packet rules, cgroups, folders (as k3s-killall and k3s-uninstall)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k3s.run.lock import is_held

_LINKS = ("cni0", "k3s-dns")
_RUN = Path("/run/k3s")
# What the CNI library notes of each pod; others (podman) note theirs beside ours, so that only ours are taken away.
_CNI_RESULTS = Path("/var/lib/cni/results")
_CNI_NETWORK = "cbr0"
_NETNS = Path("/run/netns")
# Where containerd listens for plugins of its node resource interface.
_NRI = Path("/run/nri/nri.sock")
_DEFAULT_DATA_DIR = Path("/var/lib/rancher/k3s")
_KUBELET = Path("/var/lib/kubelet")
# What k3s makes below the data folder; anything else there is not ours to remove.
_STATE = ("server", "agent", "data", "storage")
_OUTSIDE = (Path("/etc/rancher"), Path("/var/log/pods"), Path("/var/log/containers"))
_KILL_S = 10.0


def running(data_dir: Path) -> str:
    """Which part of k3s still works on this folder: server, agent, or empty."""
    return next((part for part in ("server", "agent") if is_held(data_dir / part)), "")


def remove(data_dir: Path, keep_data: bool) -> Iterator[str]:
    """Removes everything that a server and an agent on this data folder have made, telling each step.

    Neither may run any more. What other runtimes have on this machine stays.
    """
    # The kubelet keeps pods at the usual place for the usual data folder only (see `run.agent`).
    pods = (_KUBELET / "pods",) if data_dir == _DEFAULT_DATA_DIR else (data_dir / "agent" / "kubelet" / "pods",)
    yield f"stopping containers and their shims: {_kill_shims(data_dir)}"
    namespaces = _namespaces()
    for mount in _mounts_below((f"{_RUN}/", f"{data_dir}/", *(f"{p}/" for p in pods), *map(str, namespaces))):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    yield "unmounted volumes and container roots"
    for path in (*namespaces, *_results()):
        with contextlib.suppress(OSError):
            path.unlink()
    _remove_stale_socket(_NRI)
    for link in (*_ports_of("cni0"), *_LINKS):
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
    yield "removed links"
    for family in ("ip", "ip6"):
        for table in ("k3s", "k3s-pods"):
            subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    _remove_port_mappings()
    _remove_bare_tables()
    yield "removed packet rules"
    _remove_cgroups()
    _remove_folders(data_dir, pods, keep_data)
    yield "removed folders" if not keep_data else f"kept {data_dir} and /etc/rancher"


def _remove_folders(data_dir: Path, pods: tuple[Path, ...], keep_data: bool) -> None:
    gone = [_RUN, *pods]
    if not keep_data:
        gone += [*(data_dir / part for part in _STATE), *_OUTSIDE]
        gone += [_KUBELET] if data_dir == _DEFAULT_DATA_DIR else []
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    # Folders that others may use, too: only when nothing is left in them.
    parents = () if keep_data else (data_dir, *((data_dir.parent,) if data_dir == _DEFAULT_DATA_DIR else ()))
    for folder in (_CNI_RESULTS, _CNI_RESULTS.parent, _NETNS, _NRI.parent, *parents):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _kill_shims(data_dir: Path) -> int:
    """Kills our containerd, its shims, and what runs below them, and waits until they are gone; answers how many."""
    own = (f"{_RUN}/containerd/".encode(), f"{data_dir}/agent/etc/containerd/".encode())
    here = Path("/proc/self/ns/pid").readlink()
    parents: dict[int, int] = {}
    roots: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
            same = (entry / "ns" / "pid").readlink() == here  # not a k3s inside a container of somebody's
            if same and b"containerd" in words[0] and any(word.startswith(own) for word in words):
                roots.append(int(entry.name))
    doomed = set(roots)
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in doomed} - doomed
        grew = bool(more)
        doomed |= more
    doomed.discard(os.getpid())
    _kill(doomed)
    return len(doomed)


def _kill(pids: set[int]) -> None:
    handles: list[int] = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGKILL)
    for handle in handles:
        # Readable once the process has ended: before that its cgroup cannot be removed.
        select.select([handle], [], [], _KILL_S)
        os.close(handle)


def _results() -> list[Path]:
    """The CNI library's notes of our pods, those of their loopback devices too: `<network>-<sandbox>-<device>`."""
    ours = list(_CNI_RESULTS.glob(f"{_CNI_NETWORK}-*"))
    sandboxes = {path.name.removeprefix(f"{_CNI_NETWORK}-").rpartition("-")[0] for path in ours}
    return [*ours, *(_CNI_RESULTS / f"cni-loopback-{sandbox}-lo" for sandbox in sandboxes)]


def _remove_stale_socket(path: Path) -> None:
    """Removes a socket that nobody listens at any more."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError:
            return


def _namespaces() -> list[Path]:
    """The network namespaces of our pods, as the CNI library noted them."""
    found: list[Path] = []
    for path in _CNI_RESULTS.glob(f"{_CNI_NETWORK}-*"):
        with contextlib.suppress(OSError, ValueError):
            interfaces = json.loads(path.read_bytes()).get("result", {}).get("interfaces", ())
            paths = {Path(i["sandbox"]).resolve() for i in interfaces if i.get("sandbox")}
            found += [p for p in paths if p.parent == _NETNS]
    return found


def _mounts_below(prefixes: tuple[str, ...]) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((m for m in mounts if m.startswith(prefixes)), reverse=True)


def _ports_of(bridge: str) -> list[str]:
    folder = Path("/sys/class/net") / bridge / "brif"
    return [p.name for p in folder.iterdir()] if folder.is_dir() else []


def _remove_port_mappings() -> None:
    """Drops what the portmap plugin left for our pods; mappings of other networks stay."""
    for program in ("iptables", "ip6tables"):
        saved = subprocess.run([f"{program}-save"], check=False, capture_output=True, text=True)
        if saved.returncode == 0 and "CNI-" in saved.stdout:
            kept = without_port_mappings(saved.stdout)
            subprocess.run([f"{program}-restore"], input=kept, text=True, check=False, capture_output=True)


def without_port_mappings(saved: str) -> str:
    """The text of iptables-save without the chains of our network's pods.

    The plugin notes the network in a comment of the rule that leads to a pod's chain. Chains that all networks share go
    with the last pod.
    """
    lines = saved.splitlines()
    ours = {
        line.split(" -j ")[1].split()[0]
        for line in lines
        if f'name: \\"{_CNI_NETWORK}\\"' in line and " -j CNI-" in line
    }
    left = [line for line in lines if ours.isdisjoint(line.lstrip(":").split())]
    if not any(line.startswith(":CNI-DN-") for line in left):
        left = [line for line in left if "CNI-" not in line]
    return "\n".join(left) + "\n"


def _remove_bare_tables() -> None:
    """Drops the tables that iptables made for the portmap plugin, when nobody has a rule or a chain in them."""
    for family in ("ip", "ip6"):
        command = ["nft", "--json", "list", "table", family, "nat"]
        listed = subprocess.run(command, check=False, capture_output=True)
        if listed.returncode == 0 and is_bare(json.loads(listed.stdout)):
            subprocess.run(["nft", "delete", "table", family, "nat"], check=False, capture_output=True)


def is_bare(listed: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether a table, as nft lists it in JSON, has no more than the chains that iptables makes of itself."""
    parts = [(kind, value) for entry in listed["nftables"] for kind, value in entry.items()]
    others = [value for kind, value in parts if kind not in ("metainfo", "table", "chain")]
    chains = [value for kind, value in parts if kind == "chain"]
    return not others and all("hook" in chain and chain.get("policy") == "accept" for chain in chains)


def _remove_cgroups() -> None:
    root = Path("/sys/fs/cgroup")
    for folder in [*root.glob("*/kubepods"), root / "kubepods"]:
        for inner in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else []:
            if inner.is_dir():
                with contextlib.suppress(OSError):
                    inner.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
