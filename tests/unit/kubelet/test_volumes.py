"""What volumes hold and where they lie; and files that change all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.kubelet.pods import pod, spec

from k3s.kubelet import mounts, volumes
from k3s.kubelet.files import PodFiles
from k3s.kubelet.runtime.interface import Container
from k3s.kubelet.volumes import Token, VolumeError

MAPS = {"c": {"data": {"a": "1", "b": "2"}, "binaryData": {"z": "AAE="}}}
SECRETS = {"s": {"data": {"p": "cGFzcw=="}}}


def payload(volume, **more):
    """The files of a volume."""
    return volumes.payload(
        volume,
        pod(spec(), meta={"labels": {"app": "x"}}, **more),
        config_map=lambda _ns, n: MAPS.get(n),
        secret=lambda _ns, n: SECRETS.get(n),
        token=lambda wanted: f"token for {wanted.audience or 'us'}",
        node={"spec.nodeName": "n1"},
        allocatable={},
    )


def test_plans():
    """Each kind has its place; what is secret lies in memory."""
    one = pod(
        spec(),
        volumes=[
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "h", "hostPath": {"path": "/x", "type": "File"}},
        ],
        securityContext={"fsGroup": 5},
    )
    found = {plan.name: plan for plan in volumes.plans(one, "/k")}
    assert found["e"].path.endswith("/volumes/kubernetes.io~empty-dir/e") and found["e"].kind == volumes.DISK
    assert (found["m"].kind, found["m"].size_bytes, found["m"].group) == (volumes.MEMORY, 1 << 20, 5)
    assert found["s"].kind == volumes.MEMORY and found["s"].payload
    assert (found["h"].path, found["h"].host_type) == ("/x", "File")
    with pytest.raises(VolumeError, match="no driver for rbd"):
        volumes.plans(pod(spec(), volumes=[{"name": "r", "rbd": {}}]), "/k")


def test_config_maps_and_secrets():
    """All keys or chosen ones, with modes; what is missing is an error unless it is optional."""
    assert payload({"configMap": {"name": "c"}}) == {"a": (b"1", 420), "b": (b"2", 420), "z": (b"\0\1", 420)}
    items = [{"key": "a", "path": "deep/a", "mode": 256}]
    assert payload({"configMap": {"name": "c", "items": items}}) == {"deep/a": (b"1", 256)}
    assert payload({"secret": {"secretName": "s", "defaultMode": 256}}) == {"p": (b"pass", 256)}
    assert payload({"secret": {"secretName": "none", "optional": True}}) == {}
    with pytest.raises(VolumeError, match='configmap "none" not found'):
        payload({"configMap": {"name": "none"}})
    with pytest.raises(VolumeError, match="non-existent configmap key: q"):
        payload({"configMap": {"name": "c", "items": [{"key": "q", "path": "q"}]}})


def test_projected():
    """Several sources in one folder; a token belongs to the pod's user alone."""
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "vault"}},
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "ca"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    volume = {"name": "v", "projected": {"sources": sources, "defaultMode": 0o444}}
    assert payload(volume) == {"token": (b"token for vault", 0o444), "ca": (b"1", 0o444), "name": (b"web", 0o444)}
    assert payload(volume, securityContext={"runAsUser": 7})["token"][1] == 0o600
    assert payload(volume, securityContext={"fsGroup": 7})["token"][1] == 0o640
    assert volumes.tokens(volume) == [Token("vault", 3600, "token")]
    assert volumes.references(pod(spec(), volumes=[volume])) == {("ConfigMap", "c")}
    assert volumes.changes_with_pod(volume)


