"""One seed: a cluster, some users, a storm, then the calm in which all that was wanted has to come true."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from k3s.api.object import decode
from k3s.base.aio import Tasks
from k3s.base.entropy import SeededEntropy
from k3s.base.story import Line
from k3s.client.client import Client
from k3s.sim import loop, scenarios, stable
from k3s.sim.audit import audit
from k3s.sim.chaos import Chaos
from k3s.sim.cluster import ADMIN, EPOCH, Link, Shape, SimCluster, credentials, simulated
from k3s.sim.faults import CALM, STORM, FaultyTransport
from k3s.sim.history import History, Seen
from k3s.sim.invariants import Failure
from k3s.sim.traffic import MAP, Traffic, foreign
from k3s.sim.user import User
from k3s.store.interface import Event

# The longest that anything needs after the storm: eviction after 300 s, then new pods and back-off of 5 minutes.
_SETTLE_S = 1200.0
# The storm goes on for up to so long after the users have done their work.
_AFTER_S = 400.0
_QUIET_S = 240.0
TRAFFIC = "traffic"
# The most between two requests of one of its clients.
_PAUSE_S = 6.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a seed went; `mark` is the same exactly when everything happened in the same order."""

    seed: int
    failures: tuple[Failure, ...]
    story: tuple[Line, ...]
    virtual_s: float
    writes: int
    mark: int
    chosen: tuple[str, ...]

    def lines(self, about: str = "") -> list[str]:
        """The story of one key (or of all), a line each."""
        return [f"{line.at - EPOCH:9.3f} {line.component:28} {line.key:30} {line.what}" for line in self._told(about)]

    def _told(self, about: str) -> list[Line]:
        word = about.rpartition(" ")[2]
        return [line for line in self.story if not word or line.key == word or line.component == "sim"]


def play(seed: int, shape: Shape | None = None, names: tuple[str, ...] = ()) -> Outcome:
    """Runs a seed to its end. `names` chooses the scenarios, else the seed does."""
    credentials()
    logging.disable(logging.CRITICAL)
    try:
        return loop.run(seed, _play(seed, shape or Shape(), names))
    finally:
        logging.disable(logging.NOTSET)


def play_many(first: int, count: int, names: tuple[str, ...] = (), processes: int = 2) -> Iterator[Outcome]:
    """The outcomes of `count` seeds from `first`, in order, made by some processes at the same time.

    Forked ones, so that what is imported and made (certificates) is shared; nothing runs in this process yet.
    """
    credentials()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(partial(play, names=names), range(first, first + count))


async def _play(seed: int, shape: Shape, names: tuple[str, ...]) -> Outcome:
    entropy = SeededEntropy(f"scenario {seed}")
    chosen = names or _choose(entropy)
    async with simulated(seed, shape) as cluster:
        try:
            await _storm(cluster, chosen, entropy)
            await stable.settle(cluster, _SETTLE_S)
            if not cluster.findings.failures:
                await stable.silence(cluster, _QUIET_S)
        finally:
            cluster.ledger.check()
            cluster.shared.check()
        virtual_s = cluster.clock.monotonic()
    return Outcome(
        seed,
        tuple(cluster.findings.failures),
        tuple(cluster.story.lines()),
        virtual_s,
        cluster.store.writes,
        _mark(cluster),
        chosen,
    )


def _choose(entropy: SeededEntropy) -> tuple[str, ...]:
    left = list(scenarios.ALL)
    return tuple(left.pop(entropy.below(len(left))) for _ in range(3))


async def _storm(cluster: SimCluster, chosen: tuple[str, ...], entropy: SeededEntropy) -> None:
    cluster.sky.weather = STORM
    chaos = Chaos(cluster, SeededEntropy(f"chaos {cluster.seed}"), 10.0 + 40.0 * entropy.fraction())
    strikes = Tasks("chaos")
    if entropy.below(4):
        strikes.spawn(chaos.run(), "strikes")
    traffic = _traffic(cluster)
    users = []
    for number, name in enumerate(chosen):
        client = Client(FaultyTransport(Link(cluster, ADMIN), cluster.sky))
        user = User(client, SeededEntropy(f"user {number} {cluster.seed}"), cluster.tell)
        stage = scenarios.Stage(cluster, user, f"{name.replace('_', '-')}-{number}")
        users.append(cluster.tasks.spawn(_run(stage, scenarios.ALL[name]), name))
    for task in users:
        await task
    await asyncio.sleep(_AFTER_S * entropy.fraction())
    await strikes.close()
    cluster.tell("weather", "calm")
    await chaos.over()
    cluster.sky.weather = CALM
    await traffic.finish(Client(Link(cluster, ADMIN)))
    for problem in audit(traffic.history):
        cluster.findings.add("history", TRAFFIC, problem)


def _traffic(cluster: SimCluster) -> Traffic:
    """Clients and watchers of every sort, whose history is audited at the end."""
    history = History(log_from=0)
    prefix = MAP.prefix(TRAFFIC)

    def written(event: Event) -> None:
        key = event.key.removeprefix(prefix)
        if key != event.key and not foreign(key):
            value = None if event.value is None else decode(event.value)["data"]["value"]
            history.log.append(Seen(event.revision, key, value))

    cluster.store.watchers.append(written)
    traffic = Traffic(history, SeededEntropy(f"traffic {cluster.seed}"), TRAFFIC, _PAUSE_S)

    def client() -> Client:
        return Client(FaultyTransport(Link(cluster, ADMIN), cluster.sky))

    async def begin() -> None:
        user = User(client(), SeededEntropy(f"namespace {cluster.seed}"), cluster.tell)
        await user.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TRAFFIC}})

    cluster.tasks.spawn(begin(), "traffic")
    for number in range(3):
        traffic.start(client(), f"client {number}")
    traffic.follow(client(), "lists first")
    traffic.follow(client(), "initial events", initial=True)
    traffic.follow(client(), "selector", colour="red")
    traffic.follow(client(), "one key", key="k1")
    traffic.follow(client(), "lazy", lazy_s=100.0)
    return traffic


async def _run(stage: scenarios.Stage, scenario: scenarios.Scenario) -> None:
    await stage.open()
    await scenario(stage)


def _mark(cluster: SimCluster) -> int:
    mark = 0
    for line in cluster.story.lines():
        mark = zlib.crc32(f"{line.at} {line.component} {line.key} {line.what}".encode(), mark)
    for key, revisions in cluster.store.history.items():
        mark = zlib.crc32(f"{key} {revisions}".encode(), mark)
    return mark
