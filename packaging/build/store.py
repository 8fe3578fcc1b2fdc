"""A content-addressed store: inputs and the outputs of stages by hash, so that a second build is offline and fast.

<store>/files/<sha256>           the bytes of an input
<store>/stages/<key>/            the output of a stage for one set of inputs, and `<key>.json` about it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from build.inputs import Input, LockError, sri


class Store:
    """The store in one folder, which is made when it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = folder / "files"
        self._stages = folder / "stages"
        for each in (self._files, self._stages):
            each.mkdir(parents=True, exist_ok=True)

    def file(self, wanted: Input) -> Path | None:
        """The bytes of an input, when they are here and whole."""
        path = self._files / wanted.digest
        if not path.exists():
            return None
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted.digest:
            path.unlink()
            return None
        return path

    def add(self, wanted: Input, data: bytes) -> Path:
        """Keeps the bytes of an input. Raises LockError when they are not those that were locked; nothing is kept."""
        got = sri(data)
        if got != wanted.hash:
            raise LockError(f"{wanted.title}: expected {wanted.hash}, got {got}; nothing of it is kept")
        return self.keep(data)

    def keep(self, data: bytes) -> Path:
        """Keeps bytes by their hash."""
        path = self._files / hashlib.sha256(data).hexdigest()
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
        return path

    def stage(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The output of a stage and what is known of it; None when it was not built yet."""
        about = self._stages / f"{key}.json"
        if not about.exists():
            return None
        return self._stages / key, json.loads(about.read_text())

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """An empty folder that becomes the output of a stage, or nothing when the block fails."""
        with tempfile.TemporaryDirectory(dir=self._stages, prefix="making-") as scratch:
            out = Path(scratch) / "out"
            out.mkdir()
            yield out
            target = self._stages / key
            shutil.rmtree(target, ignore_errors=True)
            os.rename(out, target)

    def know(self, key: str, about: dict[str, Any]) -> None:
        """Says that the output of a stage is whole, and what is known of it."""
        path = self._stages / f"{key}.json"
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(about, sort_keys=True))
        os.replace(unfinished, path)


def tree_hash(folder: Path) -> str:
    """The hash of everything below a folder: names, kinds, execute bits, contents; not times or owners."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            digest.update(f"link {name} {os.readlink(path)}\n".encode())
        elif path.is_dir():
            digest.update(f"dir {name}\n".encode())
        else:
            executable = bool(path.stat().st_mode & 0o100)
            inner = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"file {name} {executable} {inner}\n".encode())
    return digest.hexdigest()


def tree_size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
