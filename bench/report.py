"""Keeps docs/benchmarks.md: the table is written here, the text below the marker by people."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

import machine
from figures import FIGURES, Figure

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
_MARKER = "<!-- What follows is written by hand. -->"
_INTRO = """# Benchmarks

Made by `make bench`; medians of five unless told otherwise. Times are wall time. µs and ms per request are CPU of the
server process, from the first request until the server is quiet again, so that what controllers and the scheduler do
about a write is in it. Clients talk TLS with a bearer token and RBAC is on. The bars are the project's; a missed one
stays in the table and has its profile below. The machine is shared: the yardstick is how many milliseconds a fixed
piece of work took beside the measurement; the smaller, the more the machine was ours.

Machine: {machine}.

"""
_HEAD = (
    "| figure | bar | ours | met | k3s 1.20.6 | spread | when, commit, load, yardstick | command |\n"
    + "|---" * 8
    + "|\n"
)


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def row(figure: Figure, values: list[float], yardsticks: list[float]) -> str:
    """The line of a figure that was just measured."""
    median = statistics.median(values)
    met = "–" if figure.bar is None else "yes" if figure.met(median) else "**missed**"
    bar = "–" if figure.bar is None else f"{figure.bar:g} {figure.unit}"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    cells = [
        figure.title,
        bar,
        f"{number(median)} {figure.unit}",
        met,
        figure.original or "–",
        f"{number(min(values))} – {number(max(values))}, n={len(values)}",
        f"{time.strftime('%Y-%m-%d')}, {commit}, {machine.load()}, {statistics.median(yardsticks):.0f} ms",
        f"`python bench/run.py --only {figure.scenario}`",
    ]
    return "| " + " | ".join(cells) + " |"


def write(found: dict[str, list[float]], yardsticks: dict[str, list[float]]) -> None:
    """Replaces the lines of the figures that were measured; the others stay as they are. Yardsticks are by scenario."""
    page = PAGE.read_text() if PAGE.exists() else _MARKER + "\n"
    old = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")}
    lines = []
    for figure in FIGURES:
        if found.get(figure.key):
            lines.append(row(figure, found[figure.key], yardsticks[figure.scenario]))
        elif figure.title in old:
            lines.append(old[figure.title])
    by_hand = page.split(_MARKER, 1)[1]
    text = _INTRO.format(machine=machine.describe()) + _HEAD + "\n".join(lines) + f"\n\n{_MARKER}{by_hand}"
    PAGE.write_text(text)
