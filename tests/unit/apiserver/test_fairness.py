"""Priority and fairness at a server's door: over real sockets, with the objects of the cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.server import ADMIN, Caller, serving

from k3s.api.kinds import builtin
from k3s.apiserver.fairness import Fairness, seated
from k3s.apiserver.flows import LEVEL, SCHEMA, Flow
from k3s.apiserver.request import parse
from k3s.apiserver.seats import Plan, Seating
from k3s.base.clock import LoopClock, SystemClock
from k3s.base.metrics import Registry
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.sim.loop import run as simulate

BINDING = builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
QUEUING = {"queues": 1, "handSize": 1, "queueLengthLimit": 1}
DEMAND = ("high_watermark", "average", "stdev", "smoothed")
DUMPS = "/debug/api_priority_and_fairness/dump_"


def narrow(response: dict[str, Any]) -> dict[str, Any]:
    """A level without a seat."""
    limited = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": response}
    return {"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": limited}}


async def narrowed(client: Client, response: dict[str, Any]) -> None:
    """All requests of ali, who may do everything, are from now on of a level that has no seat at all."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    await client.create(BINDING, {"metadata": {"name": "alice"}, "roleRef": role, "subjects": [subject]})
    await client.create(LEVEL, narrow(response))
    resource = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    rule = {"subjects": [{"kind": "User", "user": {"name": "alice"}}], "resourceRules": [resource]}
    spec = {
        "priorityLevelConfiguration": {"name": "narrow"},
        "matchingPrecedence": 3,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [rule],
    }
    await client.create(SCHEMA, {"metadata": {"name": "narrow"}, "spec": spec})


