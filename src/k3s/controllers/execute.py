"""Carries out actions through the client, and keeps what the barrier has to wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from k3s.api import object as objects
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown, Timeout
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.client.transport import Request
from k3s.controllers.actions import Action, Create, Delete, DeleteCollection, Emit, Parallel, Patch, Update

log = logging.getLogger(__name__)

# Requests of one decision that are under way at the same time; more only queue in the server.
_AT_ONCE = 128


@dataclass(slots=True)
class Written:
    """What a decision changed: revisions by kind, objects deleted (kind, key, uid), kinds with unknown outcome."""

    revisions: dict[Kind, int] = field(default_factory=dict)
    gone: list[tuple[Kind, str, str]] = field(default_factory=list)
    unknown: dict[Kind, None] = field(default_factory=dict)

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
                except (OutcomeUnknown, Timeout):
                    written.unknown[action.kind] = None
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
                query = {"propagationPolicy": action.propagation} if action.propagation else {}
                await client.raw(Request("DELETE", kind.path(action.namespace), query))

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
