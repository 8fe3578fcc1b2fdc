"""`k3s kubectl`: the real kubectl with this cluster's kubeconfig (spec 1.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from k3s.base import bundle
from k3s.base.clock import SystemClock
from k3s.cli import programs
from k3s.cli.complaint import complain
from k3s.cli.main import fail

_SYSTEM_KUBECONFIG = Path("/etc/rancher/k3s/k3s.yaml")


def find() -> str | None:
    """The kubectl of the executable's payload, or that of the locked dependencies, else the one on PATH."""
    if found := bundle.program("kubectl"):
        return found
    import sysconfig  # slow to load, and the payload has been looked at

    locked = Path(sysconfig.get_path("scripts")) / "kubectl"
    return str(locked) if locked.is_file() else programs.find("kubectl")


def kubeconfig() -> str:
    """KUBECONFIG's default: the system's file when it is there, else the user's own of a server without root. "" when
    neither is there: then kubectl's own default holds, ~/.kube/config (k3s: HomeKubeConfig)."""
    # As it stands where nobody says where home is, as in a container from scratch.
    own = Path(os.path.expanduser("~"), ".kube", "k3s.yaml")
    return next((str(path) for path in (_SYSTEM_KUBECONFIG, own) if os.path.exists(path)), "")


def _chosen(args: Sequence[str]) -> bool:
    return any(word == "--kubeconfig" or word.startswith("--kubeconfig=") for word in args)


def main(args: Sequence[str]) -> NoReturn:
    """Replaces the process by kubectl; all arguments pass untouched."""
    program = find()
    if program is None:
        fail("Cannot find kubectl: reinstall the dependencies by removing the .venv folder and running ./k3s again", 1)
    env = dict(os.environ)
    if not env.get("KUBECONFIG") and not _chosen(args) and (path := kubeconfig()):
        env["KUBECONFIG"] = path
        if not os.access(path, os.R_OK):
            # kubectl's own words do not tell the remedy.
            complain(
                "warning",
                f"Unable to read {path}, please start server with --write-kubeconfig-mode or --write-kubeconfig-group "
                "to modify kube config permissions",
                SystemClock().now(),
            )
    os.execve(program, [program, *args], env)
