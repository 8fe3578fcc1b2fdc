"""Files that other processes rely on: written whole or not at all, with the mode they need from the first byte."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replaces `path` atomically and durably; folders that are missing are made with mode 0700.

    Raises OSError, and then leaves the old file as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _flush(folder: Path) -> None:
    """Makes a new name in a folder durable: without, a power failure can bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_changed(path: Path, content: bytes | str, mode: int = 0o600) -> bool:
    """Like `write`, but leaves a file alone that already has this content; tells whether it wrote."""
    data = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        if path.read_bytes() == data:
            os.chmod(path, mode)
            return False
    write(path, data, mode)
    return True


def folder(path: Path, mode: int = 0o700) -> Path:
    """Makes a folder and its missing parents, new ones with `mode`; returns it."""
    if not path.is_dir():
        folder(path.parent, mode)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode)
    return path
