"""What the audit log learns of one request on its way, and the events that it becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from k3s.api import times
from k3s.api.errors import ApiError
from k3s.api.object import Object
from k3s.apiserver import identity
from k3s.apiserver.audit import event as events
from k3s.apiserver.audit.policy import (
    COMPLETE,
    NONE,
    NOTHING,
    PANIC,
    RECEIVED,
    REQUEST,
    REQUEST_RESPONSE,
    STARTED,
    Rule,
    without_managed_fields,
)
from k3s.apiserver.audit.redaction import redacted, redacted_note
from k3s.apiserver.identity import User
from k3s.apiserver.request import Target
from k3s.base.message import JSON, Answer, Chunks, Request, Response, Sink, Source, Stream, Upgrade

#: Waits until an event has arrived; raises InternalError where a request may not go on without being recorded.
Waiting = Callable[[], Awaitable[None]]
#: Hands over an event, and answers what has to be waited for, if anything; raises as that does.
Emit = Callable[[Object], "Waiting | None"]
#: Notes that tell of a request's body: they stand in the log where that does.
_OF_BODIES = "patch.webhook.admission.k8s.io/"


class Broken(Response):
    """The answer to a request that a fault of the server ended."""


class Record:
    """One request, from its arrival to its end. `notes` are the annotations of its events."""

    __slots__ = (
        *("_emit", "_id", "_now", "_received", "_request", "_target"),
        *("constraint", "heard", "notes", "refused", "rule", "sent", "shown", "users", "waiting"),
    )

    def __init__(self, request: Request, target: Target, id: str, now: Callable[[], float], emit: Emit) -> None:
        self._request = request
        self._target = target
        self._id = id
        self._now = now
        self._received = now()
        self._emit = emit
        self.rule: Rule = NOTHING
        self.users: tuple[User | None, User | None] = (None, None)
        #: The verb by which the sender may act as another user, where it is one of the constrained modes.
        self.constraint = ""
        self.notes: dict[str, str] = {}
        #: Whether the sender was recorded; why the request ended with that, if it did.
        self.heard = False
        self.refused: ApiError | None = None
        #: What has to be waited for before the request goes on.
        self.waiting: Waiting | None = None
        #: What was sent (an object, options or a patch), and what was answered.
        self.sent: Any = None
        self.shown: Any = None

    @property
    def keeps_request(self) -> bool:
        """Whether the log has what was sent."""
        return self.rule.level in (REQUEST, REQUEST_RESPONSE)

    @property
    def keeps_response(self) -> bool:
        """Whether the log has what was answered."""
        return self.rule.level == REQUEST_RESPONSE

    def sender(self, rule: Rule, user: User | None) -> None:
        """Who asks, and what is to be told of it: the request has been received."""
        self.rule, self.users, self.heard = rule, (user, None), True
        self._stage(RECEIVED)

    async def settle(self) -> None:
        """Waits until the last event has arrived where requests wait for that. Raises InternalError."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            await waiting()

    async def settled(self) -> None:
        """As `settle`; a refusal is kept for who asks next."""
        try:
            await self.settle()
        except ApiError as error:
            self.refused = error

    def decided(self, allowed: bool, reason: str) -> None:
        """What authorization said."""
        self.notes["authorization.k8s.io/decision"] = "allow" if allowed else "forbid"
        self.notes["authorization.k8s.io/reason"] = reason

    def started(self) -> None:
        """An answer without an end of its own begins."""
        self._stage(STARTED, 200)

    def done(self, code: int, refusal: Object | None = None) -> None:
        """The request is over; `refusal` is the Status of one that failed."""
        self._stage(COMPLETE, code, refusal)

    def answered(self, answer: Answer) -> Answer:
        """The answer, which tells of its end when it has one of its own."""
        if self.rule.level == NONE:
            return answer
        if isinstance(answer, Response):
            stage = PANIC if isinstance(answer, Broken) else COMPLETE
            self._stage(stage, answer.status, _refusal(answer))
            return answer
        code = 101 if isinstance(answer, Upgrade) else answer.status
        self._stage(STARTED, code)

        def ended() -> None:
            self._stage(COMPLETE, code)

        if isinstance(answer, Stream):
            answer.source = _Followed(answer.source, ended)
        elif isinstance(answer, Chunks):
            answer.pieces = _followed(answer.pieces, ended)
            answer.dropped = _both(answer.dropped, ended)
        else:
            answer.handler, answer.dropped = _handled(answer.handler, ended), _both(answer.dropped, ended)
        return answer

    def _stage(self, stage: str, code: int = 0, refusal: Object | None = None) -> None:
        rule = self.rule
        if rule.level == NONE or stage in rule.omitted:
            return
        request, target = self._request, self._target
        user, acting = self.users
        made: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": rule.level,
            "auditID": self._id,
            "stage": stage,
            "requestURI": request.target,
            "verb": target.info.verb,
            "user": identity.shown(user) if user is not None else {},
        }
        if acting is not None and acting is not user:
            made["impersonatedUser"] = identity.shown(acting)
            if self.constraint:
                made["authenticationMetadata"] = {"impersonationConstraint": self.constraint}
        if sources := events.sources(request.headers, request.source):
            made["sourceIPs"] = sources
        if agent := request.headers.get("user-agent"):
            made["userAgent"] = agent[:1024]
        if reference := events.reference(target.info, self.sent):
            made["objectRef"] = reference
        if code:
            made["responseStatus"] = events.status_of(code, refusal)
            if user is None and code == 401:
                made["responseStatus"]["message"] = _attempted(request)
            self._bodies(made, refusal)
        now = self._now()
        made["requestReceivedTimestamp"] = times.micro(self._received)
        made["stageTimestamp"] = times.micro(self._received if stage == RECEIVED else now)
        if notes := self._notes():
            made["annotations"] = notes
        self.waiting = self._emit(made)

    def _notes(self) -> dict[str, str]:
        """The annotations that the level allows."""
        info, whole = self._target.info, self.keeps_request
        return {
            name: redacted_note(info, note) if name.startswith(_OF_BODIES) else note
            for name, note in sorted(self.notes.items())
            if whole or not name.startswith(_OF_BODIES)
        }

    def _bodies(self, made: Object, refusal: Object | None) -> None:
        shown = self.shown if self.shown is not None else refusal
        if self.keeps_request and self.sent is not None:
            made["requestObject"] = self._kept(self.sent)
        if self.keeps_response and shown is not None:
            made["responseObject"] = self._kept(shown)

    def _kept(self, body: Any) -> Any:
        body = redacted(self._target.info, body)
        return without_managed_fields(body) if self.rule.omits_managed_fields and isinstance(body, dict) else body


