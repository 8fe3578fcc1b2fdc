"""install.sh: what it writes, when it restarts, and that nothing stays after uninstalling."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging/install.sh"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the scripts that it writes ask for root")


class Host:
    """A host made of folders, whose service manager and k3s write down what they are asked."""

    def __init__(self, folder: Path, init: str) -> None:
        self.folder = folder
        self.bin, self.units, self.rc = folder / "bin", folder / "units", folder / "init.d"
        self.calls = folder / "calls"
        self.calls.touch()
        tools = folder / "tools"
        tools.mkdir()
        names = ["systemctl"] if init == "systemd" else ["rc-service", "rc-update"]
        for name in names:
            (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n')
            (tools / name).chmod(0o755)
        for name in ("sh", "env", "uname", "mkdir", "cat", "sed", "grep", "sort", "cp", "mv", "rm", "chmod", "ln", "ls",
                     "cmp", "sha256sum", "dirname", "basename", "readlink", "id"):  # fmt: skip
            (tools / name).symlink_to(f"/usr/bin/{name}")
        self.env = {
            "PATH": str(tools),
            "INSTALL_K3S_BIN_DIR": str(self.bin),
            "INSTALL_K3S_SYSTEMD_DIR": str(self.units),
            "INSTALL_K3S_OPENRC_DIR": str(self.rc),
            "INSTALL_K3S_ENV_DIR": str(folder / "env"),
            "INSTALL_K3S_BIN": str(self.executable("one")),
        }

    def executable(self, text: str) -> Path:
        """A k3s that writes down its arguments."""
        path = self.folder / f"k3s-{text}"
        path.write_text(f'#!/bin/sh\n# {text}\necho "k3s $*" >> {self.calls}\n')
        path.chmod(0o755)
        return path

    def install(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs the script."""
        command = ["/bin/sh", str(SCRIPT)]
        return subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True, timeout=30)

    def called(self) -> list[str]:
        """What was asked since the last time."""
        lines = self.calls.read_text().splitlines()
        self.calls.write_text("")
        return lines


