"""The informer over a small API server in memory, under virtual time."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.api import FakeApi

from k3s.api import errors
from k3s.api.errors import OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.base.aio import Tasks
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.client.local import LocalTransport
from k3s.sim.loop import run

CONFIG_MAP = builtin("v1", "ConfigMap")


class Bench:
    """An informer that runs, its API server, and what its subscriber was told."""

    def __init__(self, labels: str = "") -> None:
        self.api = FakeApi()
        self.tasks = Tasks("test")
        self.told: list[tuple[str, str, str]] = []
        self.ready = asyncio.Event()
        client = Client(LocalTransport(self.api))
        self.informer = Informer(
            client, CONFIG_MAP, namespace="default", labels=labels, clock=LoopClock(0), entropy=SeededEntropy(1)
        )
        self.informer.subscribe(self._tell)

    def _tell(self, key, old, new):
        assert self.informer.get(key) is new
        self.told.append((key, *((obj or {}).get("data", {}).get("x", "-") for obj in (old, new))))

    def start(self) -> None:
        self.tasks.spawn(self.informer.run(self.ready.set), "informer")


@pytest.fixture(params=range(3))
def check(request):
    """Runs `body(bench)` under a virtual clock, with a few seeds."""

    def go(body, **arguments):
        async def main() -> None:
            bench = Bench(**arguments)
            await body(bench)
            await bench.tasks.close()

        run(request.param, main())

    return go


def test_it_lists_and_follows(check):
    async def body(bench):
        bench.api.apply("a", {"x": "1"})
        bench.start()
        await bench.ready.wait()
        assert bench.informer.synced
        assert bench.informer.get("default/a")["kind"] == "ConfigMap"
        bench.api.apply("a", {"x": "2"})
        bench.api.apply("b", {"x": "1"})
        bench.api.remove("a")
        await bench.informer.wait_seen(bench.api.revision)
        assert list(bench.informer.objects) == ["default/b"]
        assert bench.told == [
            ("default/a", "-", "1"),
            ("default/a", "1", "2"),
            ("default/b", "-", "1"),
            ("default/a", "2", "-"),
        ]

    check(body)


def test_a_watch_that_ends_is_resumed_without_a_list(check):
    async def body(bench):
        bench.start()
        await bench.ready.wait()
        for number in range(5):
            bench.api.end_watches()
            await asyncio.sleep(60)
            bench.api.apply(f"n-{number}")
            await bench.informer.wait_seen(bench.api.revision)
        assert bench.api.lists == 1
        assert len(bench.informer.objects) == 5

    check(body)


def test_after_expiry_only_the_differences_are_told(check):
    async def body(bench):
        for name in ("same", "changed", "gone"):
            bench.api.apply(name, {"x": "1"})
        bench.start()
        await bench.ready.wait()
        same = bench.informer.get("default/same")
        bench.told.clear()
        bench.api.refuse = [errors.ServiceUnavailable("down")] * 4
        bench.api.end_watches()
        await bench.api.asked(4)  # a list, a watch and two refused tries of another
        bench.api.apply("changed", {"x": "2"})
        bench.api.remove("gone")
        bench.api.apply("new", {"x": "1"})
        bench.api.compact()
        await bench.informer.wait_seen(bench.api.revision)
        assert bench.told == [
            ("default/gone", "1", "-"),
            ("default/changed", "1", "2"),
            ("default/new", "-", "1"),
        ]
        assert bench.informer.get("default/same") is same
        assert bench.api.lists == 2

    check(body)


def test_one_bad_object_does_not_end_it(check, caplog):
    """A subscriber and an index that fail on one object are told in the log; the picture and the others stay true."""

    def broken(key, old, new):
        raise KeyError(key)

    async def body(bench):
        later: list[str] = []
        bench.informer.add_index("x", lambda obj: [obj["data"]["x"]])
        bench.informer.subscribe(broken)
        bench.informer.subscribe(lambda key, old, new: later.append(key))
        bench.api.apply("good", {"x": "1"})
        bench.start()
        await bench.ready.wait()
        bench.api.apply("bad")
        bench.api.apply("other", {"x": "1"})
        bench.api.remove("bad")
        await bench.informer.wait_seen(bench.api.revision)
        assert later == ["default/good", "default/bad", "default/other", "default/bad"]
        assert [obj["metadata"]["name"] for obj in bench.informer.index("x", "1")] == ["good", "other"]
        assert "Cannot index configmaps default/bad" in caplog.text
        assert "Cannot tell a change of configmaps default/good" in caplog.text

    check(body)


def test_bookmarks_move_seen_on_a_quiet_kind(check):
    async def body(bench):
        bench.start()
        await bench.ready.wait()
        bench.api.revision = 500
        bench.api.bookmark()
        await bench.informer.wait_seen(500)
        assert bench.informer.seen == 500
        bench.api.compact()
        bench.api.oldest = 400
        bench.api.end_watches()
        await asyncio.sleep(60)
        bench.api.apply("a")
        await bench.informer.wait_seen(bench.api.revision)
        assert bench.api.lists == 1

    check(body)


def test_failures_are_tried_again_ever_more_slowly(check):
    """Ten refusals take more than half a minute of back-off and less than three."""

    async def body(bench):
        bench.api.refuse = [errors.ServiceUnavailable("down"), OutcomeUnknown("lost")] * 5
        bench.start()
        await bench.ready.wait()
        assert 30 < asyncio.get_running_loop().time() < 200

    check(body)


def test_a_server_that_ends_every_watch_at_once_is_not_stormed(check):
    async def body(bench):
        async def ends_at_once(request):
            bench.api.requests.append(request)
            return
            yield

        bench.api.watch = ends_at_once
        bench.start()
        await asyncio.sleep(60)
        assert len(bench.api.requests) < 20

    check(body)


def test_the_servers_own_pause_is_kept(check):
    async def body(bench):
        bench.api.refuse = [errors.TooManyRequests("slow down", retry_after_s=50)]
        bench.start()
        await bench.ready.wait()
        assert asyncio.get_running_loop().time() >= 50

    check(body)


def test_indexes_follow_objects(check):
    async def body(bench):
        informer = bench.informer
        informer.add_index("app", lambda obj: [obj["metadata"].get("labels", {}).get("app", "none")])
        bench.start()
        await bench.ready.wait()
        bench.api.apply("a", app="web")
        bench.api.apply("b", app="web")
        await informer.wait_seen(bench.api.revision)
        assert [obj["metadata"]["name"] for obj in informer.index("app", "web")] == ["a", "b"]
        bench.api.apply("a", app="db")
        bench.api.remove("b")
        await informer.wait_seen(bench.api.revision)
        assert informer.index("app", "web") == []
        assert [obj["metadata"]["name"] for obj in informer.index("app", "db")] == ["a"]
        informer.add_index("late", lambda obj: obj["metadata"]["labels"])
        assert len(informer.index("late", "app")) == 1

    check(body)


def test_waiting_for_what_was_seen_does_not_wait(check):
    async def body(bench):
        bench.start()
        await bench.ready.wait()
        await bench.informer.wait_seen(100)
        waiting = [asyncio.wait_for(bench.informer.wait_seen(n), 10) for n in (103, 101, 102)]
        bench.tasks.spawn(asyncio.sleep(1), "pause")
        for number in range(3):
            bench.api.apply(f"n-{number}")
        await asyncio.gather(*waiting)

    check(body)
