"""The program that holds a pod's namespaces: where it is, and its image."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from k3s.base import bundle

IMAGE = "docker.io/rancher/mirrored-pause:3.6"
#: Where Debian's package catatonit, which pauses with -P, may have it.
CATATONIT = (Path("/usr/libexec/podman/catatonit"), Path("/usr/bin/catatonit"))


def program(env: Mapping[str, str] = os.environ) -> Path | None:
    """Our own of the executable's payload, else that of Debian; None when there is neither."""
    ours = bundle.folder(env)
    found = (ours / "libexec/pause", *CATATONIT) if ours is not None else CATATONIT
    return next((path for path in found if path.is_file()), None)


def image(name: str) -> bytes:
    """The archive of the image. Raises RuntimeError when there is no program."""
    from k3s.kubelet import oci

    binary = program()
    if binary is None:
        raise RuntimeError(f"Cannot make the image {name}: catatonit is not installed; install the package catatonit")
    return oci.archive(oci.pause(name, binary.read_bytes(), platform.machine()))
