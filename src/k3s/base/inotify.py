"""Waiting for changes of files: Linux inotify on the event loop, without a thread and without polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

# From <sys/inotify.h>.
_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x08, 0x40, 0x80
_IN_CREATE, _IN_DELETE, _IN_DELETE_SELF = 0x100, 0x200, 0x400
_IN_MODIFY = 0x02
_MASK = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF
_HEADER = struct.Struct("iIII")


class FolderWatch:
    """Calls `changed(name)` on the running loop for each change of an entry of `folder` until `close()`.

    The name is empty when the kernel dropped events or the folder itself went: look at everything again.
    With `writes`, every write to a file counts, not only its closing. Raises OSError when the folder is missing or the
    user's limit of watches is reached.
    """

    def __init__(self, folder: Path, changed: Callable[[str], None], *, writes: bool = False) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._changed = changed
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "Cannot watch files: inotify is not available")
        if libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK | (_IN_MODIFY if writes else 0)) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, f"Cannot watch {folder}: {os.strerror(code)}")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        data = os.read(self._fd, 65536)
        at = 0
        while at < len(data):
            _watch, _mask, _cookie, size = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            self._changed(os.fsdecode(data[at : at + size].rstrip(b"\0")))
            at += size

    def close(self) -> None:
        """Stops watching."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


async def appears(path: Path, timeout_s: float) -> bool:
    """Waits until `path` exists, whose folder must exist; False when that took longer than `timeout_s`."""
    here = asyncio.Event()
    watch = FolderWatch(path.parent, lambda name: here.set() if name == path.name else None)
    try:
        if path.exists():
            return True
        await asyncio.wait_for(here.wait(), timeout_s)
        return True
    except asyncio.TimeoutError:
        return False
    finally:
        watch.close()
