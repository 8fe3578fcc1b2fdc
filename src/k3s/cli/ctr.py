"""`k3s ctr`: containerd's own client, pointed at this node's containerd (spec 1.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from k3s.cli import programs
from k3s.cli.main import fail

_SOCKET = "/run/k3s/containerd/containerd.sock"


def main(args: Sequence[str]) -> NoReturn:
    """Replaces the process by ctr; all arguments pass untouched."""
    program = programs.find("ctr")
    if program is None:
        fail("Cannot find ctr: install containerd (Debian and Ubuntu: apt-get install containerd)", 1)
    env = {"CONTAINERD_ADDRESS": _SOCKET, "CONTAINERD_NAMESPACE": "k8s.io", **os.environ}
    os.execve(program, [program, *args], env)
