"""Writes archives whose bytes depend on what is in them only: owner root, one time, names in order."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Member:
    """One thing in an archive: a file with `content`, a symbolic link with `link`, or a folder with neither."""

    path: str
    content: bytes | None = None
    link: str = ""
    #: Permissions of a file; folders are open to all.
    mode: int = 0o644


def members(folder: Path) -> list[Member]:
    """Everything below a folder, sorted by name."""
    found = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found.append(Member(name, link=os.readlink(path)))
        elif path.is_dir():
            found.append(Member(name))
        else:
            found.append(Member(name, path.read_bytes(), mode=0o755 if path.stat().st_mode & 0o100 else 0o644))
    return found


def tar(things: Iterable[Member], prefix: str = "") -> bytes:
    """A tar of ustar, in the order given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for each in things:
            info = tarfile.TarInfo(prefix + each.path)
            info.mode = each.mode
            if each.link:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, each.link, 0o777
                archive.addfile(info)
            elif each.content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(each.content)
                archive.addfile(info, io.BytesIO(each.content))
    return out.getvalue()


def gzipped(data: bytes) -> bytes:
    """Compressed, without a name or a time."""
    return gzip.compress(data, 9, mtime=0)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of plain files, in the order given."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, content)
    return out.getvalue()


def ar(files: Mapping[str, bytes]) -> bytes:
    """The outer archive of a Debian package."""
    out = [b"!<arch>\n"]
    for name, content in files.items():
        out.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content)
        out.append(b"\n" if len(content) % 2 else b"")
    return b"".join(out)
