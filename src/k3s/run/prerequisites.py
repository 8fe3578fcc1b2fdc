"""The programs of the system that a node needs: which are missing, and their installation where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from k3s.base import bundle
from k3s.kubelet import pause
from k3s.run.config import ConfigError

#: Program -> Debian package. Programs of the original's packaging that nothing here calls yet are left out.
PROGRAMS = {
    "nft": "nftables",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
}
#: Those of the runtime that we start.
RUNTIME_PROGRAMS = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}

CNI_PACKAGE = "containernetworking-plugins"
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("bridge", "host-local", "portmap", "loopback")


def cni_folder() -> Path | None:
    """The folder that holds the CNI reference plugins, None when none has all of those needed."""
    ours = bundle.folder()
    folders = (ours / "bin", *CNI_FOLDERS) if ours is not None else CNI_FOLDERS
    return next((f for f in folders if all((f / plugin).is_file() for plugin in _CNI_PLUGINS)), None)


def missing_packages(with_runtime: bool) -> list[str]:
    """The Debian packages a node lacks, sorted; `with_runtime`: containerd is started by us."""
    wanted = {**PROGRAMS, **(RUNTIME_PROGRAMS if with_runtime else {})}
    packages = {package for program, package in wanted.items() if shutil.which(program) is None}
    if cni_folder() is None:
        packages.add(CNI_PACKAGE)
    if pause.program() is None:
        packages.add("catatonit")
    return sorted(packages)


def install_missing(with_runtime: bool, say: Callable[[str], None]) -> None:
    """Installs what a node lacks when it may (root and apt), else raises ConfigError with the one command to run."""
    packages = missing_packages(with_runtime)
    if not packages:
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ConfigError(f"System packages are missing: {', '.join(packages)}. Run: sudo {command}")
    say(f"installing system packages: {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["apt-get", "-qq", "update"], command.split()):
        done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConfigError(f"Cannot install system packages: {' '.join(words)} said: {done.stderr.strip()[-500:]}")
    left = missing_packages(with_runtime)
    if left:
        raise ConfigError(
            f"System packages are still missing after installation: {', '.join(left)}. Install them by hand."
        )
