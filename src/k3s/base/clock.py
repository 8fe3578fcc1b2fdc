"""Time, as a value that is handed to whoever needs it, so that a simulation can own it (law 8)."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, tzinfo
from typing import Protocol


class Clock(Protocol):
    """The two clocks a component may read."""

    def now(self) -> float:
        """Seconds since the epoch, for timestamps that people and objects see."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines and back-off."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class LoopClock:
    """The running event loop's clock: under the simulation's loop it is virtual time.

    `epoch` is what `now()` answers when the loop's time is zero (seconds since 1970).
    """

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch

    def now(self) -> float:
        return self._epoch + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def zone_of(name: str) -> tzinfo:
    """The time zone of this name in the IANA database. Raises ValueError when the machine knows none."""
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name}") from None


def local_zone() -> tzinfo:
    """The machine's own time zone: of the variable TZ, else of /etc/localtime, else UTC."""
    import zoneinfo

    try:
        if name := os.environ.get("TZ", ""):
            return zone_of(name.removeprefix(":"))
        with open("/etc/localtime", "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file)
    except (ValueError, OSError):
        return UTC
