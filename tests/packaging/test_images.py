"""The images of the air-gap archive: made without a daemon, the same bytes each time, and containerd takes them."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from build import command, images
from build.store import Store

from k3s.kubelet import pause

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_busybox_is_asked_for_its_names() -> None:
    """The table in the program says what the program says when it is run."""
    program = Path("/usr/bin/busybox")
    listed = subprocess.check_output([str(program), "--list"], text=True).split()
    assert images.applets(program.read_bytes()) == listed


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_the_archive_of_each_architecture(store: Store, tmp_path: Path, arch: str) -> None:
    """Named images with digests that fit, programs of that architecture, and the same list beside it."""
    archive, listed = command.publish(command.builder(arch, store).build("images"), tmp_path)
    assert archive.name == f"k3s-airgap-images-{arch}.tar.zst"
    names = listed.read_text().split()
    assert names[0] == pause.IMAGE
    assert names[1].startswith("docker.io/rancher/mirrored-library-busybox:1.")
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompress(archive.read_bytes()))) as tar:
        blobs = {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]
    index = json.loads(blobs["index.json"])
    assert [row["annotations"]["io.containerd.image.name"] for row in index["manifests"]] == names
    for row in index["manifests"]:
        manifest = json.loads(blobs[f"blobs/sha256/{row['digest'][7:]}"])
        assert json.loads(blobs[f"blobs/sha256/{manifest['config']['digest'][7:]}"])["architecture"] == arch
        layer = blobs[f"blobs/sha256/{manifest['layers'][0]['digest'][7:]}"]
        with tarfile.open(fileobj=io.BytesIO(layer)) as files:
            program = files.extractfile("pause" if row is index["manifests"][0] else "bin/busybox").read()  # type: ignore[union-attr]
        assert program[18] == {"amd64": 62, "arm64": 183}[arch]


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
