"""Changes for watchers of a version that only a webhook can make: told in order, once they are converted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k3s.api.errors import ApiError
from k3s.api.kinds import Kind
from k3s.apiserver.cache import Change
from k3s.apiserver.conversion import Conversions
from k3s.base.aio import Tasks

if TYPE_CHECKING:
    from k3s.apiserver.watch import Shared, Watcher


class Feed:
    """Stands among a bucket's watchers for all those of one such kind."""

    def __init__(self, kind: Kind, conversions: Conversions, tasks: Tasks) -> None:
        self._kind = kind
        self._conversions = conversions
        self._tasks = tasks
        self._waiting: list[Change] = []
        self._busy = False
        #: A dict for its order, as a bucket's.
        self.watchers: dict[Watcher, None] = {}

    def hear(self, changes: Sequence[Change], _shared: Shared) -> None:
        """Hears of changes, in order; what comes while a webhook is asked waits, and goes into the next question."""
        if not self.watchers:
            return
        self._waiting += changes
        if not self._busy:
            self._busy = True
            self._tasks.spawn(self._tell(), f"{self._kind.qualified} {self._kind.version}")

    async def _tell(self) -> None:
        try:
            while self._waiting:
                changes, self._waiting = self._waiting, []
                await self._told(changes)
        finally:
            self._busy = False

    async def _told(self, changes: Sequence[Change]) -> None:
        try:
            made = await self._conversions.changes(changes, self._kind)
        except ApiError as error:
            for watcher in tuple(self.watchers):
                watcher.fail(error)
            return
        shared: Shared = {}
        for watcher in tuple(self.watchers):
            watcher.hear(made, shared)
