"""Growth: many objects, a steady stream of writes, history compacted as it goes; nothing may keep growing.

The writes are what a busy cluster's are: heartbeats of leases, events that expire, objects changed, made and deleted.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import random
import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.torture.server import Server

from k3s.api.errors import ApiError, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.client.transport import Request
from k3s.store.sql.database import WAL_BYTES

NAMESPACE = "growth"
_MAP, _EVENT, _LEASE = builtin("v1", "ConfigMap"), builtin("v1", "Event"), builtin("coordination.k8s.io/v1", "Lease")
_MERGE = "application/merge-patch+json"
_LEASES = 500
# Ten writes in a row.
_ROUND = ("beat", "event", "beat", "change", "beat", "event", "beat", "change", "make", "drop")
_QUIET = 0.1
_PAD = "x" * 1000
_COMPACTED = re.compile(
    r"^(\S+) INFO .*Datastore compacted revision=\d+ seconds=(\S+) steps=(\d+) longest_step_ms=(\d+)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything, in seconds and counts; what is allowed to the figures that the machine's noise is in."""

    objects: int = 100_000
    per_second: int = 1000
    seconds: float = 600.0
    sample_s: float = 10.0
    compaction_s: float = 60.0
    event_ttl_s: float = 60.0
    step_ms: float = 50.0
    p99_ms: float = 20.0


class Sample(NamedTuple):
    """One stretch of time: sizes in MB at its end, times of its writes in ms.

    `waited` is for how much of it the server stood in the queue for a processor that others had: the machine's noise.
    """

    at: float
    writes: int
    wal: float
    file: float
    rss: float
    p50: float
    p99: float
    longest: float
    waited: float

    def __str__(self) -> str:
        return (
            f"{self.at:5.0f} s: {self.writes} writes, "
            f"p50 {self.p50:.1f}, p99 {self.p99:.1f}, longest {self.longest:.0f} ms, "
            f"log {self.wal:.1f}, file {self.file:.0f}, resident {self.rss:.0f} MB; waited {self.waited:.0%}"
        )


class Compaction(NamedTuple):
    """One round of the server's, between two moments of time.time(), and its longest step."""

    began: float
    ended: float
    steps: int
    longest_ms: float


@dataclass
class Report:
    """What was measured, and what was wrong."""

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    compactions: list[Compaction] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    longest_during: float = 0.0
    longest_else: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        early, late = _halves(self.samples)
        writes = sum(sample.writes for sample in self.samples)
        parts = [
            f"{writes / self.samples[-1].at:.0f} writes/s of {self.plan.per_second}",
            f"log at most {max(s.wal for s in self.samples):.1f} MB",
            *(f"{name} {_middle(early, name):.1f} then {_middle(late, name):.1f} ms" for name in ("p50", "p99")),
            f"{len(_quiet(self.samples))} of {len(self.samples)} samples on a quiet machine",
            *(f"{name} {_most(early, name):.0f} then {_most(late, name):.0f} MB" for name in ("file", "rss")),
            f"{len(self.compactions)} compactions of {sum(c.steps for c in self.compactions)} steps",
            f"the longest step {max((c.longest_ms for c in self.compactions), default=0):.0f} ms",
            f"the longest write {self.longest_during:.0f} ms during them, {self.longest_else:.0f} ms else",
        ]
        return ", ".join(parts)


