"""One line on the standard error, as the field's command lines write it: for a person, or for a program."""

from __future__ import annotations

import datetime
import os
import sys


def complain(level: str, message: str, now: float) -> None:
    """Writes a line of a level (info, warning, fatal): short on a terminal, else with the time `now`."""
    if os.isatty(2):
        print(f"{level.upper()[:4]}[0000] {message}", file=sys.stderr)
        return
    quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    print(f'time="{moment(int(now) * 10**9)}" level={level} msg="{quoted}"', file=sys.stderr)


def moment(ns: int) -> str:
    """A time (nanoseconds since 1970) in this machine's zone, without zeros at the end of its fraction."""
    local = datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC).astimezone()
    fraction = f".{ns % 10**9:09d}".rstrip("0").rstrip(".")
    zone = local.strftime("%z")
    return local.strftime("%Y-%m-%dT%H:%M:%S") + fraction + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")
