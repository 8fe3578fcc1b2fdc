"""The proxy under virtual time: when it is ready, what it applies, what it does when the kernel refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.fakes.objects import Objects, informers

from k3s.api.kinds import builtin
from k3s.base.aio import Tasks
from k3s.netfilter.fake import FakeFilter
from k3s.netfilter.ruleset import DROP, Chain, Table
from k3s.netfilter.trace import Machine, Packet, follow
from k3s.proxy.fake import FakeConnections
from k3s.proxy.flows import Flow
from k3s.proxy.ports import Node
from k3s.proxy.service import Proxy, uninstall
from k3s.sim.loop import run as simulate

SERVICE = builtin("v1", "Service")
SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
NODE = Node("node-1", ("10.42.0.0/16",))


class Bench:
    """Objects, the proxy's surroundings, and whether it said that it is ready."""

    def __init__(self, objects: Objects, packets: FakeFilter, connections: FakeConnections) -> None:
        self.objects, self.packets, self.connections = objects, packets, connections
        self.ready = asyncio.Event()

    async def put(self, name: str, *endpoints: str, protocol: str = "TCP") -> None:
        """A service with endpoints, the slice first."""
        meta = {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": name}}
        port = {"name": "p", "port": 80, "protocol": protocol}
        await self.objects.put(
            SLICE,
            {
                "metadata": meta,
                "addressType": "IPv4",
                "ports": [{**port, "port": 8080}],
                "endpoints": [{"addresses": [each]} for each in endpoints],
            },
        )
        await self.objects.put(SERVICE, {"metadata": meta, "spec": {"clusterIP": "10.43.0.20", "ports": [port]}})

    def way(self) -> set[str]:
        """Where packets to the service end: endpoints, or the verdict."""
        outcomes = follow(self.packets.ruleset, Packet("10.42.0.9", "10.43.0.20", 80), Machine())
        return {each.destination if each.verdict == "accept" else each.verdict for each in outcomes}


@asynccontextmanager
async def running(packets: FakeFilter | None = None) -> AsyncIterator[Bench]:
    """A proxy; it is started, but not waited for."""
    bench = Bench(Objects(), packets or FakeFilter(), FakeConnections())
    await bench.put("web", "10.42.0.5")
    tasks = Tasks("test")
    async with informers(bench.objects, SERVICE, SLICE) as sources:
        proxy = Proxy(*sources, NODE, bench.packets, bench.connections)
        tasks.spawn(proxy.run(bench.ready.set), "proxy")
        try:
            yield bench
        finally:
            await tasks.close()


@pytest.fixture
def virtual() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine under virtual time."""
    return lambda coro: simulate(1, coro)


def test_ready_means_rules_are_there(virtual: Any) -> None:
    """Services that exist at the start work once ready, and stay when the proxy ends, until it is uninstalled."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            assert bench.way() == {"10.42.0.5"}
        assert bench.way() == {"10.42.0.5"}
        await uninstall(bench.packets)
        assert bench.way() == {"10.43.0.20"}

    virtual(scenario())


def test_one_odd_service_does_not_stop_the_others(virtual: Any) -> None:
    """A slice whose port is no port, and one of which no rules can be made, leave the other services changing."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            meta = {"namespace": "ns", "name": "odd", "labels": {"kubernetes.io/service-name": "odd"}}
            await bench.objects.put(
                SERVICE, {"metadata": meta, "spec": {"clusterIP": "10.43.0.21", "ports": [{"port": 80}]}}
            )
            ports = [{"port": 99999}, {"port": -1}, {"port": 80}]
            good = {
                "metadata": meta,
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [{"addresses": ["10.42.0.8"]}],
            }
            await bench.objects.put(SLICE, good)
            await asyncio.sleep(2)
            outcomes = follow(bench.packets.ruleset, Packet("10.42.0.9", "10.43.0.21", 80), Machine())
            assert {(each.destination, each.port) for each in outcomes} == {("10.42.0.8", 80)}
            await bench.objects.put(SLICE, {**good, "endpoints": [{"addresses": ["no address"]}]})
            await bench.put("web", "10.42.0.6")
            await asyncio.sleep(2)
            assert bench.way() == {"10.42.0.6"}

    virtual(scenario())


def test_a_cluster_address_stays_with_its_service(virtual: Any) -> None:
    """A service that names another one's cluster address as an external address of its own gets none of its traffic."""

    async def scenario() -> None:
        async with running() as bench:
            meta = {"namespace": "evil", "name": "z", "labels": {"kubernetes.io/service-name": "z"}}
            spec = {"clusterIP": "10.43.0.66", "externalIPs": ["10.43.0.20"], "ports": [{"name": "p", "port": 80}]}
            ends = [{"addresses": ["10.42.6.6"]}]
            ports = [{"name": "p", "port": 80}]
            await bench.objects.put(SLICE, {"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": ends})
            await bench.objects.put(SERVICE, {"metadata": meta, "spec": spec})
            await bench.ready.wait()
            assert bench.way() == {"10.42.0.5"}
            await bench.put("web")
            await asyncio.sleep(2)
            assert bench.way() == {"reject"}

    virtual(scenario())


def test_many_changes_are_one_transaction(virtual: Any) -> None:
    """A burst is applied once it is over; a change without meaning not at all."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            await asyncio.sleep(1)
            for number in range(10):
                await bench.put("web", "10.42.0.5", f"10.42.0.{number + 10}")
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            assert bench.way() == {"10.42.0.5", "10.42.0.19"}
            assert bench.packets.applied == 2
            await bench.put("web", "10.42.0.19", "10.42.0.5")
            await asyncio.sleep(1)
            assert bench.packets.applied == 2
            await bench.objects.drop(SERVICE, "ns/web")
            await asyncio.sleep(1)
            assert bench.way() == {"10.43.0.20"}

    virtual(scenario())


def test_a_change_never_waits_long(virtual: Any) -> None:
    """Without a moment of quiet rules are applied after a second anyway."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            for number in range(150):
                await bench.put("web", f"10.42.1.{number}")
                await asyncio.sleep(0.01)
            assert bench.packets.applied == 2

    virtual(scenario())


def test_rules_of_an_earlier_run_are_taken_over(virtual: Any) -> None:
    """A restart with the same services changes nothing in the kernel; what is foreign in our table goes."""

    async def scenario() -> None:
        async with running() as first:
            await first.ready.wait()
        async with running(first.packets) as second:
            await second.ready.wait()
            assert second.packets.applied == 1
        foreign = FakeFilter()
        await foreign.apply((), (Table("ip", "k3s", {"foreign": Chain(((DROP,),))}),))
        async with running(foreign) as third:
            await third.ready.wait()
            assert "foreign" not in third.packets.ruleset[0].chains

    virtual(scenario())


def test_rules_that_somebody_removed_come_back(virtual: Any) -> None:
    """At once, without a change of any service."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            await bench.packets.delete("ip", "k3s")
            assert bench.way() == {"10.43.0.20"}
            await asyncio.sleep(1)
            assert bench.way() == {"10.42.0.5"}

    virtual(scenario())


def test_stale_udp_flows_are_forgotten(virtual: Any) -> None:
    """After the rules changed; TCP services cost no look at the connections."""

    async def scenario() -> None:
        async with running() as bench:
            await bench.ready.wait()
            await bench.put("web", "10.42.0.6")
            await asyncio.sleep(1)
            assert bench.connections.listed == 0
            good, old = (Flow("ip", "10.43.0.20", 80, each) for each in ("10.42.0.6", "10.42.0.5"))
            bench.connections.flows = {good, old}
            await bench.put("web", "10.42.0.6", protocol="UDP")
            await asyncio.sleep(1)
            assert bench.connections.flows == {good}
            await bench.objects.drop(SERVICE, "ns/web")
            await asyncio.sleep(1)
            assert bench.connections.flows == set()

    virtual(scenario())
