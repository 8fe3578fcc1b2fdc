"""Power failures: writers on the real datastore, their disk recorded, and the datastore opened in what can be left."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.disk import Disk, Faulty, Step, lots

from k3s.store.sql.sqlite import SqliteStore

# Writers that create, update and delete keys of their own, with compaction all the time. An answer is a line of a file
# on the recorded disk, so that the record tells what had been answered when the power failed.
WRITERS = """
import asyncio, os, sys
from pathlib import Path
from k3s.store.sql.sqlite import SqliteStore

async def main(path, answers, level):
    store = SqliteStore(Path(path))
    await store.open()
    if level:
        store._connection.execute(f"PRAGMA synchronous = {level}")
    told = os.open(path + ".answers", os.O_WRONLY | os.O_CREAT, 0o600)
    at, count = {}, 0

    async def writer(number):
        nonlocal count
        key = f"/{number}"
        while count < answers:
            for step in range(5):
                if step == 4:
                    answer, value = await store.delete(key, at.pop(key)), "-"
                else:
                    value = os.urandom(8).hex()
                    answer = at[key] = await store.put(key, value.encode() * (1 + number * 40), at.get(key, 0))
                count += 1
                os.write(told, f"{answer} {key} {value}\\n".encode())

    async def compactor():
        while True:
            await store.compact(store.revision() - 40)
            await asyncio.sleep(0.02)

    compacting = asyncio.ensure_future(compactor())
    await asyncio.gather(*(writer(n) for n in range(8)))
    compacting.cancel()
    os._exit(0)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""


@dataclass
class Report:
    """How many failures were tried, and what was wrong after them."""

    states: int = 0
    answers: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.states} power failures during {self.answers} answers, {len(self.problems)} problems"


def fail(work: Path, *, answers: int, states: int, seed: int, level: str = "") -> Report:
    """Lets writers work until that many answers, then looks at that many states in which the disk can come back.

    `level` plants another level of synchronous, for the proof that loss would be found.
    """
    chance = random.Random(seed)
    root = work / "disk"
    root.mkdir()
    disk = Faulty(work, root)
    path = root / "db" / "state.db"
    command = [sys.executable, "-c", WRITERS, str(path), str(answers), level]
    subprocess.run(command, env=disk.environment(trace=True), check=True, timeout=600)
    steps = list(disk.steps())
    # The first steps make the file: half of what can go wrong is there.
    first = range(min(60, len(steps)))
    chosen = sorted({*first, *chance.sample(range(len(steps)), min(states, len(steps)))})
    return asyncio.run(_look(work, steps, chosen, str(path), chance))


async def _look(work: Path, steps: list[Step], chosen: list[int], path: str, chance: random.Random) -> Report:
    report = Report()
    now, done = Disk(), 0
    for moment in chosen:
        for step in steps[done : moment + 1]:
            now.take(step)
        done = moment + 1
        told = now.files.get(f"{path}.answers")
        text = b"".join(step.data for step in told.pending) if told is not None else b""
        answered = [line.decode().split(" ") for line in text.split(b"\n")[:-1]]
        place = work / "after"
        for name, content in now.crashed(lots(chance)).items():
            if not name.endswith((".answers", "-shm")):
                target = place / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        report.states += 1
        report.answers = len(answered)
        problem = await _inspect(place / path.lstrip("/"), [(int(r), k, v) for r, k, v in answered])
        if problem:
            report.problems.append(f"power failed after step {moment}, {len(answered)} answers: {problem}")
        shutil.rmtree(place, ignore_errors=True)
    return report


async def _inspect(path: Path, answered: list[tuple[int, str, str]]) -> str:
    """What is wrong with a datastore after these answers; empty when nothing is."""
    store = SqliteStore(path)
    try:
        await store.open()
    except Exception as error:  # noqa: BLE001 - whatever it is: a datastore has to open after a power failure
        return f"it cannot be opened: {error!r}"
    try:
        newest = max((revision for revision, _, _ in answered), default=0)
        if store.revision() < newest:
            return f"revision {newest} was answered, {store.revision()} is the newest left"
        (sound,) = store._connection.execute("PRAGMA integrity_check").fetchone()
        if sound != "ok":
            return f"it is damaged: {sound}"
        oldest = store.oldest()
        events = {event.revision: event for event in await store.events("/", oldest)}
        if sorted(events) != list(range(oldest + 1, store.revision() + 1)):
            return f"revisions have gaps between {oldest} and {store.revision()}"
        for revision, key, value in answered:
            event = events.get(revision)
            there = event is not None and event.key == key
            if revision > oldest and not (there and _is(event.value, value)):  # type: ignore[union-attr]
                return f"{key} {value} was answered as revision {revision}, there is {event}"
        current = {entry.key: entry for entry in (await store.list("/"))[1]}
        for revision, key, value in {key: (r, key, v) for r, key, v in answered}.values():
            entry = current.get(key)
            later = [e for e in events.values() if e.key == key and e.revision > revision]
            if not later and ((entry is not None) != (value != "-") or (entry and not _is(entry.value, value))):
                return f"{key} was answered as {value} at {revision}, there is {entry}"
        if await store.put("/again", b"x", 0) != max(events, default=oldest) + 1:
            return "the next revision does not follow the last one"
        return ""
    finally:
        await store.close()


def _is(found: bytes | None, value: str) -> bool:
    return found is None if value == "-" else found is not None and found.startswith(value.encode())