def judge(plan: Plan, samples: list[Sample], compactions: list[Compaction]) -> list[str]:
    """What grows or stands in the way, in words. Pure; the first third of the time is for getting there."""
    early, late = _halves(samples)
    problems = []
    rate = sum(sample.writes for sample in samples) / samples[-1].at
    if rate < 0.95 * plan.per_second:
        problems.append(f"only {rate:.0f} writes/s were made")
    if len(compactions) < 3:
        problems.append(f"{len(compactions)} compactions tell nothing")
    for done in compactions:
        if done.longest_ms > plan.step_ms:
            problems.append(f"a step of compaction took {done.longest_ms:.0f} ms")
    wal = max(sample.wal for sample in samples)
    if wal > 2.5 * WAL_BYTES / 1e6:
        problems.append(f"the write-ahead log grew to {wal:.1f} MB")
    for name, word, part, more in (("file", "file", 1.15, 10), ("rss", "resident memory", 1.1, 10)):
        before, after = _most(early, name), _most(late, name)
        if after > part * before + more:
            problems.append(f"the {word} grew from {before:.0f} to {after:.0f} MB")
    before, after = _middle(_quiet(early), "p99"), _middle(_quiet(late), "p99")
    if before and after > 1.5 * before + plan.p99_ms:
        problems.append(f"p99 of writes grew from {before:.1f} to {after:.1f} ms")
    return problems


