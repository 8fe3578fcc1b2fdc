"""Nothing that was acknowledged is lost, at whatever moment the process is killed."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k3s.store.interface import Event
from k3s.store.sql.sqlite import SqliteStore

# Ten writers that create, update and delete keys of their own, with compaction all the time; each answer is a line.
WRITERS = """
import asyncio, os, sys
from pathlib import Path
from k3s.store.sql.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    _, entries = await store.list("/")
    at = {entry.key: entry.revision for entry in entries}

    async def writer(number):
        key = f"/{number}"
        while True:
            for step in range(5):
                if step == 4:
                    answer = await store.delete(key, at.pop(key))
                    value = "-"
                else:
                    value = os.urandom(8).hex()
                    answer = at[key] = await store.put(key, value.encode() * (1 + number * 50), at.get(key, 0))
                os.write(1, f"{answer} {key} {value}\\n".encode())

    async def compactor():
        while True:
            await store.compact(store.revision() - 50)
            await asyncio.sleep(0.003)

    await asyncio.gather(compactor(), *(writer(n) for n in range(10)))

asyncio.run(main())
"""


def lived(path: Path, after_lines: int) -> list[tuple[int, str, str]]:
    """Runs the writers, kills them at once after that many answers, and gives all answers that were made."""
    child = subprocess.Popen([sys.executable, "-c", WRITERS, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    descriptor, text = child.stdout.fileno(), b""
    while text.count(b"\n") < after_lines:
        ready, _, _ = select.select([descriptor], [], [], 30)
        assert ready, "the writers hang"
        piece = os.read(descriptor, 65536)
        assert piece, "the writers ended by themselves"
        text += piece
    child.send_signal(signal.SIGKILL)
    text += child.stdout.read()
    child.wait()
    child.stdout.close()
    lines = [line.decode().split(" ") for line in text.split(b"\n")[:-1]]
    return [(int(revision), key, value) for revision, key, value in lines]


async def inspect(path: Path, acknowledged: dict[int, tuple[str, str]], last: dict[str, tuple[int, str]]) -> int:
    """Compares what is there with what was answered; the newest revision."""
    store = SqliteStore(path)
    await store.open()
    events = await store.events("/", store.oldest())
    assert [event.revision for event in events] == list(range(store.oldest() + 1, store.revision() + 1)), "a gap"
    by_revision: dict[int, Event] = {event.revision: event for event in events}
    assert store.revision() >= max(acknowledged, default=0)
    for revision, (key, value) in acknowledged.items():
        if revision > store.oldest():
            event = by_revision[revision]
            assert event.key == key
            assert value == "-" if event.value is None else event.value.startswith(value.encode())
    _, entries = await store.list("/")
    current = {entry.key: entry for entry in entries}
    for key, (revision, value) in last.items():
        newer = [event for event in events if event.key == key and event.revision > revision]
        if not newer:  # at most one write of each key was on its way and not answered
            assert (key not in current) if value == "-" else (current[key].revision == revision)
    await store.close()
    return store.revision()


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_answered(tmp_path):
    """Twelve lives of one file, each ended after another number of answers."""
    path = tmp_path / "db" / "state.db"
    chance = random.Random(2)
    acknowledged: dict[int, tuple[str, str]] = {}
    last: dict[str, tuple[int, str]] = {}
    newest = 0
    for _ in range(12):
        answers = lived(path, chance.randrange(1, 1500))
        assert min(revision for revision, _, _ in answers) > newest, "a revision was given twice"
        for revision, key, value in answers:
            assert revision not in acknowledged
            acknowledged[revision] = (key, value)
            if revision > last.get(key, (0, ""))[0]:
                last[key] = (revision, value)
        newest = asyncio.run(inspect(path, acknowledged, last))