def _refusal(answer: Response) -> Object | None:
    """The Status of an answer that is one."""
    if answer.status < 400 or not answer.body:
        return None
    if answer.content_type == JSON:
        from k3s.api.object import decode

        found: Any = decode(bytes(answer.body))
        return found if isinstance(found, dict) else None
    return None


class _Followed:
    """A source whose end is told."""

    def __init__(self, source: Source, ended: Callable[[], None]) -> None:
        self._source = source
        self._ended: Callable[[], None] | None = ended

    def start(self, sink: Sink) -> None:
        self._source.start(sink)

    def resumed(self) -> None:
        self._source.resumed()

    def stop(self) -> None:
        self._source.stop()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


async def _followed(pieces: AsyncIterator[bytes], ended: Callable[[], None]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    finally:
        ended()


def _handled(
    handler: Callable[[Any, bytes], Awaitable[None]], ended: Callable[[], None]
) -> Callable[[Any, bytes], Awaitable[None]]:
    async def handle(transport: Any, rest: bytes) -> None:
        try:
            await handler(transport, rest)
        finally:
            ended()

    return handle


def _both(first: Callable[[], None] | None, then: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        if first is not None:
            first()
        then()

    return call


def _attempted(request: Request) -> str:
    """Why a sender is not known, in upstream's words."""
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    tried = [scheme] if scheme in ("basic", "bearer") else []
    tried += ["x509"] if request.peer is not None else []
    if not tried:
        return "Authentication failed, no credentials provided"
    return f"Authentication failed, attempted: {', '.join(tried)}"