def _halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    third = max(1, len(samples) // 3)
    return samples[third : 2 * third], samples[2 * third :]


def _quiet(samples: list[Sample]) -> list[Sample]:
    """Those in which the server had its processor: times of the others tell of the machine."""
    return [sample for sample in samples if sample.waited < _QUIET]


def _middle(samples: list[Sample], name: str) -> float:
    values = sorted(getattr(sample, name) for sample in samples)
    return float(values[len(values) // 2]) if values else 0.0


def _most(samples: list[Sample], name: str) -> float:
    return float(max((getattr(sample, name) for sample in samples), default=0.0))


async def grow(folder: Path, plan: Plan, seed: int) -> Report:
    """Fills a server, writes for as long as the plan says, and judges."""
    report = Report(plan)
    server = Server(
        folder,
        folder / "data",
        f"--kube-apiserver-arg=etcd-compaction-interval={plan.compaction_s:g}s",
        f"--kube-apiserver-arg=event-ttl={plan.event_ttl_s:g}s",
    )
    try:
        await server.start()
        load = Load(server, plan, random.Random(seed), report)
        await load.fill()
        await load.run()
        server.stop()
    finally:
        server.remove()
    windows = [Compaction(*found) for found in _told(server.log)]
    report.compactions = [done for done in windows if done.ended > load.began]
    for began, ended in load.slow:
        within = any(done.began <= ended and began <= done.ended for done in windows)
        taken = (ended - began) * 1e3
        if within:
            report.longest_during = max(report.longest_during, taken)
        else:
            report.longest_else = max(report.longest_else, taken)
    report.problems = judge(plan, report.samples, report.compactions) + report.errors[:5]
    return report


def _told(log: Path) -> list[tuple[float, float, int, float]]:
    found = [match for line in log.read_text().splitlines() if (match := _COMPACTED.match(line))]
    made = []
    for match in found:
        ended = datetime.datetime.fromisoformat(match[1]).timestamp()
        made.append((ended - float(match[2]), ended, int(match[3]), float(match[4])))
    return made


class Load:
    """The writers, and what they met."""

    def __init__(self, server: Server, plan: Plan, chance: random.Random, report: Report) -> None:
        self._server = server
        self._plan = plan
        self._chance = chance
        self._report = report
        self._transport = server.transport(connections=64)
        self._taken: list[float] = []
        self._made = iter(itertools.count(plan.objects))
        self._dropped = iter(itertools.count(plan.objects))
        self._events = iter(itertools.count())
        self.began = 0.0
        self._in_queue = (0.0, 0.0)
        #: Begin and end of the slowest writes, by time.time().
        self.slow: list[tuple[float, float]] = []

    async def fill(self) -> None:
        """Makes what is there from the beginning."""
        await self._send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        bodies = itertools.chain(
            ((_LEASE.path(NAMESPACE), _lease(n)) for n in range(_LEASES)),
            ((_MAP.path(NAMESPACE), _config(n)) for n in range(self._plan.objects)),
        )
        made = itertools.count(1)

        async def maker() -> None:
            for path, body in bodies:
                await self._send("POST", path, body)
                if (count := next(made)) % 10_000 == 0:
                    print(f"    {count} objects made", flush=True)

        await asyncio.gather(*(maker() for _ in range(32)))

    async def run(self) -> None:
        """Writes as many a second as are wanted, whatever the answers take."""
        self.began = time.time()
        self._waited(1.0)
        self._in_queue = (0.0, self._in_queue[1])
        began, number, under_way = time.monotonic(), 0, asyncio.Semaphore(2000)
        next_sample = self._plan.sample_s

        async def one(work: Awaitable[None]) -> None:
            async with under_way:
                await self._timed(work)

        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - began) < self._plan.seconds:
                while number < now * self._plan.per_second:
                    group.create_task(one(self._write(_ROUND[number % len(_ROUND)])))
                    number += 1
                if now >= next_sample:
                    self._sample(now)
                    next_sample += self._plan.sample_s
                await asyncio.sleep(0.004)
        self._sample(time.monotonic() - began)

    async def _timed(self, work: Awaitable[None]) -> None:
        began = time.time()
        try:
            await work
        except (ApiError, OutcomeUnknown) as error:
            self._report.errors.append(f"a write was refused: {error}")
            return
        taken = time.time() - began
        self._taken.append(taken)
        if taken > 0.02:
            self.slow.append((began, began + taken))

    async def _write(self, what: str) -> None:
        if what == "beat":
            patch = {"spec": {"renewTime": _now()}}
            name = f"l{self._chance.randrange(_LEASES)}"
            await self._send("PATCH", _LEASE.path(NAMESPACE, name), patch)
        elif what == "event":
            await self._send("POST", _EVENT.path(NAMESPACE), _event(next(self._events)))
        elif what == "change":
            patch = {"data": {"count": str(self._chance.random())}}
            name = f"m{self._chance.randrange(self._plan.objects)}"
            await self._send("PATCH", _MAP.path(NAMESPACE, name), patch)
        elif what == "make":
            await self._send("POST", _MAP.path(NAMESPACE), _config(next(self._made)))
        else:
            # One that was made at least a round before: its create may still be under way otherwise.
            await self._drop(next(self._dropped))

    async def _drop(self, number: int) -> None:
        if number >= self._plan.objects + 100:
            await self._send("DELETE", _MAP.path(NAMESPACE, f"m{number - 100}"))

    async def _send(self, method: str, path: str, body: Object | None = None) -> None:
        content_type = _MERGE if method == "PATCH" else "application/json"
        await self._transport.send(Request(method, path, body=body, content_type=content_type))

    def _sample(self, at: float) -> None:
        taken, self._taken = sorted(self._taken) or [0.0], []
        database = self._server.database
        sample = Sample(
            at,
            len(taken),
            database.with_name(database.name + "-wal").stat().st_size / 1e6,
            database.stat().st_size / 1e6,
            _resident(self._server.pid),
            taken[len(taken) // 2] * 1e3,
            taken[len(taken) * 99 // 100] * 1e3,
            taken[-1] * 1e3,
            self._waited(at),
        )
        self._report.samples.append(sample)
        print(f"    {sample}", flush=True)

    def _waited(self, at: float) -> float:
        in_queue = int(Path(f"/proc/{self._server.pid}/schedstat").read_text().split()[1]) / 1e9
        since, before = self._in_queue
        self._in_queue = at, in_queue
        return (in_queue - before) / (at - since)


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _config(number: int) -> Object:
    return {"metadata": {"name": f"m{number}"}, "data": {"blob": _PAD, "count": "0"}}


def _lease(number: int) -> Object:
    spec = {"holderIdentity": f"node-{number}", "leaseDurationSeconds": 40, "renewTime": _now()}
    return {"metadata": {"name": f"l{number}"}, "spec": spec}


def _event(number: int) -> Object:
    about = {"kind": "ConfigMap", "apiVersion": "v1", "namespace": NAMESPACE, "name": f"m{number}"}
    now = _now()[:19] + "Z"
    return {
        "metadata": {"name": f"m{number}.{number:x}"},
        "involvedObject": about,
        "reason": "Growing",
        "message": json.dumps({"number": number, "text": "x" * 200}),
        "type": "Normal",
        "source": {"component": "torture"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
