"""What importing each dependency costs, written into the table of docs/dependencies.md."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "dependencies.md"
# Package -> what we import of it.
MODULES = {
    "uvloop": "uvloop",
    "httptools": "httptools",
    "msgspec": "msgspec.json",
    "PyYAML": "yaml",
    "cryptography": "cryptography.x509, cryptography.hazmat.primitives.asymmetric.ec",
    "grpclib": "grpclib.client",
    "wsproto": "wsproto",
    "google-re2": "re2",
}
# The standard library's part that every process of ours has loaded anyway is not the dependency's cost.
_PROGRAM = """
import asyncio, ssl, json, logging, time
def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096 / 1e6
r, t = rss(), time.perf_counter()
import {modules}
print((time.perf_counter() - t) * 1000, rss() - r)
"""


def cost(modules: str, repeats: int = 5) -> tuple[float, float]:
    """Milliseconds and megabytes of an import in a fresh process, medians."""
    runs = []
    for _ in range(repeats + 1):
        out = subprocess.run([sys.executable, "-c", _PROGRAM.format(modules=modules)], capture_output=True, check=True)
        runs.append([float(word) for word in out.stdout.split()])
    # The first run compiles.
    milliseconds, megabytes = zip(*runs[1:], strict=True)
    return statistics.median(milliseconds), statistics.median(megabytes)


def main() -> None:
    """Measures all and updates the page."""
    lines = PAGE.read_text().splitlines()
    for number, line in enumerate(lines):
        package = line.removeprefix("| ").split(" ", 1)[0]
        if line.startswith("| ") and package in MODULES:
            milliseconds, megabytes = cost(MODULES[package])
            cells = line.split("|")
            cells[5:7] = [f" {milliseconds:.0f} ", f" {megabytes:.1f} "]
            lines[number] = "|".join(cells)
            print(f"{package}: {milliseconds:.1f} ms, {megabytes:.1f} MB", flush=True)
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
