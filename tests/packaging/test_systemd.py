"""install.sh under a real systemd: it starts, is restarted and removed, and the machine is as it was before."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from build import command
from build.store import Store
from tests.cluster import machine_lock
from tests.e2e.objects import pod
from tests.packaging.island import ADDRESS, Island
from tests.packaging.test_debian import packaged

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("systemd-nspawn") is None, reason="systemd-nspawn is missing: apt-get install systemd-container"
    ),
]
_FOLDERS = (
    *("usr", "etc/systemd/system", "var/lib", "var/log", "var/tmp", "tmp", "run", "root", "srv", "proc", "sys", "dev"),
    *("opt/bin", "home", "mnt"),
)
_FILES = ("passwd", "group", "shadow", "nsswitch.conf", "ld.so.cache", "hosts", "resolv.conf")
# What a machine has: files (but those of its own life and of users of kubectl), mounts, links, rules, cgroups of pods.
_STATE = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /usr -o -path /tmp -o -path /var/log/journal \
    -o -path /var/cache -o -path /var/lib/systemd -o -path /root/.kube -o -path /run/systemd \
    -o -path /var/lib/dpkg \) -prune -o -print
cut -d' ' -f2 /proc/mounts | grep -v /run/credentials
ip -o link | cut -d: -f2
nft list ruleset
find /sys/fs/cgroup -type d -name 'kubepods*'
find /run -mindepth 1 -maxdepth 1
"""


