"""Names, policies, credentials and garbage collection of images; archives made from files."""

from __future__ import annotations

import base64
import io
import json
import tarfile

import pytest

from k3s.kubelet import images, oci
from k3s.kubelet.images import ImageFailure
from k3s.kubelet.runtime.interface import Image


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("rancher/pause:3.6", "docker.io/rancher/pause:3.6"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
        ("a@sha256:00", "docker.io/library/a@sha256:00"),
    ],
)
def test_full_names(short, full):
    """Registry, library and tag are spelled out."""
    assert images.full_name(short) == full


@pytest.mark.parametrize("bad", ["", " a", "UPPER", "a b"])
def test_bad_names(bad):
    """What is no reference is InvalidImageName."""
    with pytest.raises(ImageFailure) as failure:
        images.full_name(bad)
    assert failure.value.reason == "InvalidImageName"


def test_policies():
    """Without a policy the tag decides."""
    assert images.pull_policy({"image": "a"}) == images.pull_policy({"image": "a:latest"}) == "Always"
    assert images.pull_policy({"image": "a:1"}) == images.pull_policy({"image": "a@sha256:0"}) == "IfNotPresent"
    assert images.pull_policy({"image": "a", "imagePullPolicy": "Never"}) == "Never"


def test_credentials():
    """A pull secret is used for its own registry."""
    auth = base64.b64encode(b"user:pass:word").decode()
    config = json.dumps({"auths": {"https://ghcr.io": {"auth": auth}}}).encode()
    secret = {"metadata": {"name": "s"}, "data": {".dockerconfigjson": base64.b64encode(config).decode()}}
    found = images.credentials("ghcr.io/a/b:1", [secret])
    assert found == {"username": "user", "password": "pass:word", "server_address": "https://ghcr.io"}
    assert images.credentials("busybox", [secret]) is None


@pytest.mark.parametrize(
    "config",
    [b"[]", b'{"auths": [1]}', b'{"auths": {"ghcr.io": {"auth": "/w=="}}}', b'{"auths": {"ghcr.io": 1}}', b"{"],
)
def test_an_odd_pull_secret_is_passed_over(config, caplog):
    """What is no configuration is named in the log by its Secret alone, and the pull goes on without it."""
    data = {".dockerconfigjson": base64.b64encode(config).decode()}
    assert images.credentials("ghcr.io/a/b:1", [{"metadata": {"name": "odd"}, "data": data}]) is None
    assert "Pull secret is not readable" in caplog.text


def test_garbage():
    """Unused images go, the longest unused first, until enough is free; young, used and pinned ones stay."""
    stored = [
        Image("used", ("u:1",), size=10),
        Image("old", size=10),
        Image("older", size=10),
        Image("young", size=10),
        Image("pin", size=10, pinned=True),
    ]
    seen = {"used": 0, "old": 0, "older": 0, "young": 950, "pin": 0}
    chosen = images.to_collect(stored, {"u:1"}, seen, {"old": 500, "older": 100}, 15, 1000)
    assert [image.id for image in chosen] == ["older", "old"]
    assert images.to_collect(stored, set(), seen, {}, 0, 1000) == []
    assert (images.bytes_over(100, 84), images.bytes_over(100, 90), images.bytes_over(0, 0)) == (0, 10, 0)


def test_what_ctr_says_of_an_import():
    """The names of images, each once."""
    told = "unpacking docker.io/library/a:1 (sha256:00ff)...done\nunpacking h:5000/b (sha256:00ff)...done\n"
    assert images.imported(told + told) == ["docker.io/library/a:1", "h:5000/b"]


def test_files_of_the_folder_of_images(tmp_path):
    """Archives by their endings in any case, lists line by line; neither of hidden files."""
    for name in ("b.TAR", "a.tzst", ".c.tar", "d.tar.xz", "e.zip"):
        (tmp_path / name).touch()
    (tmp_path / "l.TXT").write_text("# some\none:1\n\n  two:2 \n")
    (tmp_path / ".m.txt").write_text("three:3")
    assert [path.name for path in images.archives(tmp_path)] == ["a.tzst", "b.TAR"]
    assert images.listed_images(tmp_path) == ["one:1", "two:2"]
    assert images.listed_images(tmp_path / "none") == []


def test_an_archive_is_always_the_same():
    """The same files make the same bytes, with the name where containerd looks for it."""
    first = oci.archive(oci.busybox("docker.io/library/busybox:1", b"binary", ["sh", "ls"], "x86_64"))
    assert first == oci.archive(oci.busybox("docker.io/library/busybox:1", b"binary", ["sh", "ls"], "x86_64"))
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        index = json.loads(tar.extractfile("index.json").read())
        names = [m.name for m in tar.getmembers()]
        digest = index["manifests"][0]["digest"].partition(":")[2]
        manifest = json.loads(tar.extractfile(f"blobs/sha256/{digest}").read())
        layer = tar.extractfile(f"blobs/sha256/{manifest['layers'][0]['digest'].partition(':')[2]}").read()
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/library/busybox:1"
    assert "oci-layout" in names
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {m.name: m for m in tar.getmembers()}
    assert found["bin/sh"].linkname == "busybox" and found["tmp"].mode == 0o1777
    assert all(m.mtime == 0 and m.uid == 0 for m in found.values())
