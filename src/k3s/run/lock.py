"""One process per folder: a lock that the kernel gives back when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "lock"


def hold(folder: Path) -> int | None:
    """Takes the lock of a folder that exists; the descriptor that holds it while it is open, None when it is taken.

    Raises OSError when the folder cannot be written.
    """
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of this folder; False also for a folder that never had one."""
    if not (folder / NAME).exists():
        return False
    descriptor = hold(folder)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
