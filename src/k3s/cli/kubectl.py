"""`k3s kubectl`: the real kubectl with this cluster's kubeconfig (spec 1.1)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from k3s.base import bundle
from k3s.cli.main import fail

_SYSTEM_KUBECONFIG = Path("/etc/rancher/k3s/k3s.yaml")


def find() -> str | None:
    """The kubectl of the executable's payload, or that of the locked dependencies, else the one on PATH."""
    if found := bundle.program("kubectl"):
        return found
    import sysconfig  # slow to load, and the payload has been looked at

    locked = Path(sysconfig.get_path("scripts")) / "kubectl"
    return str(locked) if locked.is_file() else shutil.which("kubectl")


def kubeconfig() -> str:
    """KUBECONFIG's default: the system's file when it exists, else the user's own (spec 1.1)."""
    if _SYSTEM_KUBECONFIG.exists():
        return str(_SYSTEM_KUBECONFIG)
    return str(Path.home() / ".kube" / "k3s.yaml")


def main(args: Sequence[str]) -> NoReturn:
    """Replaces the process by kubectl; all arguments pass untouched."""
    program = find()
    if program is None:
        fail("Cannot find kubectl: reinstall the dependencies by removing the .venv folder and running ./k3s again", 1)
    env = dict(os.environ)
    if not env.get("KUBECONFIG"):
        path = kubeconfig()
        env["KUBECONFIG"] = path
        if os.path.exists(path) and not os.access(path, os.R_OK):
            print(
                f"k3s: Unable to read {path}: run as root, or start the server with --write-kubeconfig-mode=644",
                file=sys.stderr,
            )
    os.execve(program, [program, *args], env)
