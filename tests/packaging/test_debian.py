"""The Debian package: what it says, what it holds, and that nothing stays of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from build import command, debian
from build.inputs import LockError
from build.stage import Work

ROOT = Path(__file__).resolve().parents[2]
_FILES = {
    "/etc/default/k3s": "-rw-------",
    "/etc/default/k3s-agent": "-rw-------",
    "/usr/bin/k3s": "-rwxr-xr-x",
    "/usr/lib/systemd/system/k3s-agent.service": "-rw-r--r--",
    "/usr/lib/systemd/system/k3s.service": "-rw-r--r--",
    "/usr/share/doc/k3s/changelog.gz": "-rw-r--r--",
    "/usr/share/doc/k3s/copyright": "-rw-r--r--",
}
# Own namespaces: a purge takes away what k3s has on a machine, and this machine may have some.
_LIFE = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
dpkg --root="$1" --force-not-root -i "$2" >/dev/null
chroot "$1" /usr/bin/k3s --version
dpkg --root="$1" -r k3s >/dev/null
chroot "$1" sh -c '! [ -e /usr/bin/k3s ] && [ -x /var/lib/rancher/k3s/data/current/bin/k3s ] && [ -e /etc/default/k3s ]'
dpkg --root="$1" -P k3s >/dev/null
"""


def packaged(executable: bytes, folder: Path) -> Path:
    """The package of an executable."""
    (folder / "executable").mkdir(parents=True)
    (folder / "executable/k3s").write_bytes(executable)
    (folder / "out").mkdir()
    debian.package(Work("amd64", folder / "out", ROOT, {}, {}, {"executable": folder / "executable"}))
    return next((folder / "out").iterdir())


def test_what_it_says_and_holds(tmp_path: Path) -> None:
    """dpkg reads it: fields, files with their modes, root as their owner, configuration files, sums that fit."""
    made = packaged(b"an executable", tmp_path)
    assert made.name == "k3s_1.36.2+k3s1_amd64.deb"

    def told(*args: str) -> str:
        return subprocess.check_output(["dpkg-deb", *args, str(made)], text=True)

    fields = dict(line.split(": ", 1) for line in told("--field").splitlines() if ": " in line and line[0] != " ")
    assert (fields["Package"], fields["Architecture"], fields["Version"]) == ("k3s", "amd64", "1.36.2+k3s1")
    rows = [line.split() for line in told("--contents").splitlines()]
    assert {row[5][1:]: row[0] for row in rows if not row[5].endswith("/")} == _FILES
    assert {row[1] for row in rows} == {"0/0"}
    subprocess.run(["dpkg-deb", "--control", str(made), str(tmp_path / "control")], check=True)
    assert (tmp_path / "control/conffiles").read_text() == "/etc/default/k3s\n/etc/default/k3s-agent\n"
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", str(tmp_path / "control" / script)], check=True)
    subprocess.run(["dpkg-deb", "--extract", str(made), str(tmp_path / "files")], check=True)
    for line in (tmp_path / "control/md5sums").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.md5((tmp_path / "files" / name).read_bytes()).hexdigest() == digest
    assert packaged(b"an executable", tmp_path / "again").read_bytes() == made.read_bytes()


@pytest.mark.parametrize(("service", "kind", "command"), [("k3s", "notify", "server"), ("k3s-agent", "exec", "agent")])
def test_its_units_are_those_of_install_sh(tmp_path: Path, service: str, kind: str, command: str) -> None:
    """The same lines for other places."""
    made = packaged(b"", tmp_path)
    subprocess.run(["dpkg-deb", "--extract", str(made), str(tmp_path / "files")], check=True)
    unit = (tmp_path / f"files/usr/lib/systemd/system/{service}.service").read_text().splitlines()
    wanted = {f"Type={kind}", f"ExecStart=/usr/bin/k3s {command}", f"EnvironmentFile=-/etc/default/{service}"}
    assert wanted <= set(unit)
    script = (ROOT / "packaging/install.sh").read_text().splitlines()
    assert set(unit) - wanted <= set(script)


def test_a_unit_that_it_does_not_understand_is_refused(tmp_path: Path) -> None:
    """A new variable in install.sh's unit cannot slip into a package."""
    (tmp_path / "packaging").mkdir()
    (tmp_path / "packaging/install.sh").write_text("cat <<UNIT\nExecStart=$elsewhere/k3s\nUNIT\n")
    for name in ("LICENSE", "CHANGELOG.md"):
        (tmp_path / name).touch()
    (tmp_path / "k3s").touch()
    with pytest.raises(LockError, match=r"a variable that build/debian.py does not know"):
        debian.package(Work("amd64", tmp_path, tmp_path, {}, {}, {"executable": tmp_path}))


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(900)
def test_nothing_stays_of_it(tmp_path: Path, executable: Path) -> None:
    """Installed, used, removed and purged in a root that has nothing but busybox: every file is as before."""
    root = tmp_path / "root"
    for folder in ("bin", "proc", "dev", "run", "tmp", "var/log", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "[", "rm"):
        (root / "bin" / name).symlink_to("busybox")
    before = _files(root)
    made = packaged(executable.read_bytes(), tmp_path / "package")
    command_line = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-euc", _LIFE, "sh", str(root), str(made)]
    env = {"PATH": os.environ["PATH"], "DPKG_FRONTEND_LOCKED": ""}
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=300, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert command.commit() in done.stdout
    assert _files(root) == before


def _files(root: Path) -> set[str]:
    """Every file and link outside of dpkg's own notes."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path) for path in found if path.parts[:3] != ("var", "lib", "dpkg")}
