"""A disk whose power can fail: what a process wrote and synced is recorded (`disk.c`), and from any moment of that the
states are made in which a real disk could come back.

What was synced is there. Of everything else any part may be there, sector by sector: caches write in any order. The
name of a new file is there once its folder was synced.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CREATE, WRITE, TRUNCATE, SYNC, UNLINK = range(1, 6)
WELL, FULL, READ_ONLY, NO_SYNC = range(4)
_HEAD = struct.Struct("<IIQQ")
SECTOR = 512


class Step(NamedTuple):
    """One call: `at` is the offset, or the size that a file was cut to."""

    what: int
    path: str
    at: int
    data: bytes


class Faulty:
    """A folder on a disk that records and fails: what a child needs in its environment."""

    def __init__(self, work: Path, root: Path) -> None:
        self._library = work / "disk.so"
        self._fault = work / "fault"
        self.trace = work / "trace"
        self.root = root
        source = Path(__file__).with_name("disk.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self._library, source, "-ldl", "-lpthread"], check=True)
        self.goes(WELL)

    def goes(self, fault: int) -> None:
        """What goes wrong from now on."""
        descriptor = os.open(self._fault, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, bytes([fault]), 0)
        os.close(descriptor)

    def environment(self, *, trace: bool) -> dict[str, str]:
        """For a process that shall use this disk."""
        made = {**os.environ, "LD_PRELOAD": str(self._library), "DISK_ROOT": str(self.root)}
        made["DISK_FAULT"] = str(self._fault)
        return {**made, "DISK_TRACE": str(self.trace)} if trace else made

    def steps(self) -> Iterator[Step]:
        """What was recorded; the last one may be cut off when the process was killed."""
        data = self.trace.read_bytes()
        at = 0
        while at + _HEAD.size <= len(data):
            what, path, where, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = data[at : at + path].decode()
            at += path
            yield Step(what, name, where, data[at : at + size])
            at += size


@dataclass
class File:
    """What a file holds for sure, and what was done to it since."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)
    named: bool = False
    unlinked: bool = False


class Disk:
    """The files of a record up to a moment."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}

    def take(self, step: Step) -> None:
        """Does one more step."""
        if step.what == SYNC and step.path not in self.files:
            self._sync_folder(step.path)
            return
        file = self.files.setdefault(step.path, File())
        if step.what == CREATE and file.unlinked:
            self.files[step.path] = File()
        elif step.what == UNLINK:
            file.unlinked = True
        elif step.what == SYNC:
            for done in file.pending:
                _do(file.safe, done)
            file.pending.clear()
        elif step.what in (WRITE, TRUNCATE):
            file.pending.append(step)

    def _sync_folder(self, folder: str) -> None:
        for path, file in list(self.files.items()):
            if os.path.dirname(path) == folder.rstrip("/"):
                file.named = True
                if file.unlinked:
                    del self.files[path]

    def crashed(self, kept: Callable[[], bool]) -> dict[str, bytes]:
        """The files after a power failure; `kept` decides what of the unsynced is there, sector by sector."""
        left: dict[str, bytes] = {}
        for path, file in self.files.items():
            if (not file.named and not kept()) or (file.unlinked and kept()):
                continue
            content = bytearray(file.safe)
            for step in file.pending:
                if step.what == TRUNCATE:
                    if kept():
                        _do(content, step)
                    continue
                for start in range(0, len(step.data), SECTOR):
                    if kept():
                        _do(content, Step(WRITE, path, step.at + start, step.data[start : start + SECTOR]))
            left[path] = bytes(content)
        return left


def _do(content: bytearray, step: Step) -> None:
    if step.what == TRUNCATE:
        content[step.at :] = bytes(max(0, step.at - len(content)))
        return
    end = step.at + len(step.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[step.at : end] = step.data


def lots(chance: random.Random) -> Callable[[], bool]:
    """One way of losing what was not synced: nothing is left, everything is, or any part of it."""
    share = chance.choice([0.0, 1.0, 0.5, 0.9, 0.1])
    return lambda: chance.random() < share
