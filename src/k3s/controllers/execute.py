"""Carries out actions through the client, keeps what the barrier has to wait for, and sends events."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from k3s.api import object as objects
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.base.aio import Mailbox
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.transport import Request
from k3s.controllers.actions import Action, Create, Delete, DeleteCollection, Emit, Parallel, Patch, Update
from k3s.controllers.events import Seen, identity, record
from k3s.controllers.known import EVENT

log = logging.getLogger(__name__)

# Requests of one decision that are under way at the same time; more only queue in the server.
_AT_ONCE = 128
# Distinct events that are counted up; older ones start over.
_KNOWN = 1024
# Events wait here while the API server is slow; the oldest is lost first, as events are best effort.
_WAITING = 1024


@dataclass(slots=True)
class Written:
    """What a decision changed: revisions by kind, objects deleted (kind, key, uid), kinds with unknown outcome."""

    revisions: dict[Kind, int] = field(default_factory=dict)
    gone: list[tuple[Kind, str, str]] = field(default_factory=list)
    unknown: set[Kind] = field(default_factory=set)

    def note(self, kind: Kind, revision: int) -> None:
        """Remembers the highest revision written to a kind."""
        if revision > self.revisions.get(kind, 0):
            self.revisions[kind] = revision


class Executor:
    """One controller's hands: its client, and where its events go."""

    def __init__(self, client: Client, tell: Callable[[Emit], None]) -> None:
        self._client = client
        self._tell = tell

    async def do(self, action: Action, written: Written) -> None:
        """Carries out one action and notes in `written` what it changed. Raises ApiError and OutcomeUnknown."""
        match action:
            case Emit():
                self._tell(action)
            case Parallel():
                await self._parallel(action, written)
            case Create() | Update() | Patch() | Delete() | DeleteCollection():
                try:
                    await self._write(action, written)
                except OutcomeUnknown:
                    written.unknown.add(action.kind)
                    raise
            case _:
                assert_never(action)

    async def _write(self, action: Create | Update | Patch | Delete | DeleteCollection, written: Written) -> None:
        kind, client = action.kind, self._client
        match action:
            case Create():
                await self._create(action, written)
            case Update():
                written.note(
                    kind, objects.revision(await client.update(kind, action.obj, subresource=action.subresource))
                )
            case Patch():
                answer = await client.patch(
                    kind,
                    action.namespace,
                    action.name,
                    action.patch,
                    type=action.type,
                    subresource=action.subresource,
                )
                written.note(kind, objects.revision(answer))
            case Delete():
                await self._delete(action, written)
            case DeleteCollection():
                await client.raw(Request("DELETE", kind.path(action.namespace)))

    async def _create(self, action: Create, written: Written) -> None:
        try:
            made = await self._client.create(action.kind, action.obj)
        except ApiError as error:
            self._failed(action.about, "FailedCreate", f"Error creating: {error}")
            raise
        written.note(action.kind, objects.revision(made))
        if action.about is not None:
            text = f"Created {action.kind.singular}: {objects.name(made)}"
            self._tell(Emit(action.about, "Normal", "SuccessfulCreate", text))

    async def _delete(self, action: Delete, written: Written) -> None:
        key = f"{action.namespace}/{action.name}" if action.namespace else action.name
        try:
            answer = await self._client.delete(
                action.kind,
                action.namespace,
                action.name,
                grace_s=action.grace_s,
                propagation=action.propagation,
                uid=action.uid,
                revision=action.revision,
            )
        except NotFound:
            # That is what was wanted; the cache may still show it.
            written.gone.append((action.kind, key, action.uid))
            return
        except ApiError as error:
            self._failed(action.about, "FailedDelete", f"Error deleting {action.kind.singular} {action.name}: {error}")
            raise
        written.gone.append((action.kind, key, action.uid))
        written.note(action.kind, objects.revision(answer))
        if action.about is not None:
            text = f"Deleted {action.kind.singular}: {action.name}"
            self._tell(Emit(action.about, "Normal", "SuccessfulDelete", text))

    def _failed(self, about: Object | None, reason: str, message: str) -> None:
        if about is not None:
            self._tell(Emit(about, "Warning", reason, message))

    async def _parallel(self, action: Parallel, written: Written) -> None:
        size, at = (1, 0) if action.slow_start else (_AT_ONCE, 0)
        while at < len(action.actions):
            batch = action.actions[at : at + size]
            await self._together(batch, written)
            at, size = at + len(batch), min(size * 2, _AT_ONCE)

    async def _together(self, batch: Sequence[Action], written: Written) -> None:
        """Does a batch at the same time; raises the first failure after all have ended."""
        if len(batch) == 1:
            await self.do(batch[0], written)
            return
        outcomes = await asyncio.gather(*(self.do(action, written) for action in batch), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


class Recorder:
    """Sends the events of one component, one after the other, and never makes the component wait."""

    def __init__(self, client: Client, source: str, clock: Clock, entropy: Entropy) -> None:
        self._client = client
        self._source = source
        self._clock = clock
        self._entropy = entropy
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._waiting: OrderedDict[int, Emit] = OrderedDict()
        self._number = 0
        self._queue: Mailbox[int] = Mailbox()

    def tell(self, emit: Emit) -> None:
        """Queues an event."""
        self._number += 1
        self._waiting[self._number] = emit
        if len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)
        self._queue.put(self._number)

    async def run(self) -> None:
        """Sends what was told, until cancelled. An event that is refused is logged and lost."""
        while True:
            emit = self._waiting.pop(await self._queue.take(), None)
            if emit is not None:
                await self._send(emit)

    async def _send(self, emit: Emit) -> None:
        key, now = identity(emit, self._source), self._clock.now()
        suffix = self._entropy.uid().replace("-", "")[:16]
        write, seen = record(self._seen.pop(key, None), emit, self._source, now, suffix)
        try:
            if isinstance(write, Patch):
                await self._client.patch(EVENT, write.namespace, write.name, write.patch)
            else:
                await self._client.create(EVENT, write.obj)
        except NotFound:
            # Either the event was deleted by someone, and the next one starts over, or its namespace is gone.
            return
        except (ApiError, OutcomeUnknown) as error:
            log.info(
                "Event lost", extra={"object": objects.key(emit.about), "reason": emit.reason, "error": str(error)}
            )
            return
        self._seen[key] = seen
        if len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)


def describe(action: Action) -> str:
    """An action in a few words, for the story."""
    match action:
        case Emit():
            return f"event {action.reason}"
        case Parallel():
            first = describe(action.actions[0]) if action.actions else "nothing"
            return f"{len(action.actions)} x ({first})"
        case Create():
            meta = action.obj["metadata"]
            return f"create {action.kind.singular} {meta.get('name') or meta.get('generateName', '')}"
        case Update():
            part = f" {action.subresource}" if action.subresource else ""
            return f"update {action.kind.singular} {objects.name(action.obj)}{part}"
        case DeleteCollection():
            return f"delete all {action.kind.plural}"
        case Patch():
            return f"patch {action.kind.singular} {action.name}"
        case Delete():
            return f"delete {action.kind.singular} {action.name}"
