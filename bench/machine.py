"""What processes and the machine use, read from /proc."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def tree(root: int) -> list[int]:
    """A process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def ours(root: int) -> dict[str, int]:
    """The Python processes of a server: `server` and, if there is one, `agent`."""
    found = {"server": root}
    for pid in tree(root)[1:]:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"k3s" in words and b"agent" in words:
            found["agent"] = pid
    return found


def pss(pid: int) -> float:
    """Proportional set size in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"Cannot read the memory of process {pid}: /proc tells no Pss")


def rss(pid: int) -> float:
    """Resident set size in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def written(pid: int) -> int:
    """Bytes that a process has caused to be written to disk."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise ValueError(f"Cannot read what process {pid} wrote: /proc tells no write_bytes")


def quiet(pids: Iterable[int], within_s: float = 15.0) -> None:
    """Returns when the processes have used less than 3 % of a core for half a second, or time is over."""
    watched = list(pids)
    end = time.monotonic() + within_s
    before = sum(map(cpu, watched))
    while time.monotonic() < end:
        time.sleep(0.5)
        now = sum(map(cpu, watched))
        if now - before < 0.015:
            return
        before = now


def describe() -> str:
    """The machine and the interpreter in one line."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, Linux {platform.release()}, CPython {python}"


def load() -> str:
    """The load of the last minute; work of others is in it."""
    return f"{os.getloadavg()[0]:.1f}"


def yardstick() -> float:
    """Milliseconds of CPU that a fixed piece of work takes here and now.

    On a shared machine the same instructions take up to twice as long from one minute to the next; figures are
    comparable where their yardsticks are.
    """
    thing = {"items": [{"name": f"n{i}", "labels": {"app": "x", "tier": str(i)}, "n": i} for i in range(200)]}
    began = time.process_time()
    for _ in range(40):
        copy = json.loads(json.dumps(thing))
        sum(item["n"] for item in copy["items"] if item["labels"]["tier"] != "7")
    return (time.process_time() - began) * 1000
