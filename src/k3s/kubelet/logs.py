"""Container logs as the runtime writes them, read as `kubectl logs` asks: tail, since, timestamps, limits, follow.

A line of the file is `<RFC 3339 time> <stdout|stderr> <tags> <text>`; tag P marks a piece that goes on in the next
line, F the last one (facts: cri, logs).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from k3s.api import times
from k3s.base.inotify import FolderWatch

_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What was asked for. `tail` counts lines (-1: all), `since` is seconds since 1970, `limit` bytes (0: no limit)."""

    tail: int = -1
    since: float = 0.0
    timestamps: bool = False
    follow: bool = False
    limit: int = 0
    stream: str = ""


def shown(line: bytes, options: LogOptions) -> bytes:
    """What a client sees of one line of the file; nothing for a line that is left out or that is no log line."""
    parts = line.split(b" ", 3)
    if len(parts) < 3:
        return b""
    stamp, stream, tags = parts[:3]
    text = parts[3] if len(parts) == 4 else b"\n"
    if options.stream and stream.decode() != options.stream:
        return b""
    if options.since and times.parse(stamp.decode()) < options.since:
        return b""
    if tags.split(b":")[0] == b"P":
        text = text.removesuffix(b"\n")
    return stamp + b" " + text if options.timestamps else text


def tail_offset(path: Path, lines: int) -> int:
    """The position from which the file holds its last `lines` lines, found by reading backwards."""
    size = path.stat().st_size
    if lines < 0:
        return 0
    if lines == 0:
        return size
    found, position = 0, size
    with path.open("rb") as file:
        while position > 0:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if position + at == size - 1:
                    continue
                found += 1
                if found == lines:
                    return position + at + 1
    return 0


def _whole_lines(file: object, rest: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(line, what is left over) pairs for the whole lines that the file holds from here on."""
    while block := file.read(_BLOCK):  # type: ignore[attr-defined]
        rest += block
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line + b"\n", rest
    yield b"", rest


class LogReader:
    """Reads one container's log; `ended` tells whether the container still writes (for following)."""

    def __init__(self, path: Path, options: LogOptions, ended: Callable[[], bool]) -> None:
        self._path = path
        self._options = options
        self._ended = ended
        self._sent = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The log in pieces. Raises FileNotFoundError when there is none."""
        changed = asyncio.Event()
        watch = self._watch(changed) if self._options.follow else None
        try:
            offset = tail_offset(self._path, self._options.tail)
            with self._path.open("rb") as first:
                first.seek(offset)
                file, rest = first, b""
                while True:
                    ending = not self._options.follow or self._ended()
                    changed.clear()
                    out, rest = self._gather(file, rest)
                    if out:
                        yield out
                    if self._full or ending:
                        return
                    if self._rotated(file):
                        file, rest = self._path.open("rb"), b""
                        continue
                    await changed.wait()
        finally:
            if watch is not None:
                watch.close()

    def _watch(self, changed: asyncio.Event) -> FolderWatch:
        return FolderWatch(self._path.parent, lambda name: changed.set(), writes=True)

    @property
    def _full(self) -> bool:
        return 0 < self._options.limit <= self._sent

    def _gather(self, file: object, rest: bytes) -> tuple[bytes, bytes]:
        out = bytearray()
        for line, left in _whole_lines(file, rest):
            rest = left
            if line:
                out += shown(line, self._options)
        data = bytes(out)
        if self._options.limit:
            data = data[: self._options.limit - self._sent]
        self._sent += len(data)
        return data, rest

    def _rotated(self, file: object) -> bool:
        """True when the runtime went on with a new file under the same name."""
        with contextlib.suppress(FileNotFoundError):
            return os.fstat(file.fileno()).st_ino != self._path.stat().st_ino  # type: ignore[attr-defined]
        return False
