"""Container logs as the runtime writes them, read as `kubectl logs` asks: tail, since, timestamps, limits, follow.

A line of the file is `<RFC 3339 time> <stdout|stderr> <tags> <text>`; tag P marks a piece that goes on in the next
line, F the last one (facts: cri, logs).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file; `whole`: the container ended it, so that the next one begins anew."""

    stamp: bytes
    stream: str
    text: bytes
    whole: bool

    @classmethod
    def parse(cls, line: bytes) -> Line | None:
        """A line with its newline, taken apart; None when it is no log line."""
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            return None
        stamp, stream, tags = parts[:3]
        whole = tags.rstrip(b"\n").split(b":")[0] != b"P"
        text = parts[3] if len(parts) == 4 else b"\n"
        return cls(stamp, stream.decode(errors="replace"), text if whole else text.removesuffix(b"\n"), whole)


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


class LogReader:
    """Reads one container's log.

    For following: `ended` tells whether the container writes no more, and `listen` takes a function that is called
    whenever that may have changed; it answers how to stop that.
    """

    def __init__(
        self,
        path: Path,
        options: LogOptions,
        ended: Callable[[], bool] = lambda: True,
        listen: Callable[[Callable[[], None]], Callable[[], None]] = lambda tell: lambda: None,
    ) -> None:
        self._path = path
        self._options = options
        self._ended = ended
        self._listen = listen
        self._sent = 0
        self._rest = b""
        self._fresh = True

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The log in pieces. Raises FileNotFoundError when there is none."""
        async for runs in self._blocks():
            yield b"".join(text for _, text in runs)

    async def parts(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """The same, each piece with the stream that it was written to."""
        async for runs in self._blocks():
            for stream, text in runs:
                yield stream, bytes(text)

    async def _blocks(self) -> AsyncGenerator[list[tuple[str, bytearray]], None]:
        changed = asyncio.Event()
        with contextlib.ExitStack() as stack:
            if self._options.follow:
                stack.callback(self._listen(changed.set))
                stack.callback(FolderWatch(self._path.parent, lambda name: changed.set(), writes=True).close)
            offset = tail_offset(self._path, self._options.tail)
            file = stack.enter_context(self._path.open("rb"))
            file.seek(offset)
            while True:
                ending = not self._options.follow or self._ended()
                changed.clear()
                while not self._full and (block := file.read(_BLOCK)):
                    if out := self._show(block):
                        yield out
                if self._full or ending:
                    return
                if self._rotated(file):
                    file.close()
                    file, self._rest = stack.enter_context(self._path.open("rb")), b""
                    continue
                await changed.wait()

    @property
    def _full(self) -> bool:
        return 0 < self._options.limit <= self._sent

    def _show(self, block: bytes) -> list[tuple[str, bytearray]]:
        """What the client sees of the lines that are whole with `block`: neighbours of one stream together."""
        options = self._options
        *lines, self._rest = (self._rest + block).split(b"\n")
        runs: list[tuple[str, bytearray]] = []
        for raw in lines:
            line = Line.parse(raw + b"\n")
            if line is None or (options.stream and line.stream != options.stream):
                continue
            if options.since and times.parse(line.stamp.decode()) < options.since:
                continue
            if not runs or runs[-1][0] != line.stream:
                runs.append((line.stream, bytearray()))
            if options.timestamps and self._fresh:
                runs[-1][1].extend(line.stamp + b" ")
            runs[-1][1].extend(line.text)
            self._fresh = line.whole
        for _, text in runs:
            if options.limit:
                del text[options.limit - self._sent :]
            self._sent += len(text)
        return [run for run in runs if run[1]]

    def _rotated(self, file: BinaryIO) -> bool:
        """True when the runtime went on with a new file under the same name."""
        with contextlib.suppress(FileNotFoundError):
            return os.fstat(file.fileno()).st_ino != self._path.stat().st_ino
        return False