def test_files_change_all_at_once(tmp_path: Path):
    """A new version replaces the old one by one rename; what is the same is left alone; what went is gone."""
    folder = str(tmp_path)
    assert mounts.write_files(folder, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)})
    first = os.readlink(tmp_path / "..data")
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "d" / "b").read_bytes() == b"2"
    assert (tmp_path / "d" / "b").stat().st_mode & 0o777 == 0o600
    assert not mounts.write_files(folder, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)})
    assert os.readlink(tmp_path / "..data") == first
    assert mounts.write_files(folder, {"a": (b"9", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"9" and not (tmp_path / "d").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["..data", os.readlink(tmp_path / "..data"), "a"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_files_stay_inside(tmp_path: Path, path: str):
    """No path of a volume leads outside of it."""
    with pytest.raises(VolumeError):
        mounts.write_files(str(tmp_path), {path: (b"", 0o644)})


@pytest.mark.root
def test_a_sub_path_cannot_escape(tmp_path: Path):
    """A link that a container made in its volume is not followed outside; a plain path is bound."""
    volume = tmp_path / "volume"
    (volume / "in").mkdir(parents=True)
    (volume / "out").symlink_to("/etc")
    (volume / "up").symlink_to("../..")
    for bad in ("out", "out/passwd", "up", "../x", "/etc"):
        with pytest.raises(VolumeError):
            mounts.bind_subpath(str(volume), bad, str(tmp_path / "target" / "0"))
    try:
        target = mounts.bind_subpath(str(volume), "in/new", str(tmp_path / "target" / "1"))
        Path(target, "file").write_text("x")
        assert (volume / "in" / "new" / "file").read_text() == "x"
    finally:
        mounts.unmount_below(str(tmp_path))


def test_a_refused_sub_path_leaves_nothing_open(tmp_path: Path):
    """A pod is tried again and again: each refusal closes what it opened."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "round").symlink_to("round")
    before = os.listdir("/proc/self/fd")
    for bad in ("file/x", "out", "round", "new/../../x"):
        with pytest.raises(VolumeError):
            mounts.bind_subpath(str(tmp_path), bad, str(tmp_path / "target"))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.root
@pytest.mark.parametrize("odd", ["ä b", os.fsdecode(b"\xff")])
def test_mounts_with_odd_names_are_found(tmp_path: Path, odd: str):
    """A folder is never removed through a mount that was overlooked because of the letters of its path."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").write_text("x")
    place = tmp_path / "pods" / odd
    place.mkdir(parents=True)
    mounts._mount(str(tmp_path / "data"), str(place), "", mounts._MS_BIND)
    try:
        mounts.remove_folder(str(tmp_path / "pods"))
    finally:
        if os.path.ismount(place) or place.exists():
            mounts._unmount(str(place))
    assert (tmp_path / "data" / "kept").exists() and not (tmp_path / "pods").exists()


@pytest.mark.root
def test_memory_volumes_are_mounted_and_removed(tmp_path: Path):
    """A memory volume is a tmpfs of its size; removing the folder unmounts it first."""
    one = pod(spec(), volumes=[{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])
    (plan,) = volumes.plans(one, str(tmp_path))
    mounts.prepare(plan)
    mounts.prepare(plan)
    assert os.statvfs(plan.path).f_blocks * os.statvfs(plan.path).f_frsize == 1 << 20
    mounts.remove_folder(str(tmp_path / "pods"))
    assert not (tmp_path / "pods").exists()


@pytest.mark.parametrize(
    ("kind", "ok"),
    [("", True), ("Directory", True), ("DirectoryOrCreate", True), ("File", False), ("Socket", False)],
)
def test_host_path_types(tmp_path: Path, kind: str, ok: bool):
    """The type of a hostPath is checked."""
    plan = volumes.Plan("h", volumes.HOST, str(tmp_path), {}, host_type=kind)
    if ok:
        mounts.prepare(plan)
    else:
        with pytest.raises(VolumeError, match="hostPath type check failed"):
            mounts.prepare(plan)


def test_the_end_of_a_long_termination_message_is_read(tmp_path: Path):
    """A container may write what it likes: 4 KiB from the end are kept, and the rest is not read."""
    owner = pod(spec())
    files = PodFiles(None, None, tmp_path, tmp_path, tmp_path)  # type: ignore[arg-type]
    ended = Container("id", "sandbox", "c", 0, "exited", 0.0)
    path = files._message_path(owner, "c", 0)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(1 << 33)
        file.seek(0, os.SEEK_END)
        file.write(b"the end")
    found = files.termination_message(owner, ended)
    assert found.endswith("the end") and len(found) == 4096
