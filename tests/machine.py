"""A fresh Debian below a folder, for tests of the first use: nothing but CPython is installed in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_ACQUIRE = ("Acquire::Check", "Acquire::http")
# Mounts are the command's own: they go with it.
_ENTER = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
root=$1
shift
exec chroot "$root" "$@"
"""


class Unavailable(Exception):
    """The machine cannot be made here; the message says why."""


class FreshMachine:
    """Debian of one suite. It shares this machine's kernel and network; processes and mounts are its own."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder = folder
        self.suite = suite

    def make(self) -> None:
        """Installs the base system and puts a copy of the working tree at /srv/k3s. Raises Unavailable."""
        if shutil.which("debootstrap") is None:
            raise Unavailable("debootstrap is not installed: apt-get install debootstrap")
        command = ["debootstrap", "--variant=minbase", "--include=python3", self.suite, str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"debootstrap says: {done.stdout[-500:]}{done.stderr[-500:]}")
        self._connect()
        self._copy_tree()

    def _connect(self) -> None:
        """What this machine needs to reach its package mirrors, the fresh one needs, too."""
        etc = self.folder / "etc"
        shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
        # Not where the package of certificates would put its own.
        if _AUTHORITIES.exists():
            shutil.copyfile(_AUTHORITIES, etc / "host-authorities.crt")
        told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
        lines = [line for line in told.stdout.splitlines(True) if line.startswith(_ACQUIRE)]
        (etc / "apt" / "apt.conf.d" / "99host").write_text("".join(lines))

    def _copy_tree(self) -> None:
        listed = subprocess.run(
            [
                "git",
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
                "--",
                "k3s",
                "*.lock",
                "src",
                "packaging",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = self.folder / "srv" / "k3s" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists():
                shutil.copy2(ROOT / name, target)

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` in the machine."""
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return [*enter, "sh", "-euc", _ENTER, "sh", str(self.folder), *words]

    def environment(self) -> dict[str, str]:
        """What a new user's shell has."""
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        authorities = {"PIP_CERT": "/etc/host-authorities.crt"} if _AUTHORITIES.exists() else {}
        return {
            "HOME": "/root",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **passed,
            **authorities,
        }

    def run(self, script: str, timeout: float = 120) -> str:
        """Runs a shell script in /srv/k3s; its output (both kinds). Fails when the script fails."""
        words: Sequence[str] = self.command("sh", "-euc", f"cd /srv/k3s\n{script}")
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}:\n{done.stdout[-8000:]}"
        return done.stdout