class Machine:
    """This machine's system booted once more, with a root, a network and processes of its own."""

    def __init__(self, root: Path, island: Island, writable: bool = False) -> None:
        self.root = root
        self.changed = root.with_name("usr")
        #: Its /usr is this machine's; what it writes there is its own, where it may.
        self._usr = "--bind-ro=/usr"
        if writable:
            self.changed.mkdir()
            self._usr = f"--overlay=/usr:{self.changed}:/usr"
        self._island = island
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._log = root.with_name("boot.log")

    def __enter__(self) -> Machine:
        for folder in _FOLDERS:
            (self.root / folder).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            (self.root / link).symlink_to(f"usr/{link}")
        for name in _FILES:
            shutil.copyfile(f"/etc/{name}", self.root / "etc" / name)
        shutil.copyfile("/usr/lib/os-release", self.root / "etc/os-release")
        shutil.copytree("/etc/alternatives", self.root / "etc/alternatives", symlinks=True)
        (self.root / "etc/machine-id").write_text("uninitialized\n")
        # Nobody configures the island's device but the test.
        (self.root / "etc/systemd/system/systemd-networkd-wait-online.service").symlink_to("/dev/null")
        words = ["systemd-nspawn", f"--directory={self.root}", self._usr, "--register=no", "--keep-unit"]
        words += ["--capability=all", "--system-call-filter=@keyring bpf", f"--machine=k3s-{os.getpid()}"]
        words += [f"--network-namespace-path={self._island.path}", "--console=pipe", "--notify-ready=yes", "--boot"]
        told = self.root.with_name("told")
        env = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_NSPAWN_USE_CGNS": "1"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self._log.open("wb") as log:
            ready.bind(str(told))
            ready.settimeout(60)
            self._process = subprocess.Popen(
                [*words, "systemd.unit=multi-user.target"],
                env={**env, "NOTIFY_SOCKET": str(told)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                while b"READY=1" not in (message := ready.recv(4096)).splitlines():
                    if found := re.search(rb"X_NSPAWN_LEADER_PID=(\d+)", message):
                        self._leader = int(found.group(1))
            except TimeoutError:
                self._process.kill()
                raise AssertionError(f"the machine does not boot: {self._log.read_text()}") from None
        self.run("systemctl", "is-system-running", "--wait", code=None)
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            # Version 1 of cgroups is given read-only; a kubelet needs them.
            self.run("sh", "-c", "for each in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $each; done", code=None)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self.run("systemctl", "poweroff", "--force", code=None)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.kill(self._leader, 9)
            self._process.wait()

    def run(self, *words: str, code: int | None = 0) -> str:
        """The output, both kinds, of a command in it that ends with this code (None: any)."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        env = ["env", "-i", "PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        done = subprocess.run(
            [*enter, *env, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert code in (None, done.returncode), f"{words}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def state(self) -> list[str]:
        """What is on it, a line each."""
        return sorted(self.run("sh", "-c", _STATE).splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_lock(), Island(f"k3s-systemd-{os.getpid()}") as island, Machine(tmp_path / "root", island) as made:
        yield made


def test_from_installation_to_removal(machine: Machine, executable: Path, store: Store) -> None:
    """Type=notify, a pod with a port and a mount that outlives a restart, killall, uninstall: nothing stays."""
    release = machine.root / "srv/release"
    release.mkdir()
    shutil.copy(executable, release / "k3s")
    shutil.copy(ROOT / "packaging/install.sh", release)
    _bill, archive, listed = command.publish(command.builder(command.host(), store, level=3).build("images"), release)
    image = next(name for name in listed.read_text().split() if "busybox" in name)
    before = machine.state()
    (machine.root / "var/lib/rancher/k3s/agent/images").mkdir(parents=True)
    shutil.copy(archive, machine.root / "var/lib/rancher/k3s/agent/images")

    settings = ["INSTALL_K3S_BIN_DIR=/opt/bin", f"INSTALL_K3S_EXEC=server --node-ip={ADDRESS}"]
    machine.run("env", *settings, "sh", "/srv/release/install.sh")
    # systemctl came back because the service said that it is ready.
    assert machine.run("k3s", "kubectl", "get", "--raw=/readyz") == "ok"
    assert "NotifyAccess=main" in machine.run("systemctl", "show", "k3s", "--property=NotifyAccess,Type")
    volume = {"name": "memory", "emptyDir": {"medium": "Memory"}}
    container = {
        "image": image,
        "ports": [{"containerPort": 80, "hostPort": 8080}],
        "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
    }
    (machine.root / "srv/pod.json").write_text(
        json.dumps(pod("web", "exec sleep 3600", container=container, volumes=[volume]))
    )
    machine.run("k3s", "kubectl", "apply", "-f", "/srv/pod.json")
    (machine.root / "srv/pod.json").unlink()
    machine.run("k3s", "kubectl", "wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    which = ["k3s", "kubectl", "get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].containerID}"]
    first = machine.run(*which)
    machine.run("systemctl", "restart", "k3s")
    assert machine.run(*which) == first
    assert machine.run("pgrep", "-f", "sleep 3600")
    assert "reception only permitted" not in machine.run("journalctl", "--unit=k3s", "--no-pager")

    machine.run("k3s-killall.sh")
    machine.run("pgrep", "-f", "sleep 3600", code=1)
    assert (machine.root / "var/lib/rancher/k3s/server/db/state.db").exists()
    machine.run("k3s-uninstall.sh")
    machine.run("pgrep", "-af", "/var/lib/rancher|/run/k3s|k3s (server|agent)", code=1)
    after = machine.state()
    assert "\n".join(sorted(set(after) - set(before))) == ""
    assert "\n".join(sorted(set(before) - set(after))) == ""


@pytest.fixture
def changeable(tmp_path: Path) -> Iterator[Machine]:
    island = Island(f"k3s-debian-{os.getpid()}")
    with machine_lock(), island, Machine(tmp_path / "root", island, writable=True) as made:
        yield made


def test_the_debian_package(changeable: Machine, executable: Path, store: Store, tmp_path: Path) -> None:
    """Installed, it starts nothing; an upgrade restarts what runs and leaves its pod alone; removed, nothing runs and
    data stays; purged, nothing stays."""
    machine = changeable
    first = packaged(executable.read_bytes(), tmp_path / "package")
    (machine.root / "var/lib/dpkg/info").mkdir(parents=True)
    (machine.root / "var/lib/dpkg/updates").mkdir()
    (machine.root / "var/lib/dpkg/status").touch()
    shutil.copy(first, machine.root / "srv/first.deb")
    _with_version(first, "1.36.2+k3s2", machine.root / "srv/second.deb")
    folder = command.builder(command.host(), store, level=3).build("images").folder
    machine.run("dpkg", "--version")
    before = machine.state()

    machine.run("dpkg", "-i", "/srv/first.deb")
    assert machine.run("systemctl", "is-active", "k3s", "k3s-agent", code=None).split() == ["inactive"] * 2
    images = machine.root / "var/lib/rancher/k3s/agent/images"
    images.mkdir(parents=True)
    shutil.copy(next(folder.glob("*.tar.zst")), images)
    (machine.root / "etc/rancher/k3s").mkdir(parents=True)
    (machine.root / "etc/rancher/k3s/config.yaml").write_text(f"node-ip: {ADDRESS}\n")
    machine.run("systemctl", "enable", "--now", "k3s")
    image = next(name for name in next(folder.glob("*.txt")).read_text().split() if "busybox" in name)
    (machine.root / "srv/pod.json").write_text(json.dumps(pod("web", "exec sleep 3601", container={"image": image})))
    machine.run("k3s", "kubectl", "apply", "-f", "/srv/pod.json")
    (machine.root / "srv/pod.json").unlink()
    machine.run("k3s", "kubectl", "wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    runs, server = machine.run("pgrep", "-f", "^sleep 3601"), ("systemctl", "show", "k3s", "--property=MainPID")
    one = machine.run(*server)

    machine.run("dpkg", "-i", "/srv/second.deb")
    assert machine.run(*server) != one
    assert machine.run("pgrep", "-f", "^sleep 3601") == runs
    assert machine.run("k3s", "kubectl", "get", "--raw=/readyz") == "ok"

    machine.run("dpkg", "-r", "k3s")
    machine.run("pgrep", "-af", "sleep 3601|/run/k3s|k3s (server|agent)", code=1)
    assert (machine.root / "var/lib/rancher/k3s/server/db/state.db").exists()
    machine.run("dpkg", "-P", "k3s")
    assert [path for path in machine.changed.rglob("*") if path.is_file()] == []
    after = machine.state()
    assert "\n".join(sorted(set(after) - set(before))) == ""
    assert "\n".join(sorted(set(before) - set(after))) == ""


def _with_version(package: Path, version: str, target: Path) -> None:
    """The same package, of another version."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg-deb", "-R", str(package), f"{scratch}/files"], check=True)
        control = Path(scratch, "files/DEBIAN/control")
        control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        build = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", f"{scratch}/files", str(target)]
        subprocess.run(build, check=True, capture_output=True)
