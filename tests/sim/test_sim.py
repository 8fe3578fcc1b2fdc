"""The simulated cluster: seeds that have to pass, that repeat themselves, and planted bugs that have to be found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from k3s.api.kinds import builtin
from k3s.apiserver.cache import Bucket
from k3s.apiserver.hub import Hub
from k3s.apiserver.watch import Begin, LocalWatch
from k3s.controllers.execute import Written
from k3s.controllers.runtime import Runner
from k3s.kubelet.actions import PodActions
from k3s.sim.audit import audit
from k3s.sim.cluster import Shape
from k3s.sim.disk import FAULTS, Session
from k3s.sim.history import LOST, History
from k3s.sim.invariants import WatchedStore
from k3s.sim.seed import Outcome, play, play_many


def _told(outcome: Outcome) -> str:
    return "\n".join([f"seed {outcome.seed}: {outcome.chosen}", *map(str, outcome.failures), *outcome.lines()[-40:]])


def _found(names: tuple[str, ...], seeds: int, shape: Shape | None = None) -> set[str]:
    """The rules that were broken in these seeds."""
    rules: set[str] = set()
    for seed in range(1, seeds + 1):
        rules |= {failure.rule for failure in play(seed, shape, names).failures}
    return rules


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_passes(seed: int) -> None:
    """Two seeds, for those who run the fast tests only."""
    outcome = play(seed)
    assert not outcome.failures, _told(outcome)
    assert outcome.writes > 500


@pytest.mark.slow
def test_many_storms_pass() -> None:
    """Fifty seeds: nothing acknowledged is lost, no pod too many, everything comes true and then is silent."""
    failed = [outcome for outcome in play_many(1, 50) if outcome.failures]
    assert not failed, "\n\n".join(map(_told, failed))


@pytest.mark.slow
def test_a_seed_repeats_itself_in_another_process() -> None:
    """The same seed writes the same objects in the same order, whatever the hashes of strings are."""
    code = "from k3s.sim.seed import play; print(*(play(seed).mark for seed in (3, 4)))"
    marks = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "7")
    }
    assert len(marks) == 1


@pytest.mark.slow
def test_a_runner_without_the_barrier_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that does not wait for its own writes makes too many pods."""

    async def at_once(self: Runner, written: Written) -> None:
        return None

    monkeypatch.setattr(Runner, "_seen", at_once)
    assert "too many pods" in _found(("scaling",), 5)


@pytest.mark.slow
def test_a_controller_that_takes_a_lost_answer_for_a_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an unknown outcome the barrier has to ask where the server is."""
    seen = Runner._seen

    async def forgetful(self: Runner, written: Written) -> None:
        written.unknown.clear()
        await seen(self, written)

    monkeypatch.setattr(Runner, "_seen", forgetful)
    assert "too many pods" in _found(("scaling", "deployment"), 20)


@pytest.mark.slow
def test_a_kubelet_that_starts_a_container_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers of one name run in one pod."""
    start = PodActions.start_container

    async def twice(self: PodActions, name: str, attempt: int) -> None:
        await start(self, name, attempt)
        await start(self, name, attempt + 1)

    monkeypatch.setattr(PodActions, "start_container", twice)
    assert "two pods where one is wanted" in _found(("scaling",), 1)


class LosingStore(WatchedStore):
    """Answers every twentieth update of a pod without having written it."""

    count = 0

    async def put(self, key: str, value: bytes, expected: int) -> int:
        if key.startswith("/registry/core/pods/"):
            self.count += 1
            if self.count % 20 == 0:
                return self._revision + 1
        return await super().put(key, value, expected)


@pytest.mark.slow
def test_a_write_that_is_acknowledged_and_lost_is_found() -> None:
    """A store that lies."""
    assert "acknowledged write lost" in _found(("scaling",), 2, Shape(store=LosingStore))


@pytest.mark.slow
def test_an_object_that_somebody_changes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that writes into an object of its cache."""
    pod = builtin("v1", "Pod")
    watch: Any = Runner.watch

    def careless(self: Runner, kind: Any, keys: Any) -> None:
        def changing(old: Any, new: Any, world: Any) -> Any:
            if kind is pod and new is not None and "labels" in new["metadata"]:
                new["metadata"]["labels"]["seen"] = "yes"
            return keys(old, new, world)

        watch(self, kind, changing)

    monkeypatch.setattr(Runner, "watch", careless)
    assert "shared object changed" in _found(("scaling",), 1)


@pytest.mark.slow
def test_a_watch_that_resumes_one_event_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit of the traffic's history sees the gap."""
    since = Bucket.since

    def late(self: Bucket, revision: int) -> Any:
        changes = since(self, revision)
        return changes[1:] if changes else changes

    monkeypatch.setattr(Bucket, "since", late)
    found = [str(failure) for seed in (1, 2) for failure in play(seed, None, ("job",)).failures]
    assert any("was not told of" in text for text in found), found


@pytest.mark.slow
def test_a_bookmark_that_promises_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes at the revision that was promised as told is out of order."""
    bookmark = LocalWatch.bookmark
    monkeypatch.setattr(LocalWatch, "bookmark", lambda self, revision: bookmark(self, revision + 3))
    found = [str(failure) for seed in (1, 2) for failure in play(seed, None, ("job",)).failures]
    assert any("history" in text and ("was told of" in text or "told of" in text) for text in found), found


@pytest.mark.slow
def test_a_watch_that_begins_after_what_was_compacted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of 410: the audit of the traffic's history sees the gap."""
    from_log = Hub._from_log

    async def silent(self: Hub, bucket: Bucket, revision: int) -> Begin:
        return await from_log(self, bucket, max(revision, self._store.oldest()))

    monkeypatch.setattr(Hub, "_from_log", silent)
    found = [str(failure) for seed in (1, 2, 3) for failure in play(seed, None, ("job",)).failures]
    assert any("was not told of" in text for text in found), found


@pytest.mark.slow
def test_a_late_commit_that_nobody_is_told_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit broke, and was made all the same: watchers have to hear of it once that shows."""
    recovered = Session.recovered

    def forgetful(self: Session) -> None:
        self._late.clear()
        recovered(self)

    monkeypatch.setattr(Session, "recovered", forgetful)
    assert any(play(seed, None, ("job",)).failures for seed in range(1, 6))


@pytest.mark.slow
def test_seeds_make_watchers_begin_again_and_commits_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """History in the simulation is so short, and its disk so bad, that both happen in every few seeds."""
    histories: list[History] = []

    def noting(history: History) -> list[str]:
        histories.append(history)
        return audit(history)

    monkeypatch.setattr("k3s.sim.seed.audit", noting)
    told = [line.what for seed in (1, 2, 3) for line in play(seed, None, ("job",)).story if line.component == "sim"]
    watches = [watch for history in histories for watch in history.watches]
    assert sum(stretch.items is not None for watch in watches for stretch in watch.stretches[1:]) >= 10
    assert {f"its disk {fault}" for fault in FAULTS} & set(told)
    assert sum(operation.outcome == LOST for history in histories for operation in history.operations) > 10
