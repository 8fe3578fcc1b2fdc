"""Takes archives apart: Debian packages, wheels, tars, npm packages. No path leaves the folder it is meant for."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from build.inputs import LockError


def debian(data: bytes) -> tarfile.TarFile:
    """The files of a Debian package. Raises LockError."""
    for name, content in _members(data):
        if name == "data.tar.xz":
            return tarfile.open(fileobj=io.BytesIO(lzma.decompress(content)))
        if name == "data.tar.zst":
            import zstandard

            return tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(content).read()))
        if name in ("data.tar.gz", "data.tar"):
            return tarfile.open(fileobj=io.BytesIO(content))
    raise LockError("a Debian package has no data.tar")


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    if not data.startswith(b"!<arch>\n"):
        raise LockError("a Debian package is no ar archive")
    at = 8
    while at + 60 <= len(data):
        header = data[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def safe(name: str) -> str:
    """A path inside an archive. Raises LockError for one that would leave the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise LockError(f"an archive has the path {name!r}, which leaves its folder")
    return path.as_posix()


def tar(archive: tarfile.TarFile, folder: Path, wanted: Callable[[str], str | None]) -> None:
    """Writes the members that `wanted` gives a place to, with links among them and execute bits."""
    for member in archive:
        name = safe(member.name.removeprefix("./"))
        place = wanted(name)
        if place is None or member.isdir():
            continue
        target = folder / safe(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            if not target.exists():
                target.symlink_to(member.linkname)
            continue
        stream = archive.extractfile(member)
        if stream is None:
            continue
        if target.is_symlink():
            target.unlink()  # a file is worth more than a link to where it was
        target.write_bytes(stream.read())
        target.chmod(0o755 if member.mode & 0o111 else 0o644)


def wheel(data: bytes, folder: Path, wanted: Callable[[str], str | None]) -> None:
    """Writes the files of a wheel that `wanted` gives a place to."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            place = wanted(safe(info.filename))
            if place is None or info.is_dir():
                continue
            target = folder / safe(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(info))
            target.chmod(0o755 if info.external_attr >> 16 & 0o111 else 0o644)


def without_root(name: str) -> str | None:
    """A place for the members of an archive whose one top folder is left out."""
    return name.partition("/")[2] or None
