"""How events reach a log file or a webhook, by mode; time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from k3s.api.object import Object
from k3s.apiserver.audit.backends import Backend, Failed
from k3s.apiserver.audit.delivery import Batching, Delivery, Truncation, fitted, parts
from k3s.sim.loop import run


class Shelf:
    """A place that keeps batches with the time at which they came; slow, full or broken on demand."""

    name = "shelf"

    def __init__(self, *, at_once: bool = False) -> None:
        self.got: list[tuple[float, list[Any]]] = []
        self.at_once = at_once
        self.takes_s = 0.0
        self.broken = False
        self.hurried = self.closed = False

    def open(self) -> None:
        pass

    def hurry(self) -> None:
        self.hurried = True
        self.takes_s = 0.0

    def write(self, events: Sequence[Object]) -> Awaitable[None] | None:
        if not self.at_once:
            return self._later(events)
        if self.broken:
            raise Failed("it is broken")
        self._keep(events)
        return None

    def _keep(self, events: Sequence[Object]) -> None:
        self.got.append((asyncio.get_running_loop().time(), [event["n"] for event in events]))

    async def _later(self, events: Sequence[Object]) -> None:
        await asyncio.sleep(self.takes_s)
        if self.broken:
            raise Failed("it is broken")
        self._keep(events)

    async def close(self) -> None:
        self.closed = True


class Losses(list[tuple[str, int, str]]):
    """What was lost."""

    def __call__(self, plugin: str, count: int, why: str) -> None:
        self.append((plugin, count, why))


def event(number: int, **more: Any) -> Object:
    return {"n": number, "level": "Metadata", **more}


def batched(shelf: Shelf, losses: Losses, **more: Any) -> Backend:
    made = Backend(shelf, Delivery("batch", Batching(**more)), losses)
    made.start()
    return made


def test_batches_go_when_full_or_old() -> None:
    """At the latest after the wait, at once when there are enough; what waits at the end goes too, once."""

    async def body() -> None:
        shelf, losses = Shelf(), Losses()
        backend = batched(shelf, losses, size=3, wait_s=30.0)
        for number in range(7):
            assert backend.put(event(number)) is True
        await asyncio.sleep(1)
        assert shelf.got == [(0.0, [0, 1, 2]), (0.0, [3, 4, 5])]
        await asyncio.sleep(30)
        assert shelf.got[2:] == [(30.0, [6])]
        backend.put(event(7))
        await backend.close()
        assert shelf.got[3][1] == [7] and shelf.closed and shelf.hurried and losses == []

    run(1, body())


def test_what_finds_no_room_or_no_taker_is_lost() -> None:
    """A full buffer loses the newest; a batch that is not taken is lost as a whole; both are told."""

    async def body() -> None:
        shelf, losses = Shelf(), Losses()
        backend = batched(shelf, losses, size=2, wait_s=30.0, buffer=3)
        shelf.takes_s = 10.0
        backend.put(event(0))
        backend.put(event(1))
        await asyncio.sleep(1)  # the first batch is on its way
        for number in range(2, 6):
            backend.put(event(number))
        assert losses == [("buffered", 1, "audit buffer queue blocked")]
        shelf.broken = True
        await asyncio.sleep(60)
        assert losses[1:] == [("shelf", 2, "it is broken"), ("shelf", 2, "it is broken"), ("shelf", 1, "it is broken")]
        await backend.close()

    run(1, body())


def test_a_batch_under_way_at_the_end_goes_again() -> None:
    """Twice is better than never."""

    async def body() -> None:
        shelf, losses = Shelf(), Losses()
        backend = batched(shelf, losses, size=2)
        shelf.takes_s = 1000.0
        for number in range(3):
            backend.put(event(number))
        await asyncio.sleep(1)
        await backend.close()
        assert [batch for _, batch in shelf.got] == [[0, 1], [2]] and losses == []

    run(1, body())


def test_batches_are_throttled() -> None:
    """A burst at once, then so many a second."""

    async def body() -> None:
        shelf = Shelf()
        backend = batched(shelf, Losses(), size=1, wait_s=0.0, qps=2.0, burst=3)
        for number in range(7):
            backend.put(event(number))
        await asyncio.sleep(10)
        assert [at for at, _ in shelf.got] == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5, 2.0])
        for number in range(4):
            backend.put(event(number))
        await asyncio.sleep(10)
        assert [at for at, _ in shelf.got[7:]] == pytest.approx([10, 10, 10, 10.5])
        await backend.close()

    run(1, body())


@pytest.mark.parametrize("mode", ["blocking", "blocking-strict"])
def test_who_waits_learns_whether_it_arrived(mode: str) -> None:
    """Of a place that answers later by a task, of one that answers at once by the answer."""

    async def body() -> None:
        shelf, losses = Shelf(), Losses()
        backend = Backend(shelf, Delivery(mode), losses)
        backend.start()
        assert backend.strict is (mode == "blocking-strict")
        shelf.takes_s = 2.0
        first = backend.put(event(0))
        assert isinstance(first, asyncio.Task) and await first is True and shelf.got == [(2.0, [0])]
        shelf.broken = True
        second = backend.put(event(1))
        assert isinstance(second, asyncio.Task) and await second is False
        assert losses == [("shelf", 1, "it is broken")]
        shelf.broken = False
        backend.put(event(2))
        await asyncio.sleep(0)
        await backend.close()
        assert shelf.got[1:] == [(4.0, [2])]
        quick = Shelf(at_once=True)
        backend = Backend(quick, Delivery(mode), losses)
        assert backend.put(event(3)) is True
        quick.broken = True
        assert backend.put(event(4)) is False and len(losses) == 2

    run(1, body())


BIG = {"requestObject": {"x": "y" * 200}, "responseObject": {"x": "y" * 200}}


def test_large_events_lose_their_bodies() -> None:
    """At the levels that have them; what is too large even so is dropped, as upstream does it."""
    limits = Truncation(event=150, batch=1000)
    small = event(1, annotations={"a": "b"})
    assert fitted(small, limits) is small
    whole = event(2, **BIG) | {"level": "RequestResponse", "annotations": {"a": "b"}}
    kept = {"n": 2, "level": "RequestResponse", "annotations": {"a": "b", "audit.k8s.io/truncated": "true"}}
    assert fitted(whole, limits) == kept and "audit.k8s.io/truncated" not in whole["annotations"]
    assert fitted(event(3, userAgent="z" * 200), limits) is None
    assert fitted(event(4, userAgent="z" * 200) | {"level": "Request"}, limits) is None

    async def body() -> None:
        shelf, losses = Shelf(at_once=True), Losses()
        backend = Backend(shelf, Delivery("blocking-strict", truncation=limits), losses)
        assert backend.put(whole) is True and backend.put(event(3, userAgent="z" * 200)) is True
        assert [batch for _, batch in shelf.got] == [[2]]
        assert losses == [("truncate", 1, "event is too large even after truncating")]

    run(1, body())


def test_large_batches_are_split() -> None:
    """By the bytes of their events, in order."""
    events = [event(number, x="y" * 60) for number in range(5)]
    assert parts(events, None) == [events]
    assert [len(part) for part in parts(events, Truncation(event=150, batch=200))] == [2, 2, 1]
    assert [len(part) for part in parts(events, Truncation(event=150, batch=150))] == [1, 1, 1, 1, 1]
