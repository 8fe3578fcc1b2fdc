"""The wrapper: k3s beside the system's own containerd, and the Python packages that it is made of."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from build import command, inputs, wrapper
from build.store import Store
from tests.cluster import Cluster, remains

from k3s import VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_missing_programs_are_named(tmp_path: Path) -> None:
    """Every one at once, with its Debian package, and the one command that installs them."""
    for program in wrapper.TOOLS:
        if program not in ("socat", "brctl"):
            (tmp_path / program).touch(0o755)
    with pytest.raises(inputs.LockError) as told:
        wrapper.find_tools(str(tmp_path))
    assert "missing: brctl (Debian package bridge-utils), socat (Debian package socat)" in str(told.value)
    assert str(told.value).splitlines()[-1].startswith("Run: sudo apt-get install -y bridge-utils")


def test_the_issues_packages_are_looked_for() -> None:
    """What the kubelet and the network use of the system."""
    wanted = {"kmod", "socat", "iptables", "iproute2", "bridge-utils", "ethtool", "util-linux", "ipset", "conntrack"}
    assert wanted <= set(wrapper.TOOLS.values())


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with this machine's programs."""
    made = tmp_path_factory.mktemp("wrapper") / "opt"
    wrapper.install(made, sys.executable, Store(command.default_store()))
    return made


@pytest.mark.slow
def test_it_runs_and_leads_to_the_systems_programs(prefix: Path) -> None:
    """With an empty environment: its own version, the locked kubectl, the system's ctr."""
    env = {"PATH": "/usr/bin:/bin"}

    def told(name: str, *args: str) -> str:
        words = [str(prefix / "bin" / name), *args]
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=True).stdout

    assert told("k3s", "--version").startswith(f"k3s version {VERSION} ({command.commit()})")
    assert "Client Version" in told("kubectl", "version", "--client")
    assert told("ctr", "--version") == subprocess.check_output(["ctr", "--version"], text=True)
    assert {path.name for path in (prefix / "lib/k3s/tools").iterdir()} == set(wrapper.TOOLS)
    assert not [path for path in (prefix / "lib/k3s/tools").iterdir() if not os.access(path, os.X_OK)]


@pytest.mark.slow
def test_it_can_be_moved_and_installed_again(prefix: Path) -> None:
    """Nothing in it names the folder; another installation takes the place of the first."""
    moved = prefix.rename(prefix.with_name("elsewhere"))
    assert subprocess.check_output([str(moved / "bin/k3s"), "--version"], text=True).startswith("k3s version")
    moved.rename(prefix)
    before = (prefix / "lib/k3s").stat().st_ino
    wrapper.install(prefix, sys.executable, Store(command.default_store()))
    assert (prefix / "lib/k3s").stat().st_ino != before
    assert sorted(path.name for path in (prefix / "lib").iterdir()) == ["k3s"]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_of_it(prefix: Path, tmp_path: Path) -> None:
    """The server starts with an agent that runs a pod on the system's containerd."""
    made = Cluster(tmp_path, (str(prefix / "bin/k3s"),))
    made.prepare()
    try:
        made.start()
        client = made.kubectl()
        client("run", "one", "--image=busybox:1", "--restart=Never", "--command", "--", "echo", "said")
        client("wait", "pod/one", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        assert client("logs", "one") == "said\n"
    finally:
        made.remove()
    assert remains(tmp_path) == []


@pytest.mark.slow
def test_wheel_and_sdist(tmp_path: Path) -> None:
    """The same modules in both; pip makes the same package of the sdist as the wheel has."""
    maker = command.builder(command.host(), Store(tmp_path / "store"))
    wheel = next(maker.build("wheel").folder.iterdir())
    sdist = next(maker.build("sdist").folder.iterdir())
    assert wheel.name == f"k3s-{VERSION.removeprefix('v')}-py3-none-any.whl"
    with tarfile.open(sdist) as archive:
        assert not [info.name for info in archive if info.mtime or info.uid or info.uname]
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*pip, str(sdist)], check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(tmp_path / wheel.name) as theirs:
        modules = [name for name in ours.namelist() if name.startswith("k3s/")]
        assert modules == sorted(name for name in theirs.namelist() if name.startswith("k3s/"))
        assert [name for name in modules if ours.read(name) != theirs.read(name)] == []
