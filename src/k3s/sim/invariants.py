"""What must hold at every moment, whatever goes wrong. Whoever breaks it is named, the run goes on.

- Ledger: what the server acknowledged is in the store's history, and stays true.
- SharedObjects: nobody changes an object that was handed out (law 5).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k3s.api import object as objects
from k3s.api.kinds import REGISTRY
from k3s.api.object import Object, decode, encode
from k3s.base.clock import Clock
from k3s.client.transport import Request, Response
from k3s.store.interface import Event
from k3s.store.memory import MemoryStore

# After so many of them a run has told enough.
_MOST = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """One rule that was broken: `at` in seconds since the epoch, `key` as in the story."""

    at: float
    rule: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.key}: {self.what}"


class Findings:
    """What was found wrong."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failures: list[Failure] = []

    def add(self, rule: str, key: str, what: str) -> None:
        """Notes that a rule was broken."""
        if len(self.failures) < _MOST:
            self.failures.append(Failure(self._clock.now(), rule, key, what))


class WatchedStore(MemoryStore):
    """A store that keeps its whole history of revisions by key, and tells what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[int]] = {}
        self.watchers: list[Callable[[Event], None]] = []
        self.writes = 0

    def _write(self, key: str, value: bytes | None, expected: int) -> int:
        revision = super()._write(key, value, expected)
        self.history.setdefault(key, []).append(revision)
        self.writes += 1
        event = self._events[-1]
        for watcher in self.watchers:
            watcher(event)
        return revision

    def current(self, key: str) -> Object | None:
        """The object at a key, now."""
        entry = self._at(key, self._revision)
        return decode(entry.value) if entry is not None else None


class Ledger:
    """Every write that was answered with success."""

    def __init__(self, store: WatchedStore, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._written: dict[str, dict[int, str]] = {}
        self._deleted: dict[str, set[str]] = {}

    def acknowledged(self, request: Request, response: Response) -> None:
        """Looks whether the store holds what an answer says."""
        body = response.body
        if request.method == "GET" or not isinstance(body, dict) or "dryRun" in request.query:
            return
        key = _store_key(body)
        if key is None:
            return
        uid, revision = objects.uid(body), objects.revision(body)
        if request.method == "DELETE":
            self._deleted.setdefault(key, set()).add(uid)
            self._check_deleted(key, uid)
            return
        self._written.setdefault(key, {})[revision] = uid
        if revision not in self._store.history.get(key, ()):
            text = f"{request.method} {request.path} was acknowledged as revision {revision}, which is not in the store"
            self._findings.add("acknowledged write lost", _name(body), text)

    def _check_deleted(self, key: str, uid: str) -> None:
        obj = self._store.current(key)
        if obj is not None and objects.uid(obj) == uid and not objects.is_deleting(obj):
            self._findings.add("acknowledged deletion lost", _name(obj), f"{uid} is there and not being deleted")

    def check(self) -> None:
        """Looks at everything that was ever acknowledged, as after a restart."""
        for key, written in self._written.items():
            history = set(self._store.history.get(key, ()))
            lost = [revision for revision in written if revision not in history]
            if lost:
                self._findings.add("acknowledged write lost", key, f"revisions {lost} are not in the store")
        for key, uids in self._deleted.items():
            for uid in sorted(uids):
                self._check_deleted(key, uid)


def _store_key(obj: Object) -> str | None:
    """Where an answer's object is stored; None for what is not stored: a Status, a review, a token."""
    meta = obj.get("metadata") or {}
    kind = REGISTRY.of(obj)
    if kind is None or not kind.stored or "resourceVersion" not in meta or not meta.get("uid"):
        return None
    return kind.key(objects.namespace(obj), objects.name(obj))


def _name(obj: Object) -> str:
    return f"{obj.get('kind', '').lower()} {objects.key(obj)}"


class SharedObjects:
    """The objects that were handed out, each with the sum of its text at that time."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._known: dict[int, tuple[Object, int]] = {}

    def handed_out(self, body: Any) -> None:
        """An object or a list went to a client of this process."""
        if not isinstance(body, dict):
            return
        items = body.get("items")
        for obj in items if isinstance(items, list) else (body,):
            if id(obj) not in self._known:
                self._known[id(obj)] = (obj, zlib.crc32(encode(obj)))

    def check(self) -> None:
        """Finds the objects that were changed since."""
        for obj, before in self._known.values():
            if zlib.crc32(encode(obj)) != before:
                self._findings.add("shared object changed", _name(obj), f"revision {objects.revision(obj)}")
        self._known.clear()
