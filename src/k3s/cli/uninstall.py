"""`k3s uninstall`: stops all pods and removes every trace of k3s from this host (spec 7.4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from k3s.cli.main import fail

_HELP = """usage: k3s uninstall [options]

Stops every pod and containerd, removes links, packet rules and mounts of k3s, and then its folders.
  --data-dir=FOLDER  folder of all state (default: as k3s server would use it)
  --keep-data        leave the data folder and /etc/rancher as they are
"""


def main(args: Sequence[str]) -> int:
    """Runs the removal; answers the exit code."""
    if any(a in ("-h", "--help") for a in args):
        print(_HELP, end="")
        return 0
    data_dir = _data_dir(args)
    if os.geteuid() != 0:
        fail("Cannot uninstall: run it as root", 1)
    from k3s.run.removal import remove, running

    part = running(data_dir)
    if part:
        fail(f"Cannot uninstall: k3s {part} still runs on {data_dir}; stop it first", 1)
    for line in remove(data_dir, "--keep-data" in args):
        print(line)
    return 0


def _data_dir(args: Sequence[str]) -> Path:
    """The data folder: given, or as the options of the server and their config file say."""
    from k3s.run.config import ConfigError, default_data_dir, resolve

    rest = [a for a in args if a != "--keep-data"]
    unknown = [a for a in rest if not a.startswith("--data-dir=")]
    if unknown:
        fail(f"Unknown argument {unknown[0]!r}: see k3s uninstall --help")
    if rest:
        return Path(rest[-1].partition("=")[2]).absolute()
    try:
        given = resolve("server", (), os.environ).text("data-dir")
    except ConfigError as error:
        fail(f"{error}; or name the folder with --data-dir=FOLDER")
    return Path(given).absolute() if given else default_data_dir(os.environ, True)
