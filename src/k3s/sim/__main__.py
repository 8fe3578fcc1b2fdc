"""`python -m k3s.sim --seeds 50`: runs seeds, prints those that fail with their story, and ends with 1 if any did."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable

from k3s.sim.cluster import EPOCH
from k3s.sim.scenarios import ALL
from k3s.sim.seed import Outcome, play, play_many

_STORY_LINES = 25


def main(arguments: list[str]) -> int:
    """The command; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m k3s.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--scenario", action="append", choices=sorted(ALL), help="instead of what the seed chooses")
    parser.add_argument("--processes", type=int, default=2, help="how many seeds at the same time")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the whole story, and seeds that pass")
    options = parser.parse_args(arguments)
    names = tuple(options.scenario or ())
    if options.seed is not None:
        return _report([play(options.seed, names=names)], options.verbose)
    began = time.monotonic()
    failed = _report(play_many(options.first, options.seeds, names, options.processes), options.verbose)
    _say(f"{options.seeds} seeds in {time.monotonic() - began:.0f} s: {'some failed' if failed else 'all passed'}")
    return failed


def _report(outcomes: Iterable[Outcome], verbose: bool) -> int:
    failed = 0
    for outcome in outcomes:
        about = f"seed {outcome.seed} ({', '.join(outcome.chosen)})"
        if outcome.failures:
            failed = 1
            first = outcome.failures[0]
            _say(f"{about} FAILED at {first.at - EPOCH:.3f}: {first}")
            for failure in outcome.failures[1:]:
                _say(f"    {failure}")
            for line in outcome.lines() if verbose else outcome.lines(first.key)[-_STORY_LINES:]:
                _say(f"    {line}")
        elif verbose:
            _say(f"{about} passed: {outcome.virtual_s:.0f} virtual s, {outcome.writes} writes")
    return failed


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set of names has to be the same in every process, or a seed would not repeat itself.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "k3s.sim", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))
