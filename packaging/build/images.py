"""Stage images: what `agent/images` takes on hosts that reach no registry, one OCI archive made without a daemon.

An image is a row: its name, and how it is made of the stages and inputs at hand. Images of programs that no pinned
package has (Traefik, the job that runs helm) are left out.
"""

from __future__ import annotations

from collections.abc import Callable

from build import unpack
from build.inputs import LockError
from build.stage import Work
from k3s.kubelet import oci, pause

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
INPUTS = ("busybox-static",)
NEEDS = ("stub",)
SOURCES = ("src/k3s/kubelet/oci.py", "src/k3s/kubelet/pause.py")


def images(work: Work) -> None:
    """`k3s-airgap-images-<arch>.tar.zst`, and `k3s-images-<arch>.txt` with the names of what is in it."""
    import zstandard

    specs = [make(work) for make in _IMAGES]
    # One thread: with several, the bytes depend on how many the machine has.
    packed = zstandard.ZstdCompressor(level=19).compress(oci.archive(*specs))
    (work.out / f"k3s-airgap-images-{work.arch}.tar.zst").write_bytes(packed)
    (work.out / f"k3s-images-{work.arch}.txt").write_text("".join(f"{spec.name}\n" for spec in specs))


def _pause(work: Work) -> oci.ImageSpec:
    program = (work.stages["stub"] / "libexec/pause").read_bytes()
    return oci.pause(pause.IMAGE, program, _MACHINES[work.arch])


def _busybox(work: Work) -> oci.ImageSpec:
    found = unpack.debian(work.input("busybox-static"))
    stream = found.extractfile(next(each for each in found if each.name.endswith("bin/busybox")))
    assert stream is not None
    program = stream.read()
    version = work.rows["busybox-static"].version.rpartition(":")[2].partition("-")[0]
    name = f"docker.io/rancher/mirrored-library-busybox:{version}"
    return oci.busybox(name, program, applets(program), _MACHINES[work.arch])


def applets(busybox: bytes) -> list[str]:
    """The names that a busybox goes by, from the table in it: it may be one of another architecture."""
    start = busybox.find(b"[\0[[\0")
    if start < 0:
        raise LockError("busybox-static has no table of names")
    table = busybox[start : busybox.index(b"\0\0", start)]
    return table.decode().split("\0")


_IMAGES: tuple[Callable[[Work], oci.ImageSpec], ...] = (_pause, _busybox)
