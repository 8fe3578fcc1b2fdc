"""Clients over HTTPS while their server is killed, frozen, and its disk fails; then the audit of all they saw."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.disk import FULL, NO_SYNC, READ_ONLY, WELL, Faulty
from tests.torture.server import Server

from k3s.api.errors import AlreadyExists, ApiError, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import decode
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.sim import history as h
from k3s.sim.audit import audit
from k3s.sim.history import History, Seen
from k3s.sim.traffic import MAP, Traffic, foreign
from k3s.store.sql.sqlite import SqliteStore

NAMESPACE = "torture"
# From so many kills on, a run is a long one.
_LONG = 50
_DISK = {"full": FULL, "read-only": READ_ONLY, "sync fails": NO_SYNC}
_BLOWS = (*["killed"] * 6, "frozen", *_DISK)


@dataclass
class Report:
    """What happened, and what was wrong."""

    blows: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    operations: int = 0
    events: int = 0
    resumed: int = 0
    listed_again: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.blows}, {self.operations} operations {self.outcomes}, {self.events} watch events, "
            f"{self.resumed} watches resumed, {self.listed_again} begun again, {self.seconds:.0f} s, "
            f"{len(self.problems)} problems"
        )


async def storm(
    folder: Path, *, kills: int, seed: int, clients: int = 12, disk_faults: bool = True, pause_s: float = 0.06
) -> Report:
    """Kills the server so many times, with other blows between, then audits."""
    began = time.monotonic()
    entropy = SeededEntropy(f"storm {seed}")
    disk = Faulty(folder, folder / "data" / "server" / "db")
    interval = "--kube-apiserver-arg=etcd-compaction-interval=1s"
    server = Server(folder, folder / "data", interval, env=disk.environment(trace=False))
    history = History()
    traffic = Traffic(history, SeededEntropy(f"traffic {seed}"), NAMESPACE, pause_s)
    report = Report()
    try:
        await server.start()
        last = server.client()
        await _namespace(last)
        for number in range(clients):
            traffic.start(server.client(), f"client {number}")
        for number in range(2):
            traffic.follow(server.client(), f"follower {number}")
            traffic.follow(server.client(), f"initial {number}", initial=True)
            traffic.follow(server.client(), f"selector {number}", colour=("red", "blue")[number])
        traffic.follow(server.client(), "one key", key="k1")
        # In short forms it is as quick as the others: once of some thirty runs a watch of such a form did not end, and
        # nobody knows yet whether it was this one.
        traffic.follow(server.client(), "lazy", lazy_s=20.0 if kills >= _LONG else 0.0)
        while report.blows.get("killed", 0) < kills:
            await asyncio.sleep(0.05 + 0.7 * entropy.fraction())
            blow = _BLOWS[entropy.below(len(_BLOWS) if disk_faults else 7)]
            report.blows[blow] = report.blows.get(blow, 0) + 1
            await _strike(server, disk, blow, entropy)
            if blow == "killed" and report.blows["killed"] % 10 == 0:
                seconds = time.monotonic() - began
                print(f"    {report.blows} after {len(history.operations)} operations, {seconds:.0f} s", flush=True)
        async with asyncio.timeout(120):
            await traffic.finish(last)
    finally:
        await traffic.close()
        server.stop()
        server.remove()
    print(f"    the audit begins, {time.monotonic() - began:.0f} s", flush=True)
    await _read_log(server.database, history)
    _count(history, report)
    report.problems = audit(history)
    report.seconds = time.monotonic() - began
    return report


async def _strike(server: Server, disk: Faulty, blow: str, entropy: SeededEntropy) -> None:
    if blow == "killed":
        server.kill()
        await server.start()
    elif blow == "frozen":
        server.freeze()
        await asyncio.sleep(entropy.fraction())
        server.thaw()
    else:
        disk.goes(_DISK[blow])
        await asyncio.sleep(0.2 + 0.6 * entropy.fraction())
        if entropy.below(3) == 0:
            server.kill()
            disk.goes(WELL)
            await server.start()
        disk.goes(WELL)


async def _namespace(client: Client) -> None:
    kind = builtin("v1", "Namespace")
    while True:
        try:
            await client.create(kind, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            return
        except AlreadyExists:
            return
        except (ApiError, OutcomeUnknown):
            await asyncio.sleep(0.1)


async def _read_log(path: Path, history: History) -> None:
    """What the datastore itself holds, read when nobody else has it."""
    store = SqliteStore(path)
    await store.open()
    history.log_from = store.oldest()
    prefix = MAP.prefix(NAMESPACE)
    for event in await store.events(prefix, store.oldest()):
        key = event.key.removeprefix(prefix)
        if not foreign(key):
            value = None if event.value is None else decode(event.value)["data"]["value"]
            history.log.append(Seen(event.revision, key, value))
    await store.close()


def _count(history: History, report: Report) -> None:
    report.operations = len(history.operations)
    for operation in history.operations:
        if operation.what in (h.WRITE, h.REMOVE):
            report.outcomes[operation.outcome] = report.outcomes.get(operation.outcome, 0) + 1
    for watch in history.watches:
        report.events += sum(len(stretch.events) for stretch in watch.stretches)
        report.resumed += sum(stretch.items is None for stretch in watch.stretches)
        report.listed_again += sum(stretch.items is not None for stretch in watch.stretches[1:])
