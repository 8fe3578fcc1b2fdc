"""`k3s uninstall`: stops all pods and removes every trace of k3s from this host (spec 7.4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from k3s.cli.main import fail

_HELP = """usage: k3s uninstall [--keep-data]

Stops every pod and containerd, removes links, packet rules and mounts of k3s, and then its folders.
  --keep-data   leave /var/lib/rancher/k3s and /etc/rancher as they are
"""


def main(args: Sequence[str]) -> int:
    """Runs the removal; answers the exit code."""
    if any(a in ("-h", "--help") for a in args):
        print(_HELP)
        return 0
    unknown = [a for a in args if a != "--keep-data"]
    if unknown:
        fail(f"Unknown argument {unknown[0]!r}: see k3s uninstall --help")
    if os.geteuid() != 0:
        fail("Cannot uninstall: run it as root", 1)
    from k3s.run.removal import remove

    for line in remove(Path(os.environ.get("K3S_DATA_DIR") or "/var/lib/rancher/k3s"), "--keep-data" in args):
        print(line)
    return 0
