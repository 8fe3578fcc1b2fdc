"""From requests to the audit log: the policy says what is told, the backends are told it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from k3s.api.errors import InternalError
from k3s.api.object import Object
from k3s.apiserver.audit.backends import Backend, Place
from k3s.apiserver.audit.delivery import Delivery
from k3s.apiserver.audit.policy import RECEIVED, Policy
from k3s.apiserver.audit.record import Record, Waiting
from k3s.apiserver.identity import User
from k3s.apiserver.request import Target
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.message import Answer, Request
from k3s.base.metrics import Registry

log = logging.getLogger(__name__)
_ID = "audit-id"
_TELL_EVERY_S = 60.0


class Auditor:
    """Makes the records of requests. A request that cannot be recorded is refused where a backend is strict."""

    def __init__(
        self, policy: Policy, places: Sequence[tuple[Place, Delivery]], clock: Clock, entropy: Entropy
    ) -> None:
        self._policy = policy
        self.places = tuple(place for place, _ in places)
        self._backends = [Backend(place, delivery, self.lost) for place, delivery in places]
        self._clock = clock
        self._entropy = entropy
        #: When the losses of a plugin are told again.
        self._tell_at: dict[str, float] = {}
        self._count: Callable[[str, str, int], None] = lambda what, label, by: None

    def _measure(self, metrics: Registry) -> None:
        total = metrics.counter("apiserver_audit_event_total", "Events of the audit log.")
        levels = metrics.counter("apiserver_audit_level_total", "Requests by their level in the audit log.", ["level"])
        errors = metrics.counter("apiserver_audit_error_total", "Events that the audit log has lost.", ["plugin"])
        rejected = metrics.counter("apiserver_audit_requests_rejected_total", "Requests that could not be recorded.")

        def count(what: str, label: str, by: int) -> None:
            if what == "event":
                total.add()
            elif what == "level":
                levels.add(label)
            elif what == "rejected":
                rejected.add()
            else:
                errors.add(label, by=by)

        self._count = count

    def open(self, metrics: Registry) -> None:
        """Opens the log file, begins to send and to count. Raises OSError."""
        self._measure(metrics)
        for backend in self._backends:
            backend.start()

    async def close(self) -> None:
        """Sends what waits; closes the file."""
        for backend in self._backends:
            await backend.close()

    def begin(self, request: Request, target: Target) -> Record:
        """The record of a request that has come in; its id is that of the answer's Audit-Id header."""
        id = request.headers.get(_ID)
        if id is None:
            id = self._entropy.uid()
            request.headers = {**request.headers, _ID: id}
        return Record(request, target, id[:64], self._clock.now, self._emit)

    def sender(self, record: Record, target: Target, user: User | None) -> None:
        """Who sent a request. Raises InternalError when it cannot be recorded as it has to be."""
        rule = self._policy.rule(user, target.info)
        self._count("level", rule.level, 1)
        record.sender(rule, user)

    def ended(self, record: Record, answer: Answer | Awaitable[Answer]) -> Answer | Awaitable[Answer]:
        """The answer, which is recorded when it is there."""
        if isinstance(answer, Awaitable):
            return self._later(record, answer)
        answer = record.answered(answer)
        return answer if record.waiting is None else _settled(record, answer)

    async def _later(self, record: Record, answer: Awaitable[Answer]) -> Answer:
        return await _settled(record, record.answered(await answer))

    def lost(self, plugin: str, count: int, why: str) -> None:
        """Events do not arrive: all of them are counted, and it is told once a minute."""
        self._count("error", plugin, count)
        now = self._clock.monotonic()
        if now >= self._tell_at.get(plugin, now):
            self._tell_at[plugin] = now + _TELL_EVERY_S
            log.error("Events of the audit log are lost (%s): %s", plugin, why)

    def _emit(self, event: Object) -> Waiting | None:
        """What the request has to wait for, if anything; that, or this, raises InternalError."""
        self._count("event", "", 1)
        received = event["stage"] == RECEIVED
        tasks: list[tuple[asyncio.Task[bool], bool]] = []
        for backend in self._backends:
            taken = backend.put(event)
            if isinstance(taken, asyncio.Task):
                tasks.append((taken, received and backend.strict))
            elif not taken and received and backend.strict:
                self._refuse()
        return (lambda: self._arrived(tasks)) if tasks else None

    async def _arrived(self, tasks: Sequence[tuple[asyncio.Task[bool], bool]]) -> None:
        await asyncio.wait([task for task, _ in tasks])
        if any(strict and (task.cancelled() or not task.result()) for task, strict in tasks):
            self._refuse()

    def _refuse(self) -> None:
        self._count("rejected", "", 1)
        raise InternalError("Internal error occurred: the request cannot be recorded in the audit log", {})


async def _settled(record: Record, answer: Answer) -> Answer:
    await record.settle()
    return answer
