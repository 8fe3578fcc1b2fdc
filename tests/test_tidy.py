"""The house rules that no other tool checks: sizes, names, purity (after TigerBeetle's tidy)."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "k3s"

FILE_LIMIT = 800
FUNCTION_LIMIT = 70

# What a name must say instead of these: the concept.
BANNED_NAMES = ("utils", "util", "helpers", "helper", "common", "manager", "misc")

# Modules with effects. Every other module is pure: the same arguments, the same answer.
EFFECTFUL = (
    "base/",
    "store/",
    "client/",
    "apiserver/",
    "run/",
    "cli/",
    "sim/",
    "controllers/runtime.py",
    "controllers/service.py",
    "controllers/informers.py",
    "controllers/execute.py",
    "scheduler/service.py",
    "scheduler/telling.py",
    "kubelet/",
    "netfilter/kernel.py",
    "netfilter/link.py",
    "proxy/service.py",
    "proxy/conntrack.py",
    "network/service.py",
    "network/host.py",
    "network/netlink.py",
    "dns/service.py",
    "dns/upstream.py",
    "cluster/",
)

# Within the folders above, these are pure.
PURE = (
    "apiserver/authz.py",
    "apiserver/identity.py",
    "apiserver/request.py",
    "apiserver/seats.py",
    "apiserver/dumps.py",
    "kubelet/pod.py",
    "kubelet/pod_events.py",
    "kubelet/pod_state.py",
    "kubelet/containers.py",
    "kubelet/status.py",
    "kubelet/probes.py",
    "kubelet/environment.py",
    "kubelet/resources.py",
    "kubelet/volumes.py",
    "kubelet/launch.py",
    "kubelet/signals.py",
    "kubelet/node.py",
    "kubelet/eviction.py",
    "apiserver/written.py",
    "apiserver/encryption/config.py",
    "apiserver/encryption/envelope.py",
    "apiserver/encryption/keyring.py",
    "apiserver/encryption/secretbox.py",
    "cluster/encryption.py",
    "apiserver/audit/policy.py",
    "apiserver/audit/delivery.py",
    "apiserver/audit/event.py",
    "apiserver/audit/redaction.py",
    "store/interface.py",
    "run/options.py",
    "sim/history.py",
    "sim/audit.py",
)

IMPURE_IMPORTS = {"asyncio", "os", "socket", "subprocess", "time", "random", "threading", "sqlite3", "logging"}
IMPURE_IMPORTS |= {"ssl", "shutil", "tempfile", "k3s.client", "k3s.store"}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_files_are_short() -> None:
    """No file is longer than the hard limit."""
    long = {relative(p): n for p in files() if (n := p.read_text().count("\n")) > FILE_LIMIT}
    assert not long


def test_functions_are_short() -> None:
    """No function is longer than a screen."""
    long = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LIMIT
    ]
    assert not long


def test_names_say_what_they_hold() -> None:
    """No module is a drawer for leftovers."""
    assert not [relative(p) for p in files() if p.stem in BANNED_NAMES]


def test_modules_say_what_they_are() -> None:
    """Every module opens with a docstring."""
    bare = [relative(p) for p in files() if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))]
    assert not bare


def is_pure(name: str) -> bool:
    return name in PURE or not name.startswith(EFFECTFUL)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
            if node.module.startswith(("k3s.client", "k3s.store")):
                found.add(node.module)
    return found


@pytest.mark.parametrize("path", [p for p in files() if is_pure(relative(p))], ids=relative)
def test_pure_modules_have_no_effects(path: Path) -> None:
    """A pure module imports nothing that reads clocks, draws chances, opens files or waits."""
    assert not imports(path) & IMPURE_IMPORTS


def test_the_repo_speaks_of_the_project_alone() -> None:
    """No tracked text names a machine's folders or a package registry's host."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    hosts = ("pypi" + ".org", "npmjs" + ".org", "deb.debian" + ".org", "pythonhosted" + ".org")
    found = []
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".gz", ".bin", ".lock") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        found += [f"{name}: {host}" for host in hosts if host in text]
        if "/wor" + "k/main" in text or "/wor" + "k/shared" in text:
            found.append(name)
    assert not found
