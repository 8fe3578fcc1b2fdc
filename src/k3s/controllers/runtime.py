"""The one runner of all controllers: queue, single flight per key, and the read-your-writes barrier (law 4).

A controller is a pure `decide(key, world, now) -> Decision`. The runner decides a key when an object that concerns it
changed, carries out the actions in order, and decides the key again only after the caches that the controller reads
have seen what was written. That replaces the expectations of the upstream controllers, and no decider knows of it.

    change → keys → queue → decide → actions → wait until seen → free
                      ↑                 │
                      └── back-off ─────┘ Conflict, NotFound, AlreadyExists, other errors
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from k3s.api.errors import AlreadyExists, ApiError, Conflict, NotFound, OutcomeUnknown
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.base.aio import Mailbox, Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.metrics import Registry
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.client.recorder import Recorder, reference
from k3s.controllers.actions import Decision, Emit
from k3s.controllers.execute import Executor, Written, describe
from k3s.controllers.informers import Informers
from k3s.controllers.spec import ControllerSpec, Keys, own_key

log = logging.getLogger(__name__)

# Per key: 5 ms, doubled with each failure in a row, as upstream's work queue; a minute at the most, because a cause
# that goes away should not be waited for longer than people wait.
_BACKOFF_S = 0.005
_BACKOFF_MOST_S = 60.0


class QueueMetrics:
    """The work queue's metrics, under upstream's names."""

    def __init__(self, registry: Registry) -> None:
        self.adds = registry.counter("workqueue_adds_total", "Keys put into the queue", ["name"])
        self.retries = registry.counter("workqueue_retries_total", "Keys decided again after a failure", ["name"])
        self.depth = registry.gauge("workqueue_depth", "Keys that wait", ["name"])


class Runner:
    """Runs one controller."""

    def __init__(
        self,
        spec: ControllerSpec,
        informers: Informers,
        client: Client,
        clock: Clock,
        entropy: Entropy,
        story: Story,
        metrics: QueueMetrics | None = None,
    ) -> None:
        self.spec = spec
        self._informers = informers
        self._client = client
        self._clock = clock
        self._entropy = entropy
        self._story = story
        self._metrics = metrics
        self._recorder = Recorder(client, spec.name, clock, entropy)
        self._executor = Executor(client, self._tell)
        self._queue: Mailbox[str] = Mailbox()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, tuple[int, str]] = {}
        self._memory: dict[str, Any] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._slots = asyncio.Semaphore(spec.workers)
        self._tasks = Tasks(spec.name)
        self._reads: dict[Kind, None] = {}
        if spec.kind is not None:
            self.watch(spec.kind, own_key)
        for watch in spec.watches:
            self.watch(watch.kind, watch.keys)
        for kind in spec.reads:
            informers.of(kind)
            self._reads[kind] = None

    def _tell(self, emit: Emit) -> None:
        self._recorder.tell(reference(emit.about), emit.type, emit.reason, emit.message)

    def watch(self, kind: Kind, keys: Keys) -> None:
        """Decide from now on also what changes of `kind` concern."""
        world = self._informers.world()

        def changed(key: str, old: Object | None, new: Object | None) -> None:
            for concerned in keys(old, new, world):
                self.put(concerned)

        self._reads[kind] = None
        informer = self._informers.of(kind)
        informer.subscribe(changed)
        for obj in list(informer.values()):
            changed("", None, obj)

    def unwatch(self, kind: Kind) -> None:
        """A kind that is no longer served is neither read nor waited for."""
        self._reads.pop(kind, None)

    def put(self, key: str) -> None:
        """Asks for a decision on a key."""
        self._queue.put(key)
        if self._metrics is not None:
            self._metrics.adds.add(self.spec.name)
            self._metrics.depth.set(len(self._queue), self.spec.name)

    async def run(self, ready: Callable[[], None]) -> None:
        """Decides until cancelled; starts when all caches that it reads are complete."""
        try:
            self._tasks.spawn(self._recorder.run(), "events")
            for kind in list(self._reads):
                await self._informers.synced(kind)
            ready()
            for key in self.spec.start_keys:
                self.put(key)
            while True:
                key = await self._queue.take()
                if self._metrics is not None:
                    self._metrics.depth.set(len(self._queue), self.spec.name)
                await self._next(key)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await self._tasks.close()

    async def _next(self, key: str) -> None:
        if key in self._busy:
            self._again.add(key)
            return
        self._cancel_timer(key)
        decision = self._decide(key, None) if self.spec.observe is None else None
        if decision is not None and not decision.actions:
            self._finish(key, decision)
            # A burst of changes must not keep the rest of the process waiting.
            await asyncio.sleep(0)
            return
        if decision is None and self.spec.observe is None:
            return
        self._busy.add(key)
        await self._slots.acquire()
        self._tasks.spawn(self._process(key, decision), key)

    def _decide(self, key: str, observed: Any) -> Decision | None:
        """One decision; None when the decider failed, which is a bug: it is logged and tried again later."""
        failure = self._failures.get(key, (0, ""))[1]
        world = self._informers.world(failure=failure, memory=self._memory.get(key), observed=observed)
        try:
            return self.spec.decide(key, world, self._clock.now())
        except Exception as error:
            log.exception("Cannot decide %s: %s", self.spec.name, error, extra={"key": key})
            self._retry(key, f"{type(error).__name__}: {error}", 0)
            return None

    async def _process(self, key: str, decision: Decision | None) -> None:
        written = Written()
        outcome: Exception | None = None
        try:
            try:
                if decision is None and self.spec.observe is not None:
                    observed = await self.spec.observe(key, self._informers.world(), self._client)
                    decision = self._decide(key, observed)
                if decision is not None:
                    await self._carry_out(key, decision, written)
            except Exception as error:
                outcome = error
            finally:
                self._slots.release()
            await self._seen(written)
            if outcome is not None:
                self._react(key, outcome)
            elif decision is not None:
                self._finish(key, decision)
        finally:
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._queue.put(key)

    async def _carry_out(self, key: str, decision: Decision, written: Written) -> None:
        if decision.actions:
            what = ", ".join(map(describe, decision.actions))
            self._story.tell(self._clock.now(), self.spec.name, key, what)
        for action in decision.actions:
            await self._executor.do(action, written)

    def _finish(self, key: str, decision: Decision) -> None:
        self._failures.pop(key, None)
        if decision.memory is not None:
            self._memory[key] = decision.memory
        else:
            self._memory.pop(key, None)
        if decision.requeue_after_s is not None:
            self._later(key, max(decision.requeue_after_s, 0.0))

    def _react(self, key: str, error: Exception) -> None:
        """Decides again: at once when only the outcome is unknown, else after a while."""
        self._story.tell(self._clock.now(), self.spec.name, key, f"failed: {error}")
        if isinstance(error, OutcomeUnknown):
            self._queue.put(key)
            return
        if not isinstance(error, ApiError):
            # A bug: it is told, and the key is tried again all the same.
            log.error("Cannot carry out %s: %r", self.spec.name, error, extra={"key": key}, exc_info=error)
            self._retry(key, f"{type(error).__name__}: {error}", 0)
            return
        stale = isinstance(error, Conflict | NotFound | AlreadyExists)
        if not stale:
            log.info("Action failed", extra={"controller": self.spec.name, "key": key, "error": str(error)})
        self._retry(key, "" if stale else str(error), error.retry_after_s or 0)

    def _retry(self, key: str, why: str, at_least_s: float) -> None:
        count = self._failures.get(key, (0, ""))[0] + 1
        self._failures[key] = (count, why)
        if self._metrics is not None:
            self._metrics.retries.add(self.spec.name)
        wait = min(_BACKOFF_S * 2.0 ** min(count - 1, 30), _BACKOFF_MOST_S)
        self._later(key, max(wait * (0.5 + self._entropy.fraction() / 2), at_least_s))

    def _later(self, key: str, wait_s: float) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(wait_s, self._due, key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.put(key)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def _seen(self, written: Written) -> None:
        """The barrier: waits until the caches that this controller reads hold what it wrote."""
        for kind in [kind for kind in written.unknown if kind in self._reads]:
            written.note(kind, await self._current_revision(kind))
        for kind, revision in written.revisions.items():
            if kind in self._reads and kind in self._informers:
                await self._informers.of(kind).wait_seen(revision)
        for kind, key, uid in written.gone:
            if kind in self._reads and kind in self._informers:
                await self._informers.gone(kind, key, uid)

    async def _current_revision(self, kind: Kind) -> int:
        """The server's newest revision, asked for until it answers."""
        wait = _BACKOFF_S
        while True:
            try:
                return (await self._informers.client.list(kind, limit=1)).revision
            except (ApiError, OutcomeUnknown):
                await asyncio.sleep(wait)
                wait = min(wait * 2, _BACKOFF_MOST_S)
