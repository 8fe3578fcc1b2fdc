"""Measures and writes docs/benchmarks.md: python bench/run.py [--only start,idle,get,…] [--repeats 5] [--no-write].

With `--k3s dist/k3s` the executable is measured instead of the checkout, and the page stays as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import uvloop

import cluster
import idle
import imports
import load
import machine
import memory
import pods
import report
import start
from figures import BY_KEY, SCENARIOS
from plane import plane

# Starts of our own must find compiled modules, as those of users do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# What takes a minute and hardly differs from one time to the next is not measured more often than this.
_SLOW = {"idle": 1, "plane": 2, "memory": 1, "pods": 3, "churned": 3, "crowd": 3}


async def _under_load(name: str, repeats: int) -> AsyncIterator[dict[str, float]]:
    async with plane() as made, aclosing(load.SCENARIOS[name](made)) as series:
        await anext(series)  # warms up
        for _ in range(repeats):
            yield await anext(series)
            print(f"    {made.last}", flush=True)


async def _repeated(name: str, repeats: int) -> AsyncIterator[dict[str, float]]:
    repeats = min(repeats, _SLOW.get(name, repeats))
    if name in load.SCENARIOS:
        async for found in _under_load(name, repeats):
            yield found
    elif name == "pods":
        async for found in pods.measure(repeats):
            yield found
    else:
        once = {"start": start.measure, "idle": idle.measure, "plane": idle.control_plane, "memory": memory.measure}
        for _ in range(repeats):
            yield await once[name]()


Found = dict[str, list[float]]


async def measure(names: list[str], repeats: int) -> tuple[Found, Found]:
    """All values of the figures of some scenarios, and the yardsticks of each scenario."""
    values: Found = {}
    yardsticks: Found = {}
    for name in names:
        print(name, flush=True)
        async for found in _repeated(name, repeats):
            print(
                "  " + ", ".join(f"{key} {report.number(v)} {BY_KEY[key].unit}" for key, v in found.items()), flush=True
            )
            for key, value in found.items():
                values.setdefault(key, []).append(value)
            yardsticks.setdefault(name, []).append(machine.yardstick())
    return values, yardsticks


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join((*SCENARIOS, "imports")), help="scenarios, with commas between")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--k3s", type=Path, help="the program to measure; print only")
    args = parser.parse_args()
    if args.k3s is not None:
        cluster.program, args.no_write = args.k3s.resolve(strict=True), True
    names = args.only.split(",")
    unknown = set(names) - {*SCENARIOS, "imports"}
    if unknown:
        sys.exit(f"Unknown scenarios {sorted(unknown)}: use some of {', '.join(SCENARIOS)}, imports")
    if "imports" in names and not args.no_write:
        imports.main()
    found, yardsticks = uvloop.run(measure([name for name in names if name != "imports"], args.repeats))
    if found and not args.no_write:
        report.write(found, yardsticks)


if __name__ == "__main__":
    main()