def named(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


async def shown(port: int, path: str) -> str:
    """What administrators read at a path."""
    caller = Caller(port)
    await caller.send("GET", path)
    return (await caller.answer())[2].decode()


async def until(port: int, path: str, wanted: str) -> str:
    """Asks until a text is there."""
    async with asyncio.timeout(5):
        while wanted not in (text := await shown(port, path)):
            pass
    return text


def test_who_finds_no_seat_waits_until_there_is_one_and_others_are_sent_away(run) -> None:  # type: ignore[no-untyped-def]
    """Reads that the cache answers need none; the dumps and the figures tell; a changed level counts at once."""

    async def body() -> None:
        async with serving() as server:
            port, client = server.ports[0], Client(LocalTransport(server.handler(ADMIN)))
            await narrowed(client, {"type": "Queue", "queuing": QUEUING})
            first, second, reader = Caller(port, "ali"), Caller(port, "ali"), Caller(port, "ali")
            await first.send("POST", "/api/v1/namespaces/default/configmaps", named("a"))
            row = ["narrow,", "1,", "false,", "false,", "1,", "0"]
            levels = await until(port, f"{DUMPS}priority_levels", f"narrow,{' ' * 12}1,")
            assert row in [line.split() for line in levels.splitlines()]
            assert levels.startswith("PriorityLevelName, ActiveQueues, IsIdle, ")
            queues = [line.split() for line in (await shown(port, f"{DUMPS}queues")).splitlines()]
            zero, one = "0.00000000ss,", ["1,", "1,", "0.00300000ss"]
            assert ["narrow,", "0,", "1,", "0,", "0,", zero, *one] in queues
            requests = await shown(port, f"{DUMPS}requests?includeRequestDetails=1")
            told = [cell.strip() for cell in requests.splitlines()[1].split(",")]
            assert told[:5] == ["narrow", "narrow", "0", "0", "alice"] and told[6:9] == ["1", "0", "0s"]
            path = "/api/v1/namespaces/default/configmaps"
            assert told[9:] == ["alice", "create", path, "default", "", "v1", "configmaps", ""]

            await second.send("POST", path, named("b"))
            status, headers, text = await second.answer()
            assert (status, headers["retry-after"]) == (429, "1")
            assert text == b"Too many requests, please try again later.\n"
            assert (await reader.call("GET", path))[0] == 200
            labels = 'priority_level="narrow",flow_schema="narrow"'
            metrics = await shown(port, "/metrics")
            assert f'rejected_requests_total{{{labels},reason="queue-full"}} 1\n' in metrics
            assert f"current_inqueue_requests{{{labels}}} 1\n" in metrics
            assert 'nominal_limit_seats{priority_level="workload-low"} 245\n' in metrics
            assert 'lower_limit_seats{priority_level="workload-low"} 24\n' in metrics
            assert 'upper_limit_seats{priority_level="workload-low"} 845\n' in metrics
            assert 'upper_limit_seats{priority_level="exempt"} 600\n' in metrics

            limited = {"spec": {"limited": {"borrowingLimitPercent": None, "nominalConcurrencyShares": 5}}}
            await client.patch(LEVEL, "", "narrow", limited)
            await reader.call("GET", path)
            assert (await first.answer())[0] == 201
            metrics = await shown(port, "/metrics")
            assert f"dispatched_requests_total{{{labels}}} 1\n" in metrics
            assert f'request_wait_duration_seconds_count{{{labels},execute="true"}} 1\n' in metrics
            assert f"current_executing_requests{{{labels}}} 0\n" in metrics
            assert f'request_execution_seconds_count{{{labels},type="regular"}} 1\n' in metrics
            assert f"request_queue_length_after_enqueue_sum{{{labels}}} 1\n" in metrics
            assert f"work_estimated_seats_sum{{{labels}}} 2\n" in metrics
            for name in ("target_seats", "current_limit_seats", *(f"demand_seats_{each}" for each in DEMAND)):
                assert f'apiserver_flowcontrol_{name}{{priority_level="narrow"}} ' in metrics
            assert "apiserver_flowcontrol_seat_fair_frac " in metrics

    run(body())


@pytest.mark.parametrize(("config", "query"), [({"request_s": 0.2}, ""), ({}, "?timeout=200ms")])
def test_nobody_waits_longer_than_a_quarter_of_the_time(run, config: dict[str, Any], query: str) -> None:  # type: ignore[no-untyped-def]
    async def body() -> None:
        async with serving(config=config) as server:
            port, client = server.ports[0], Client(LocalTransport(server.handler(ADMIN)))
            await narrowed(client, {"type": "Queue", "queuing": QUEUING})
            assert (await _status(Caller(port, "ali"), query))[0] == 429
            metrics = await shown(port, "/metrics")
            labels = 'priority_level="narrow",flow_schema="narrow"'
            assert f'rejected_requests_total{{{labels},reason="time-out"}} 1\n' in metrics
            assert f'request_wait_duration_seconds_count{{{labels},execute="false"}} 1\n' in metrics
            assert f"current_inqueue_requests{{{labels}}} 0\n" in metrics

    run(body())


def test_a_level_that_rejects_does_so_at_once(run) -> None:  # type: ignore[no-untyped-def]
    async def body() -> None:
        async with serving() as server:
            port, client = server.ports[0], Client(LocalTransport(server.handler(ADMIN)))
            await narrowed(client, {"type": "Reject"})
            assert (await _status(Caller(port, "ali")))[0] == 429
            assert 'reason="concurrency-limit"} 1\n' in await shown(port, "/metrics")
            assert (await _status(Caller(port)))[0] == 201

    run(body())


def test_who_is_cancelled_leaves_its_queue_or_its_seat(run) -> None:  # type: ignore[no-untyped-def]
    """Also in the turn in which it was its turn."""

    async def body() -> None:
        seating = Seating(1)
        seating.configure([Plan("one", False, 1, 0, 0, 1, 1, 5)], 0.0)
        level = seating.levels["one"]
        flow, asked = Flow({"spec": {}}, {}, b"", level.tally("s")), parse("POST", "/api/v1/namespaces/a/pods")
        fairness = Fairness(seating, Registry(), lambda _: 0, SystemClock(), 60.0)
        seat = fairness.enter(flow, asked)
        assert seat is not None and fairness.enter(flow, asked) is None
        first, second, third = (asyncio.ensure_future(fairness.wait(flow, None, asked, None)) for _ in range(3))
        await asyncio.sleep(0)
        assert level.waiting == 3
        first.cancel()
        assert await asyncio.gather(first, return_exceptions=True) and (level.waiting, level.used) == (2, 1)
        seat.leave(0.0)
        second.cancel()
        ticket = await third
        assert second.cancelled() and ticket is not None and (level.waiting, level.used) == (0, 1)
        ticket.leave(0.0)
        assert level.idle and level.used == 0

    run(body())


@pytest.mark.parametrize(
    ("method", "target", "width"),
    [
        ("GET", "/api/v1/pods", 5),
        ("GET", "/api/v1/pods?watch=1", 1),
        ("GET", "/api/v1/pods?watch=1&sendInitialEvents=true", 5),
        ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", 1),
        ("GET", "/api/v1/namespaces/a/pods/b", 1),
        ("DELETE", "/api/v1/namespaces/a/pods", 1),
    ],
)
def test_lists_take_a_seat_for_each_hundred_objects(method: str, target: str, width: int) -> None:
    """At most ten, and a seventh of the level."""
    seating = Seating(100)
    seating.configure([Plan("one", False, 1, 0, 0, 1, 1, 1)], 0.0)
    tally = seating.levels["one"].tally("s")
    flow, asked = Flow({}, {}, b"", tally), parse(method, target)
    fairness = Fairness(seating, Registry(), lambda _: 401, SystemClock(), 60.0)
    seat = fairness.enter(flow, asked)
    assert seat is not None and tally.level.used == width
    seat.leave(0.0)
    assert tally.level.used == 0
    many = Fairness(seating, Registry(), lambda _: 100_000, SystemClock(), 60.0)
    assert many.enter(flow, parse("GET", "/api/v1/pods")) is not None and tally.level.used == 10
    seating.configure([Plan("one", False, 1, 0, 0, 1, 1, 1), Plan("two", False, 4, 0, 0, 1, 1, 1)], 0.0)
    assert (tally.level.nominal, tally.level.widest(10)) == (20, 3)


@pytest.mark.parametrize(
    ("target", "seat"),
    [
        ("/api/v1/pods?watch=1", True),
        ("/api/v1/pods", True),
        ("/api/v1/namespaces/a/pods/b/log", False),
        ("/api/v1/nodes/a/proxy/b", False),
    ],
)
def test_what_lasts_takes_no_seat_but_watches_do_until_they_have_begun(target: str, seat: bool) -> None:
    assert seated(parse("GET", target)) is seat


async def _status(caller: Caller, query: str = "") -> tuple[int, bytes]:
    await caller.send("POST", f"/api/v1/namespaces/default/configmaps{query}", named("c"))
    status, _, text = await caller.answer()
    return status, text


def test_who_waits_gets_the_seats_of_the_next_period_though_nobody_comes_or_goes() -> None:
    """In virtual time. While nobody waits no timer runs; that there was one is known by the time that has passed."""

    async def body() -> None:
        clock = LoopClock(0.0)
        seating = Seating(8)
        lender, free = Plan("lender", False, 1, 50, 0, 8, 1, 50), Plan("free", False, 1, 0, None, 8, 1, 50)
        seating.configure([lender, free], clock.monotonic())
        tally = seating.levels["free"].tally("s")
        flow, asked = Flow({"spec": {}}, {}, b"", tally), parse("POST", "/api/v1/namespaces/a/pods")
        registry = Registry()
        fairness = Fairness(seating, registry, lambda _: 0, clock, 400.0)
        began = clock.monotonic()
        seats = [seat for seat in (fairness.enter(flow, asked) for _ in range(6)) if seat is not None]
        assert len(seats) == 5
        ticket = await fairness.wait(flow, None, asked, None)
        assert ticket is not None and clock.monotonic() == began + 10.0
        fairness.measure()
        text = registry.text()
        assert 'apiserver_flowcontrol_demand_seats_high_watermark{priority_level="free"} 6\n' in text
        assert 'apiserver_flowcontrol_current_limit_seats{priority_level="free"} 6\n' in text
        assert 'apiserver_flowcontrol_demand_seats_count{priority_level="free"} 10000000000\n' in text
        for seat in (*seats, ticket):
            fairness.leave(seat, "create", began)
        await asyncio.sleep(60.0)
        assert seating.due == began + 20.0
        fairness.measure()
        assert 'demand_seats_high_watermark{priority_level="free"} 0\n' in registry.text()

    simulate(1, body())