@pytest.fixture(params=["systemd", "openrc"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path, request.param)


@pytest.fixture
def systemd(tmp_path: Path) -> Host:
    return Host(tmp_path, "systemd")


def test_a_server(systemd: Host) -> None:
    """The unit runs it, tells systemd when it is ready, and leaves pods alone when it stops."""
    done = systemd.install(INSTALL_K3S_EXEC="--disable=traefik --node-label=a=b")
    assert done.returncode == 0, done.stderr
    unit = (systemd.units / "k3s.service").read_text()
    for line in (
        "Type=notify",
        "KillMode=process",
        "Delegate=yes",
        "Restart=always",
        "RestartSec=5s",
        "LimitNOFILE=1048576",
    ):
        assert line in unit.splitlines()
    assert f"ExecStart={systemd.bin}/k3s 'server' '--disable=traefik' '--node-label=a=b'" in unit
    assert systemd.called() == [
        f"systemctl enable {systemd.units}/k3s.service",
        "systemctl daemon-reload",
        "systemctl restart k3s",
    ]
    assert {path.name for path in systemd.bin.iterdir()} == {
        *("k3s", "kubectl", "crictl", "ctr", "k3s-killall.sh", "k3s-uninstall.sh")
    }
    assert (systemd.bin / "kubectl").readlink() == Path("k3s")


def test_secrets_of_the_environment(systemd: Host) -> None:
    """Variables of k3s and proxies are kept for the service, readable for root alone; others are not."""
    systemd.install(K3S_TOKEN="a 'quoted' secret", HTTPS_PROXY="http://proxy:3128", HOME="/root")
    file = systemd.units / "k3s.service.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().splitlines() == ["HTTPS_PROXY=http://proxy:3128", "K3S_TOKEN=a 'quoted' secret"]


def test_secrets_for_a_shell(tmp_path: Path) -> None:
    """openrc has a shell read the file: it gets what was given, and runs nothing of it."""
    openrc = Host(tmp_path, "openrc")
    secret = f'it\'s "a" $HOME = `touch {tmp_path}/ran`; x'
    openrc.install(K3S_TOKEN=secret)
    file = tmp_path / "env/k3s.env"
    assert file.stat().st_mode & 0o777 == 0o600
    read = ["sh", "-euc", f'. {file}; printf %s "$K3S_TOKEN"']
    assert subprocess.check_output(read, text=True) == secret
    assert not (tmp_path / "ran").exists()


def test_an_agent(systemd: Host) -> None:
    """K3S_URL makes it one; it needs a token."""
    done = systemd.install(K3S_URL="https://server:6443")
    assert done.returncode == 1
    assert "an agent needs a token: set K3S_TOKEN" in done.stderr
    assert systemd.called() == []
    assert systemd.install(K3S_URL="https://server:6443", K3S_TOKEN="t").returncode == 0
    unit = (systemd.units / "k3s-agent.service").read_text()
    assert "Type=exec" in unit
    assert f"ExecStart={systemd.bin}/k3s 'agent'" in unit


def test_it_restarts_only_on_change(host: Host) -> None:
    """The same again: no restart. Another executable, option or variable: one restart each."""
    restart = {"systemctl restart k3s", "rc-service k3s restart"}

    def restarts(**env: str) -> int:
        assert host.install(**env).returncode == 0
        return len(restart & set(host.called()))

    assert restarts() == 1
    assert restarts() == 0
    assert restarts(INSTALL_K3S_FORCE_RESTART="true") == 1
    assert restarts(INSTALL_K3S_BIN=str(host.executable("two"))) == 1
    assert restarts(INSTALL_K3S_SKIP_DOWNLOAD="true") == 0
    assert restarts(INSTALL_K3S_SKIP_DOWNLOAD="true", INSTALL_K3S_EXEC="--debug") == 1
    assert restarts(INSTALL_K3S_SKIP_DOWNLOAD="true", INSTALL_K3S_EXEC="--debug", K3S_TOKEN="x") == 1
    assert restarts(INSTALL_K3S_SKIP_START="true", K3S_TOKEN="y") == 0


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"INSTALL_K3S_EXEC": "etcd-snapshot"}, "begins with 'etcd-snapshot': only server and agent"),
        ({"INSTALL_K3S_BIN": "/none"}, "there is no file /none"),
        ({"INSTALL_K3S_SKIP_DOWNLOAD": "true"}, "there is no executable"),
        ({"INSTALL_K3S_EXEC": "agent"}, "set K3S_URL, or --server"),
    ],
)
def test_what_is_missing_is_named(systemd: Host, env: dict[str, str], told: str) -> None:
    """Nothing is installed, and the variable to set is named."""
    done = systemd.install(**env)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    assert not (systemd.units / "k3s.service").exists()


def test_a_wrong_checksum_is_refused(systemd: Host) -> None:
    """The file of sums beside the executable has to fit and to name it."""
    sums, right = (
        systemd.folder / "sha256sum.txt",
        hashlib.sha256((systemd.folder / "k3s-one").read_bytes()).hexdigest(),
    )
    for content, told in ((f"{'0' * 64}  k3s-one", "is not the file that"), (f"{right}  k3s", "does not tell of")):
        sums.write_text(f"{content}\n")
        done = systemd.install()
        assert (done.returncode, told in done.stderr) == (1, True)
        assert not (systemd.bin / "k3s").exists()
    sums.write_text(f"{'0' * 64}  k3s\n{right}  k3s-one\n")
    assert systemd.install().returncode == 0


def test_nothing_stays(host: Host) -> None:
    """Uninstalling removes the service, k3s's own traces, then every file; a second service keeps what is shared."""
    shown = sorted(path.relative_to(host.folder).as_posix() for path in host.folder.rglob("*"))
    assert host.install().returncode == 0
    assert host.install(INSTALL_K3S_NAME="other", INSTALL_K3S_SKIP_START="true").returncode == 0
    host.called()
    done = subprocess.run([str(host.bin / "k3s-other-uninstall.sh")], env=host.env, capture_output=True, text=True)
    assert "leaving shared parts" in done.stdout
    assert (host.bin / "k3s").exists()
    assert "k3s uninstall" not in host.called()
    subprocess.run([str(host.bin / "k3s-killall.sh")], env=host.env, check=True, capture_output=True)
    assert host.called()[-1] == "k3s uninstall --keep-data"
    subprocess.run([str(host.bin / "k3s-uninstall.sh")], env=host.env, check=True, capture_output=True)
    assert "k3s uninstall" in host.called()
    left = sorted(path.relative_to(host.folder).as_posix() for path in host.folder.rglob("*") if not path.is_dir())
    assert left == [name for name in shown if not (host.folder / name).is_dir()]
