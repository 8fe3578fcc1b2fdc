"""From requests to the audit log: the policy says what is told, the log file and the webhook are told it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from k3s.api.errors import InternalError
from k3s.api.object import Object, encode
from k3s.apiserver.audit import event as events
from k3s.apiserver.audit.logfile import LogFile
from k3s.apiserver.audit.policy import RECEIVED, Policy
from k3s.apiserver.audit.record import Record
from k3s.apiserver.audit.webhook import Webhook
from k3s.apiserver.identity import User
from k3s.apiserver.request import Target
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.message import Answer, Request
from k3s.base.metrics import Registry

log = logging.getLogger(__name__)
_ID = "audit-id"


class Auditor:
    """Makes the records of requests. `strict`: a request that cannot be recorded is refused."""

    def __init__(
        self,
        policy: Policy,
        file: LogFile | None,
        webhook: Webhook | None,
        clock: Clock,
        entropy: Entropy,
        *,
        legacy: bool = False,
        strict: bool = False,
    ) -> None:
        self._policy = policy
        self._file = file
        self._webhook = webhook
        if webhook is not None:
            webhook.lost = self.lost
        self._clock = clock
        self._entropy = entropy
        self._legacy = legacy
        self._strict = strict
        self._failing = False
        self._count: Callable[[str, str], None] = lambda what, label: None

    def _measure(self, metrics: Registry) -> None:
        total = metrics.counter("apiserver_audit_event_total", "Events of the audit log.")
        levels = metrics.counter("apiserver_audit_level_total", "Requests by their level in the audit log.", ["level"])
        errors = metrics.counter("apiserver_audit_error_total", "Events that the audit log has lost.", ["plugin"])
        rejected = metrics.counter("apiserver_audit_requests_rejected_total", "Requests that could not be recorded.")

        def count(what: str, label: str) -> None:
            if what == "event":
                total.add()
            elif what == "level":
                levels.add(label)
            elif what == "rejected":
                rejected.add()
            else:
                errors.add(label)

        self._count = count

    def open(self, metrics: Registry) -> None:
        """Opens the log file, begins to send and to count. Raises OSError."""
        self._measure(metrics)
        if self._file is not None:
            self._file.open()
        if self._webhook is not None:
            self._webhook.start()

    async def close(self) -> None:
        """Sends what waits; closes the file."""
        if self._webhook is not None:
            await self._webhook.close()
        if self._file is not None:
            await self._file.close()

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
        self._count("level", rule.level)
        record.sender(rule, user)

    def ended(self, record: Record, answer: Answer | Awaitable[Answer]) -> Answer | Awaitable[Answer]:
        """The answer, which is recorded when it is there."""
        return self._later(record, answer) if isinstance(answer, Awaitable) else record.answered(answer)

    async def _later(self, record: Record, answer: Awaitable[Answer]) -> Answer:
        return record.answered(await answer)

    def lost(self, count: int) -> None:
        """The webhook did not take events."""
        log.error("%d events of the audit log are lost: the webhook does not take them", count)
        for _ in range(count):
            self._count("error", "webhook")

    def _emit(self, event: Object) -> None:
        self._count("event", "")
        if self._webhook is not None:
            self._webhook.put(event)
        if self._file is None:
            return
        line = events.legacy(event, event["stageTimestamp"]).encode() if self._legacy else encode(event)
        try:
            self._file.write(line + b"\n")
            self._failing = False
        except OSError as error:
            self._lost_line(event, error)

    def _lost_line(self, event: Object, error: OSError) -> None:
        self._count("error", "log")
        if not self._failing:
            self._failing = True
            log.error("The audit log cannot be written: %s", error)
        if self._strict and event["stage"] == RECEIVED:
            self._count("rejected", "")
            raise InternalError("Internal error occurred: the request cannot be recorded in the audit log", {})
