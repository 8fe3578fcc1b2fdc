"""Which system packages a node lacks, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s.kubelet import pause
from k3s.run import prerequisites
from k3s.run.config import ConfigError
from k3s.run.prerequisites import install_missing, missing_packages

_ALL = [
    "catatonit",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "nftables",
    "runc",
]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any program; answers the folder that is its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prerequisites, "CNI_FOLDERS", (tmp_path / "cni",))
    monkeypatch.setattr(pause, "CATATONIT", (tmp_path / "catatonit",))
    return tmp_path


def program(folder: Path, name: str, script: str = "exit 0") -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_what_is_missing(bare: Path) -> None:
    """Each program is known by its package; with a runtime of somebody else's, containerd is not needed."""
    assert missing_packages(True) == _ALL
    assert {"containerd", "runc"}.isdisjoint(missing_packages(False))
    program(bare, "nft")
    for plugin in ("bridge", "host-local", "portmap", "loopback"):
        program(bare / "cni", plugin)
    assert {"nftables", "containernetworking-plugins"}.isdisjoint(missing_packages(True))


def test_without_apt_the_one_command_is_told(bare: Path) -> None:
    """Where nothing may be installed, the message holds the command."""
    with pytest.raises(ConfigError, match=r"Run: sudo apt-get install -y --no-install-recommends catatonit .*runc"):
        install_missing(True, print)


def test_installation(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With root and apt they are installed, which is told; nothing is told or done when all are there."""
    monkeypatch.setattr(prerequisites.os, "geteuid", lambda: 0)
    names = "nft conntrack iptables ip catatonit containerd ctr runc cni/bridge cni/host-local cni/portmap cni/loopback"
    program(
        bare,
        "apt-get",
        f'[ "$2" = update ] && exit 0\n/bin/mkdir {bare}/cni\nfor n in {names}; do /bin/cp "$0" {bare}/$n; done',
    )
    told: list[str] = []
    install_missing(True, told.append)
    install_missing(True, told.append)
    assert len(told) == 1 and all(package in told[0] for package in _ALL)


def test_an_installation_that_fails(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What apt said is shown."""
    monkeypatch.setattr(prerequisites.os, "geteuid", lambda: 0)
    program(bare, "apt-get", "echo 'no network' >&2; exit 100")
    with pytest.raises(ConfigError, match="no network"):
        install_missing(True, lambda text: None)
