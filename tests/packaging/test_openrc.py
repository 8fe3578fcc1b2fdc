"""install.sh under a real openrc: it starts, restarts on change, comes back, and is removed without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from build.store import Store
from tests.packaging.test_executable import debian_root

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]
_PACKAGES = ("openrc", "libeinfo1", "librc1")
# The shell is the first process and takes in those whose parents have gone; it ends with its input.
_BOOT = """
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
ip link set lo up
# As openrc's own start of a machine leaves it.
for each in daemons exclusive failed inactive options scheduled started starting stopping wasinactive; do
    mkdir -p "$1/run/openrc/$each"
done
echo default >"$1/run/openrc/softlevel"
exec chroot "$1" /bin/sh -c 'echo booted && cat; :'
"""
_STATE = r"""
find / -xdev \( -path /proc -o -path /dev -o -path /srv -o -path /run -o -path /root/.kube \) -prune -o -print
find /run -mindepth 1 \( -path /run/openrc -prune -o -print \)
cut -d' ' -f2 /proc/mounts
rc-update show
ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n 's/.*-> //p' | grep -E 'k3s|supervise' || :
"""
_SECRET = 'it\'s a "secret" of $HOME; `id`'


class Machine:
    """Debian with openrc and without systemd, with a network of its own that has the loopback only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Machine:
        words = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        self._process = subprocess.Popen(
            [*words, "sh", "-euc", _BOOT, "sh", str(self.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"booted\n"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._first = children.read_text().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, script: str, **env: str) -> str:
        """The output, both kinds, of a script that succeeds."""
        enter = ["nsenter", "-t", self._first, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "sh", "-euc", script]
        told = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **env}
        done = subprocess.run(
            enter, env=told, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said
        return said

    def starts(self, times: int) -> None:
        """Waits until the service has said so often that it is up."""
        with subprocess.Popen(["tail", "-n+1", "-F", "-s0.05", f"{self.root}/var/log/k3s.log"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as tail:  # fmt: skip
            assert tail.stdout is not None
            limit = threading.Timer(60, tail.kill)
            limit.start()
            for line in tail.stdout:
                times -= b"the control plane is up" in line
                if times == 0:
                    break
            limit.cancel()
            tail.kill()
        assert times == 0, Path(f"{self.root}/var/log/k3s.log").read_text()[-3000:]

    def server(self) -> str:
        """The number of the server's process."""
        return self.run("pgrep -xf '.*k3s server --disable-agent.*' || cat /run/k3s.pid").split()[0]

    def state(self) -> set[str]:
        """What is on it, a line each."""
        return set(self.run(_STATE).splitlines())


@pytest.fixture
def machine(tmp_path: Path, store: Store, executable: Path) -> Iterator[Machine]:
    root = tmp_path / "root"
    debian_root("trixie", root, store.folder / "roots" / "trixie.tar")
    packages = store.folder / "roots" / "openrc"
    if not packages.exists():
        scratch = tmp_path / "packages"
        scratch.mkdir()
        done = subprocess.run(["apt-get", "-qq", "download", *_PACKAGES], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"apt-get does not give openrc: {done.stderr[-500:]}")
        shutil.copytree(scratch, packages)
    for package in packages.iterdir():
        unpack = f"dpkg-deb --fsys-tarfile {package} | tar -C {root} --keep-directory-symlink -x"
        subprocess.run(["sh", "-c", unpack], check=True)
    for folder in ("srv/release", "usr/local/bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    os.link(executable, root / "srv/release/k3s")
    shutil.copy(ROOT / "packaging/install.sh", root / "srv/release")
    with Machine(root) as made:
        yield made


def test_from_installation_to_removal(machine: Machine) -> None:
    """A server without a node: its secrets arrive as they are, stop and restart work, uninstall leaves nothing."""
    before = machine.state()
    install = "sh /srv/release/install.sh"
    settings = {
        "INSTALL_K3S_EXEC": "server --disable-agent --node-ip=127.0.0.1 --advertise-address=127.0.0.1",
        "K3S_TOKEN": _SECRET,
    }
    machine.run(install, **settings)
    machine.starts(1)
    assert machine.run("k3s kubectl get --raw=/readyz") == "ok"
    assert "started" in machine.run("rc-service k3s status")
    assert "k3s | default" in " ".join(machine.run("rc-update show default").split())
    token = machine.run("cat /var/lib/rancher/k3s/server/token")
    assert token.strip().endswith(_SECRET)
    machine.run("k3s kubectl create configmap kept")
    assert "nothing changed" in machine.run(install, **settings)
    machine.run("rc-service k3s restart")
    machine.starts(2)
    machine.run("k3s kubectl get configmap kept")
    machine.run("rc-service k3s stop && ! rc-service k3s status && ! k3s kubectl get --raw=/readyz")
    machine.run("rc-service k3s start")
    machine.starts(3)
    machine.run("k3s-uninstall.sh")
    after = machine.state()
    assert "\n".join(sorted(after - before)) == ""
    assert "\n".join(sorted(before - after)) == ""
