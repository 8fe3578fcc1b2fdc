"""The pods that wait for a node: active, backing off, or unschedulable until something changes. Pure.

Order: priority, then time of entry. Back-off: 1 s doubling to 10 s. An unschedulable pod is tried again when the
cluster changed in a way that may help, at the latest after five minutes (facts: scheduler, queue). A change of a node
does not wait for the back-off: there is nothing better to do meanwhile (KEP-5142), and nodes change rarely.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

_FIRST_BACKOFF_S = 1.0
_LAST_BACKOFF_S = 10.0
_UNSCHEDULABLE_S = 300.0
# Wrong entries that the heap of times may hold besides as many as there are pods.
_STALE = 1000


@dataclass(slots=True)
class _Waiting:
    key: str
    priority: int
    entered: int
    attempts: int = 0
    backoff_until: float = 0.0
    parked_until: float = 0.0
    parked: bool = False
    failed: bool = False
    queued: bool = False

    @property
    def due(self) -> float:
        """When it is tried again without any event."""
        return self.parked_until if self.parked else self.backoff_until


class Queue:
    """Keys of pods; times are in seconds of a clock that never goes back.

    What can be tried now is in one heap by order, what has to wait in another by time; entries that have become wrong
    stay there until they come up.
    """

    def __init__(self) -> None:
        self._pods: dict[str, _Waiting] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._times: list[tuple[float, str]] = []
        self._entered = 0
        self._moves = 0

    def __len__(self) -> int:
        return len(self._pods)

    @property
    def moves(self) -> int:
        """Grows with each change of the cluster that may help a parked pod: see `park`."""
        return self._moves

    def add(self, key: str, priority: int) -> None:
        """A pod wants a node, or its spec changed: it is tried at once."""
        self._entered += 1
        old = self._pods.get(key)
        waiting = _Waiting(key, priority, old.entered if old else self._entered, old.attempts if old else 0)
        waiting.queued = old is not None and old.queued and old.priority == priority
        self._pods[key] = waiting
        self._push(waiting)

    def remove(self, key: str) -> None:
        """The pod is bound or gone."""
        self._pods.pop(key, None)

    def park(self, key: str, now: float, seen_moves: int) -> None:
        """The pod did not fit; `seen_moves` is what `moves` was when it was tried: a newer change means try again."""
        waiting = self._pods.get(key)
        if waiting is None:
            return
        waiting.attempts += 1
        waiting.backoff_until = now + min(_FIRST_BACKOFF_S * 2 ** (waiting.attempts - 1), _LAST_BACKOFF_S)
        waiting.parked_until = now + _UNSCHEDULABLE_S
        waiting.parked, waiting.failed = seen_moves == self._moves, False
        self._wait(waiting)

    def retry(self, key: str, now: float) -> None:
        """The attempt failed for a reason that passes: it is tried again after its back-off."""
        self.park(key, now, -1)
        if key in self._pods:
            self._pods[key].failed = True

    def move_all(self, at_once: bool = False) -> None:
        """The cluster changed in a way that may help: every parked pod is tried again after its back-off.

        With `at_once` no unschedulable pod waits for it; those whose attempt failed still do.
        """
        self._moves += 1
        for waiting in self._pods.values():
            if at_once and not waiting.failed:
                waiting.parked, waiting.backoff_until = False, 0.0
                self._push(waiting)
            elif waiting.parked:
                waiting.parked = False
                self._wait(waiting)

    def pop(self, now: float) -> str | None:
        """The next pod to try, None when none is due."""
        while self._times and self._times[0][0] <= now:
            due, key = heapq.heappop(self._times)
            waiting = self._pods.get(key)
            if waiting is not None and waiting.due == due:
                waiting.parked = False
                self._push(waiting)
        while self._heap:
            item = heapq.heappop(self._heap)
            waiting = self._pods.get(item[2])
            if waiting is None or (-waiting.priority, waiting.entered) != item[:2]:
                continue
            waiting.queued = False
            if not waiting.parked and waiting.backoff_until <= now:
                return item[2]
        return None

    def next_due(self, now: float) -> float | None:
        """Seconds until a pod becomes due without any event; None when none ever does."""
        if self._heap:
            return 0.0
        while self._times:
            due, key = self._times[0]
            waiting = self._pods.get(key)
            if waiting is not None and waiting.due == due:
                return max(0.0, due - now)
            heapq.heappop(self._times)
        return None

    def _wait(self, waiting: _Waiting) -> None:
        """Lets a pod come up when its time has come."""
        if len(self._times) > 2 * len(self._pods) + _STALE:
            self._times = [(pod.due, pod.key) for pod in self._pods.values() if pod is not waiting]
            heapq.heapify(self._times)
        heapq.heappush(self._times, (waiting.due, waiting.key))

    def _push(self, waiting: _Waiting) -> None:
        if waiting.queued:
            return
        waiting.queued = True
        heapq.heappush(self._heap, (-waiting.priority, waiting.entered, waiting.key))
