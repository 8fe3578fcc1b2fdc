"""Runs a target on odd inputs in a process of its own: no input may crash it, take a second, or 64 MB.

    python tests/fuzz/run.py --seconds 60 [--only REGEX] [--seed N]

prints a line a target; an input that breaks a rule is kept in tests/fuzz/found/<target>-<digest>, which the tests try
again for ever.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
FOUND = FOLDER / "found"
LIMIT_S = 1.0
LIMIT_BYTES = 64 << 20
#: A process that says nothing for so long hangs where no signal reaches it.
_DEAD_S = 20.0


class Slow(BaseException):
    """An input took more than a second. No `except Exception` hides it."""


def _late(signum: int, frame: object) -> None:
    raise Slow(f"more than {LIMIT_S} s of the processor")


def attempt(run: object, data: bytes) -> str:
    """Runs one input; what went wrong, empty when nothing did.

    The second is one of the processor's, so that a busy machine blames no input; what waits for ever is found by its
    silence.
    """
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        run(data)  # type: ignore[operator]
    except (Slow, Exception):  # noqa: BLE001 - whatever comes out is a finding
        return traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _address_space() -> int:
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[0]) * resource.getpagesize()


def child(name: str, seconds: float, seed: int, shared: Path) -> int:
    """Tries inputs for some time; the one under way is in `shared`, so that it outlives a crash."""
    from tests.fuzz.mutate import mutated
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]()
    signal.signal(signal.SIGPROF, _late)
    chance = random.Random(f"{name} {seed}")
    with shared.open("r+b") as file:
        window = mmap.mmap(file.fileno(), 0)
    for data in target.corpus:
        attempt(target.run, data)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + LIMIT_BYTES, resource.RLIM_INFINITY))
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(chance, target.corpus)
        window[:8] = len(data).to_bytes(8, "big")
        window[8 : 8 + len(data)] = data
        wrong = attempt(target.run, data)
        if wrong:
            print(wrong, flush=True)
            return 1
        count += 1
    print(count)
    return 0


def fuzz(name: str, seconds: float, seed: int, scratch: Path) -> tuple[int, str, bytes]:
    """Inputs tried, what went wrong (empty: nothing), and the input that did it."""
    shared = scratch / f"{name}.input"
    shared.write_bytes(bytes(8 + (1 << 20)))
    command = [sys.executable, "-X", "faulthandler", __file__, "--child", name, str(seconds), str(seed), str(shared)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + _DEAD_S)
        out, code = done.stdout + done.stderr[-3000:], done.returncode
    except subprocess.TimeoutExpired:
        out, code = f"hangs in C code for {_DEAD_S} s", -1
    held = shared.read_bytes()
    data = held[8 : 8 + int.from_bytes(held[:8], "big")]
    if code == 0:
        return int(out.split()[0]), "", b""
    return 0, out or f"ended with {code}", data


def keep(name: str, data: bytes) -> Path:
    """Keeps an input for the tests."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        name, seconds, seed, shared = sys.argv[2:]
        return child(name, float(seconds), int(seed), Path(shared))
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--only", default="", help="a regular expression of targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    bad = 0
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        for name in TARGETS:
            if not re.search(options.only, name):
                continue
            count, wrong, data = fuzz(name, options.seconds, options.seed, Path(scratch))
            if wrong:
                bad += 1
                print(f"FAIL {name}: kept as {keep(name, data).relative_to(ROOT)}\n{wrong}", flush=True)
            else:
                print(f"pass {name}: {count} inputs", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    sys.exit(main())
