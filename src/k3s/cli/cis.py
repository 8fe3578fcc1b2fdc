"""`k3s check-config --cis [--data-dir=FOLDER]`: the checks of the CIS Kubernetes benchmark that look at files of k3s.

A row of CHECKS is a check: its number in the benchmark (2.1, as k3s' own assessment reads it), which files, what they
may be. Files that only the other role has (server, agent) are not held against a host. The exit code is the number of
failures.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k3s.cli.check_config import Finding, show
from k3s.run.config import ConfigError, default_data_dir, resolve

ROOT = (0, 0)


@dataclass(frozen=True, slots=True)
class Check:
    """Files below the data folder (a glob) that have no bits but those of `most`, or, without it, belong to root."""

    number: str
    what: str
    files: str
    most: int | None = None

    @property
    def wanted(self) -> str:
        """What the check asks of each file."""
        return "owned by root:root" if self.most is None else f"mode {self.most:o} or less"


def _both(first: str, second: str, what: str, files: str, most: int) -> tuple[Check, Check]:
    """The benchmark asks most files for their mode and, one number on, for their owner."""
    return Check(first, what, files, most), Check(second, what, files)


CHECKS = (
    Check("1.1.11", "folder of the datastore", "server/db", 0o700),
    Check("1.1.12", "folder of the datastore", "server/db"),
    *_both("1.1.13", "1.1.14", "administrator's credential", "server/cred/admin.kubeconfig", 0o600),
    *_both("1.1.15", "1.1.16", "scheduler's credential", "server/cred/scheduler.kubeconfig", 0o600),
    *_both("1.1.17", "1.1.18", "controllers' credential", "server/cred/controller.kubeconfig", 0o600),
    Check("1.1.19", "folder of certificates", "server/tls"),
    Check("1.1.19", "certificates and keys", "server/tls/**/*"),
    Check("1.1.20", "certificates", "server/tls/**/*.crt", 0o644),
    Check("1.1.21", "keys", "server/tls/**/*.key", 0o600),
    *_both("4.1.3", "4.1.4", "service routing's credential", "agent/client-kube-proxy.key", 0o600),
    *_both("4.1.5", "4.1.6", "kubelet's credential", "agent/client-kubelet.key", 0o600),
    *_both("4.1.7", "4.1.8", "authority of the kubelet's clients", "agent/client-ca.crt", 0o644),
)


def findings(data_dir: Path, owner: tuple[int, int] = ROOT) -> Iterator[Finding]:
    """Judges the files below `data_dir`; `owner` is the user and group that files must have.

    Raises PermissionError where a folder cannot be looked into: nothing found there would say nothing.
    """
    for role in ("server", "agent"):
        if (data_dir / role).is_dir():
            os.listdir(data_dir / role)
    for check in CHECKS:
        paths = sorted(data_dir.glob(check.files))
        faults = [fault for path in paths if (fault := _fault(check, path, owner))]
        state, found = ("missing", "; ".join(faults)) if faults else ("ok", "pass" if paths else "no such file here")
        yield Finding(state, f"{check.number} {check.what}: {check.wanted}", found)


def _fault(check: Check, path: Path, owner: tuple[int, int]) -> str:
    """What is wrong with a file and the command that repairs it; empty when nothing is."""
    status = path.stat()
    if check.most is None:
        has = (status.st_uid, status.st_gid)
        return "" if has == owner else f"{path} belongs to {has[0]}:{has[1]}: chown {owner[0]}:{owner[1]} {path}"
    mode = stat.S_IMODE(status.st_mode)
    return f"{path} has mode {mode:o}: chmod {check.most:o} {path}" if mode & ~check.most else ""


def markdown() -> str:
    """The table of docs/security.md."""
    rows = (f"| {c.number} | {c.what} | `{c.files}` | {c.wanted} |" for c in CHECKS)
    return "\n".join(("| number | what | below the data folder | asked |", "|---|---|---|---|", *rows)) + "\n"


def main(args: Sequence[str], env: Mapping[str, str]) -> int:
    """Prints the findings; answers how many are failures, 1 when there is nothing to look at."""
    unknown = [a for a in args if not a.startswith("--data-dir=")]
    if unknown:
        print(f"error: --cis does not know {unknown[0]}: it takes --data-dir=FOLDER alone")
        return 1
    try:
        folder = args[-1].partition("=")[2] if args else resolve("server", (), env).text("data-dir")
        data_dir = Path(folder).absolute() if folder else default_data_dir(env, os.geteuid() == 0)
        if not any((data_dir / role).is_dir() for role in ("server", "agent")):
            print(f"error: no k3s has run in {data_dir}: start it first, or name its folder with --data-dir=FOLDER")
            return 1
        failures = show("CIS Kubernetes benchmark, files", list(findings(data_dir)))
    except ConfigError as error:
        print(f"error: {error}; or name the folder with --data-dir=FOLDER")
        return 1
    except PermissionError as error:
        print(f"error: cannot look into {error.filename}: run this as root")
        return 1
    print(f"\nSTATUS: {failures or 'pass'}")
    return min(failures, 125)
