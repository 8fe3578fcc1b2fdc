"""Odd inputs: a short search by chance in each run, and every input that ever broke a rule, for good."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.run import FOUND, ROOT, fuzz
from tests.fuzz.targets import TARGETS, Target

SECONDS = 2.0
_KEPT = sorted(FOUND.iterdir())


@functools.cache
def target(name: str) -> Target:
    return TARGETS[name]()


@pytest.mark.parametrize("path", _KEPT, ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    """Inputs that once crashed, hung or took too much."""
    target(path.name.rpartition("-")[0]).run(path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_crashes_hangs_or_takes_too_much(name: str, tmp_path: Path) -> None:
    """A search of two seconds; `make fuzz` searches longer and keeps what it finds."""
    count, wrong, data = fuzz(name, SECONDS, 1, tmp_path)
    assert not wrong, f"{wrong}\n{data[:2000]!r}"
    assert count > 100


@pytest.mark.slow
def test_the_search_sees_a_crash_a_hang_and_a_glutton(tmp_path: Path) -> None:
    """Each rule is broken on purpose, and noticed."""
    program = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/src"]
from tests.fuzz import run, targets
bad = {{"crash": lambda data: 1 // 0, "hang": lambda data: sum(1 for _ in iter(int, 1)),
       "glutton": lambda data: bytes(256 << 20)}}[sys.argv[1]]
first = []
def once(data):
    first.append(data)
    return None if len(first) == 1 else bad(data)
targets.TARGETS["bad"] = lambda: targets.Target((b"x",), once)
sys.exit(run.child("bad", 5.0, 1, __import__("pathlib").Path(sys.argv[2])))
"""
    shared = tmp_path / "input"
    for way, told in (("crash", "ZeroDivisionError"), ("hang", "Slow"), ("glutton", "MemoryError")):
        shared.write_bytes(bytes(8 + (1 << 20)))
        command = [sys.executable, "-c", program.format(root=str(ROOT)), way, str(shared)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, told in done.stdout) == (1, True), done.stdout + done.stderr
