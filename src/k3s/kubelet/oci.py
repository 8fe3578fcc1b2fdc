"""Makes a container image archive from files, in pure Python and with the same bytes each time.

The result is a tar in the OCI image layout that `ctr images import` takes. Source: the OCI image specification 1.0
(image-layout, manifest, config) and containerd's annotation for the full name of an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in an image: a file with `content`, a symbolic link with `link`, or a folder with neither."""

    path: str
    content: bytes | None = None
    link: str = ""
    mode: int = 0o755
    #: Number of the user and group that it belongs to.
    owner: int = 0


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image is called, holds and runs. `name` is a full reference such as docker.io/library/busybox:1."""

    name: str
    entries: tuple[Entry, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    working_dir: str = ""
    machine: str = "x86_64"


def archive(*specs: ImageSpec) -> bytes:
    """Images as one tar; a layer that several have is in it once. Raises KeyError for a machine that images have no
    name for."""
    entries: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    for spec in specs:
        entry, parts = _image(spec)
        entries.append(entry)
        blobs |= {_digest(blob).partition(":")[2]: blob for blob in parts}
    return _tar(
        [
            Entry("oci-layout", _json({"imageLayoutVersion": "1.0.0"}), mode=0o644),
            Entry("index.json", _json({"schemaVersion": 2, "manifests": entries}), mode=0o644),
            *(Entry(f"blobs/sha256/{name}", blob, mode=0o644) for name, blob in sorted(blobs.items())),
        ]
    )


def _image(spec: ImageSpec) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """The row of an image in an index, and what it is made of."""
    layer = _tar(spec.entries)
    digest = _digest(layer)
    config = _json(
        {
            "architecture": _ARCHITECTURES[spec.machine],
            "os": "linux",
            "created": _EPOCH,
            "config": _runtime_config(spec),
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "history": [{"created": _EPOCH, "created_by": "k3s"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {
        "io.containerd.image.name": spec.name,
        "org.opencontainers.image.ref.name": spec.name.rpartition(":")[2],
    }
    return entry, (layer, config, manifest)


def pause(name: str, program: bytes, machine: str) -> ImageSpec:
    """The image of the process that holds a pod's namespaces: ours, or catatonit, which pauses and reaps with -P."""
    return ImageSpec(
        name=name,
        entries=(Entry("pause", program),),
        entrypoint=("/pause", "-P"),
        user="65535:65535",
        machine=machine,
    )


def busybox(name: str, binary: bytes, applets: Sequence[str], machine: str) -> ImageSpec:
    """A small image with a shell: a static busybox and a link for each of its `applets`."""
    links = tuple(Entry(f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox")
    passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    entries = (
        Entry("bin/busybox", binary),
        *links,
        *(Entry(folder) for folder in ("etc", "home", "root", "var")),
        Entry("tmp", mode=0o1777),
        Entry("etc/passwd", passwd, mode=0o644),
        Entry("etc/group", b"root:x:0:\nnogroup:x:65534:\n", mode=0o644),
    )
    return ImageSpec(name=name, entries=entries, command=("sh",), machine=machine)


def _runtime_config(spec: ImageSpec) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "Env": list(spec.env),
        "Entrypoint": list(spec.entrypoint),
        "Cmd": list(spec.command),
        "User": spec.user,
        "WorkingDir": spec.working_dir,
    }
    return {key: value for key, value in parts.items() if value}


def _tar(entries: Iterable[Entry]) -> bytes:
    """A tar whose bytes depend on the entries only: owner root, time zero."""
    out = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            _add_parents(tar, entry.path, made)
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            if entry.link:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
                tar.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                made.add(entry.path)
                tar.addfile(info)
            else:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def _add_parents(tar: tarfile.TarFile, path: str, made: set[str]) -> None:
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        folder = "/".join(parts[:end])
        if folder not in made:
            made.add(folder)
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}
