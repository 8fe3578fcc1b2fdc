"""Takes archives apart: Debian packages, wheels, tars, npm packages. No path leaves the folder it is meant for."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from build.inputs import Input, LockError


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
        _parents(target, folder, name)
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


def _parents(target: Path, folder: Path, name: str) -> None:
    """Makes the folders of a file. Raises LockError when a link on the way leads out of the folder."""
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise LockError(f"an archive has the path {name!r}, which leaves its folder by a link")
    target.parent.mkdir(parents=True, exist_ok=True)


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


def wheel_member(data: bytes, ending: str) -> bytes:
    """The one file of a wheel whose path ends so. Raises LockError."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [name for name in archive.namelist() if name.endswith(ending)]
        if len(found) != 1:
            raise LockError(f"a wheel has {len(found)} files *{ending} instead of one")
        return archive.read(found[0])


def tree(row: Input, data: bytes, folder: Path) -> None:
    """The files of an input below a folder: of a commit; of an archive where the row says `unpack`, without its one top
    folder where it says `strip_root`; else the file itself. Raises LockError."""
    folder.mkdir(parents=True, exist_ok=True)
    if row.kind != "git" and not row.unpack:
        (folder / row.file).write_bytes(data)
        return
    if data.startswith(b"PK\x03\x04"):
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        wheel(data, folder, _place(row, names))
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(data))) as archive:
            names = [member.name.removeprefix("./") for member in archive if not member.isdir()]
            place = _place(row, names)
            tar(archive, folder, place)
            # Empty folders count: a repository without one of its own is none.
            for name in (place(member.name.removeprefix("./")) for member in archive if member.isdir()):
                if name:
                    _parents(folder / safe(name) / "-", folder, name)
    except tarfile.TarError as error:
        raise LockError(f"{row.title}: {row.file} is no tar or zip: {error}") from None


def _decompressed(data: bytes) -> bytes:
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return data  # tarfile knows gzip, bzip2 and xz
    import zstandard

    return bytes(zstandard.ZstdDecompressor().stream_reader(data).read())


def _place(row: Input, names: list[str]) -> Callable[[str], str | None]:
    if not row.strip_root:
        return lambda name: name
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or any("/" not in name for name in names if not name.endswith("/")):
        raise LockError(f"{row.title}: strip_root needs one folder at the top of {row.file}, not {sorted(tops)[:3]}")
    return lambda name: name.partition("/")[2] or None
