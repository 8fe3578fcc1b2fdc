"""The audit log as a file: a line an event, begun anew when it is large, old files removed by age and number.

Names and meanings are those of upstream's flags; the file is 0600. A line is one write to the end of the file, so that
what was answered is in the kernel's hands. Files are renamed at once, packed and removed beside the requests.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from k3s.api import times
from k3s.api.object import Object, encode
from k3s.apiserver.audit import event as events
from k3s.apiserver.audit.backends import Failed
from k3s.base.aio import Tasks, blocking

log = logging.getLogger(__name__)
_DAY_S = 86400.0
_DEFAULT_MB = 100
_STDOUT = "-"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`max_age_days`, `max_files` of old files: 0 keeps all of them; `max_mb`: 0 stands for 100."""

    path: str
    max_age_days: int = 0
    max_files: int = 0
    max_mb: int = 0
    packed: bool = False


class LogFile:
    """Appends lines."""

    def __init__(self, settings: LogSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._path = Path(settings.path)
        self._file = -1
        self._size = 0
        self._limit = (settings.max_mb or _DEFAULT_MB) << 20
        self._tasks = Tasks("audit")

    def open(self) -> None:
        """Opens the file for appending; makes it and its folder. Raises OSError."""
        if self._settings.path == _STDOUT:
            self._file = sys.stdout.fileno()
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, line: bytes) -> None:
        """Appends a line. Raises OSError."""
        if self._file < 0:
            self.open()  # the last attempt to begin it anew has failed
        if self._size and self._size + len(line) > self._limit and self._settings.path != _STDOUT:
            self._rotate()
        view = memoryview(line)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(line)

    async def close(self) -> None:
        """Closes the file; nothing is left under way."""
        await self._tasks.close()
        if self._file >= 0 and self._settings.path != _STDOUT:
            os.close(self._file)
        self._file = -1

    def _rotate(self) -> None:
        # A number that is closed may soon be another file: whatever fails from here, nothing is written to it.
        closed, self._file = self._file, -1
        os.close(closed)
        stem, end = self._path.stem, self._path.suffix
        self._path.rename(self._path.with_name(f"{stem}-{_stamp(self._now())}{end}"))
        self.open()
        self._tasks.spawn(self._tidy(), "old files")

    async def _tidy(self) -> None:
        try:
            await blocking(_tidy, self._path, self._settings, self._now())
        except OSError as error:
            log.warning("Old files of the audit log %s stay: %s", self._path, error)


class LogPlace:
    """The file as a place of events (see `backends.Place`)."""

    name = "log"

    def __init__(self, file: LogFile, *, legacy: bool) -> None:
        self._file = file
        self._legacy = legacy

    def open(self) -> None:
        """Opens the file. Raises OSError."""
        self._file.open()

    def write(self, given: Sequence[Object]) -> None:
        """Appends a line for each event. Raises Failed."""
        for event in given:
            line = events.legacy(event, event["stageTimestamp"]).encode() if self._legacy else encode(event)
            try:
                self._file.write(line + b"\n")
            except OSError as error:
                raise Failed(f"the audit log cannot be written: {error}") from error

    def hurry(self) -> None:
        """Lines are written at once anyway."""

    async def close(self) -> None:
        """Closes the file."""
        await self._file.close()


def _stamp(now: float) -> str:
    """A moment as it stands in the name of an old file."""
    return times.format_ns(int(now * 1000) * 10**6, 3).rstrip("Z").replace(":", "-")


def _tidy(path: Path, settings: LogSettings, now: float) -> None:
    import gzip
    import shutil

    pattern = re.compile(re.escape(path.stem) + r"-(\d{4}-\d\d-\d\dT[\d.-]+)" + re.escape(path.suffix) + r"(\.gz)?")
    old = sorted((found[1], file) for file in path.parent.iterdir() if (found := pattern.fullmatch(file.name)))
    keep = old[-settings.max_files :] if settings.max_files else old
    if settings.max_age_days:
        oldest = _stamp(now - settings.max_age_days * _DAY_S)
        keep = [(at, file) for at, file in keep if at >= oldest]
    for _, file in set(old) - set(keep):
        file.unlink()
    for _, file in keep if settings.packed else ():
        if file.suffix != ".gz":
            packed = file.with_name(file.name + ".gz")
            with file.open("rb") as source, os.fdopen(_private(packed), "wb") as raw, gzip.open(raw, "wb") as target:
                shutil.copyfileobj(source, target)
            file.unlink()


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
