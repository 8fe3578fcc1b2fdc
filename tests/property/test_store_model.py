"""Every datastore behaves like a plain model, whatever the order of calls."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from k3s.store.interface import Compacted, Entry, Event, KeyConflict
from k3s.store.memory import MemoryStore
from k3s.store.sql.sqlite import SqliteStore

KEYS = st.sampled_from(["/a", "/a/b", "/a/c", "/b/", "/b/é", "/b/\U0001f600", "/c"])
PREFIXES = st.sampled_from(["", "/", "/a", "/a/", "/b/", "/x"])
VALUES = st.binary(max_size=20)
# How an expected revision relates to the truth.
GUESSES = st.sampled_from(["right", "zero", "older", "newer"])


class Machine(RuleBasedStateMachine):
    """The model is the list of all events that ever were, and nothing else."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: list[Event] = []
        self.seen: list[Event] = []
        self.oldest = 0

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = MemoryStore() if self.kind == "memory" else self.sqlite()
        self.runner.run(self.store.open())
        self.store.subscribe(self.seen.extend)

    def sqlite(self) -> SqliteStore:
        return SqliteStore(Path(self.folder.name) / "state.db")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.folder.cleanup()
        self.runner.close()

    def at(self, revision: int) -> dict[str, Entry]:
        state: dict[str, Entry] = {}
        for event in self.model[:revision]:
            if event.value is None:
                del state[event.key]
            else:
                state[event.key] = Entry(event.key, event.value, event.revision, event.created)
        return dict(sorted(state.items()))

    @rule(key=KEYS, value=st.none() | VALUES, guess=GUESSES)
    def write(self, key: str, value: bytes | None, guess: str) -> None:
        current = self.at(len(self.model)).get(key)
        truth = current.revision if current else 0
        expected = {"right": truth, "zero": 0, "older": max(truth - 1, 0), "newer": truth + 1}[guess]
        call = self.store.delete(key, expected) if value is None else self.store.put(key, value, expected)
        if expected != truth or (value is None and current is None):
            with pytest.raises(KeyConflict) as caught:
                self.runner.run(call)
            assert caught.value.current == current
            return
        revision = self.runner.run(_awaited(call))
        assert revision == len(self.model) + 1
        self.model.append(Event(revision, key, value, current, current.created if current else revision))

    @rule(key=KEYS, prefix=PREFIXES, back=st.integers(0, 5), after=st.just("") | KEYS, limit=st.integers(0, 3))
    def read(self, key: str, prefix: str, back: int, after: str, limit: int) -> None:
        revision = max(len(self.model) - back, 0) if back else 0
        if revision and revision < self.oldest:
            with pytest.raises(Compacted):
                self.runner.run(self.store.list(prefix, revision))
            with pytest.raises(Compacted):
                self.runner.run(self.store.get(key, revision))
            return
        state = self.at(revision or len(self.model))
        assert self.runner.run(self.store.get(key, revision)) == state.get(key)
        expected = [entry for k, entry in state.items() if k.startswith(prefix) and k > after]
        read, entries = self.runner.run(self.store.list(prefix, revision, after, limit))
        assert read == (revision or len(self.model))
        assert entries == (expected[:limit] if limit else expected)

    @rule(prefix=PREFIXES, back=st.integers(0, 8), limit=st.integers(0, 3))
    def events(self, prefix: str, back: int, limit: int) -> None:
        after = max(len(self.model) - back, 0)
        if after < self.oldest:
            with pytest.raises(Compacted):
                self.runner.run(self.store.events(prefix, after))
            return
        expected = [event for event in self.model[after:] if event.key.startswith(prefix)]
        found = self.runner.run(self.store.events(prefix, after, limit))
        assert found == (expected[:limit] if limit else expected)

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        revision = max(len(self.model) - back, 0)
        self.runner.run(self.store.compact(revision))
        self.oldest = max(self.oldest, revision)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        if self.kind == "sqlite":
            self.store = self.sqlite()
        self.runner.run(self.store.open())
        self.store.subscribe(self.seen.extend)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "store"):
            assert self.store.revision() == len(self.model)
            assert self.store.oldest() == self.oldest
            assert self.seen == self.model


async def _awaited(call):
    return await call


class SqliteMachine(Machine):
    kind = "sqlite"


def test_memory_is_like_the_model():
    """Two hundred random sequences of calls."""
    limits = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Machine, settings=limits)


@pytest.mark.slow
def test_sqlite_is_like_the_model():
    """The same over the file, closed and opened again at random."""
    slow = [HealthCheck.too_slow]
    limits = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(SqliteMachine, settings=limits)
