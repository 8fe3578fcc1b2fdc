"""`python -m tests.torture`: the long forms. Each part prints what was done; ends with 1 when something was wrong."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from tests.torture import growth, power, storm


def main(arguments: list[str]) -> int:
    """The command; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=("kill", "power", "growth"), help="these parts instead of all"
    )
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed")
    parser.add_argument("--failures", type=int, default=5000, help="how many power failures are tried")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long writes go on with 100 000 objects there")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what chance begins with")
    options = parser.parse_args(arguments)
    parts: dict[str, Callable[[Path], tuple[object, list[str]]]] = {
        "power": lambda folder: _power(folder, options.failures, options.seed),
        "kill": lambda folder: _kill(folder, options.kills, options.seed),
        "growth": lambda folder: _growth(folder, options.minutes, options.seed),
    }
    print(f"seed {options.seed}", flush=True)
    bad = False
    for name in options.only or parts:
        folder = Path(tempfile.mkdtemp(prefix="k3s-torture-"))
        try:
            report, problems = parts[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {report}", *problems, sep="\n    ", flush=True)
        bad = bad or bool(problems)
    return int(bad)


def _power(folder: Path, failures: int, seed: int) -> tuple[object, list[str]]:
    report = power.fail(folder, answers=max(500, failures), states=failures, seed=seed)
    return report, report.problems


def _kill(folder: Path, kills: int, seed: int) -> tuple[object, list[str]]:
    report = asyncio.run(storm.storm(folder, kills=kills, seed=seed))
    late = ["no watch came too late: nothing was learned of history that is gone"]
    return report, report.problems + late * (kills >= 100 and not report.listed_again)


def _growth(folder: Path, minutes: float, seed: int) -> tuple[object, list[str]]:
    plan = growth.Plan(seconds=minutes * 60)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(growth.grow(folder, plan, seed))
    return report, report.problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
