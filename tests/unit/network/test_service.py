"""The node's network under virtual time: what it waits for, what it writes, and that it stays current."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.objects import Objects, informers

from k3s.api.kinds import builtin
from k3s.base.aio import Tasks
from k3s.netfilter.fake import FakeFilter
from k3s.netfilter.interface import FilterError
from k3s.netfilter.ruleset import Ruleset
from k3s.network.fake import FakeHost
from k3s.network.plan import Config, Route
from k3s.network.service import Network, uninstall
from k3s.sim.loop import run as simulate

NODE = builtin("v1", "Node")
CIDRS = ("10.42.0.0/16",)


def node(number: int, cidr: str = "") -> dict[str, Any]:
    """A node, with a pod range when it was given one."""
    address = {"type": "InternalIP", "address": f"192.0.2.{number}"}
    spec = {"podCIDR": cidr, "podCIDRs": [cidr]} if cidr else {}
    return {"metadata": {"name": f"node-{number}"}, "spec": spec, "status": {"addresses": [address]}}


class RefusingFilter(FakeFilter):
    """Refuses the first change."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 1

    async def apply(self, old: Ruleset | None, new: Ruleset) -> None:
        """See PacketFilter.apply."""
        if self.refusals:
            self.refusals -= 1
            raise FilterError("Cannot change packet rules: not now")
        await super().apply(old, new)


class Bench:
    """The surroundings of a network service for node-1."""

    def __init__(self, folder: Path, packets: FakeFilter) -> None:
        self.objects, self.machine, self.packets = Objects(), FakeHost(), packets
        self.path = folder / "10-k3s.conflist"
        self.ready = asyncio.Event()

    def subnet(self) -> str:
        """The pod range in the CNI configuration."""
        document = json.loads(self.path.read_text())
        return str(document["plugins"][0]["ipam"]["ranges"][0][0]["subnet"])


@asynccontextmanager
async def running(folder: Path, backend: str = "vxlan", packets: FakeFilter | None = None) -> AsyncIterator[Bench]:
    """A network service that is started."""
    bench = Bench(folder, packets or FakeFilter())
    tasks = Tasks("test")
    async with informers(bench.objects, NODE) as (nodes,):
        service = Network(nodes, "node-1", Config(CIDRS, backend), folder, bench.machine, bench.packets)
        tasks.spawn(service.run(bench.ready.set), "network")
        try:
            yield bench
        finally:
            await tasks.close()


def test_it_waits_for_the_pod_range(tmp_path: Path) -> None:
    """Not ready before the node has a range; then the file is there, and follows a range that changes."""

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await bench.objects.put(NODE, node(1))
            await asyncio.sleep(10)
            assert not bench.ready.is_set() and not bench.path.exists()
            await bench.objects.put(NODE, node(1, "10.42.0.0/24"))
            await bench.ready.wait()
            assert bench.subnet() == "10.42.0.0/24"
            assert bench.packets.ruleset[0].name == "k3s-pods"
            await bench.packets.delete("ip", "k3s-pods")
            await bench.objects.put(NODE, node(1, "10.42.9.0/24"))
            await asyncio.sleep(1)
            assert bench.subnet() == "10.42.9.0/24"
            assert bench.packets.ruleset
        assert bench.path.exists() and bench.packets.ruleset
        await uninstall(bench.packets)
        assert bench.packets.ruleset == ()

    simulate(1, scenario())


def test_routes_follow_the_nodes(tmp_path: Path) -> None:
    """With host-gw each node that comes gets a route, and loses it when it goes."""

    async def scenario() -> None:
        async with running(tmp_path, "host-gw") as bench:
            await bench.objects.put(NODE, node(1, "10.42.0.0/24"))
            await bench.objects.put(NODE, node(2, "10.42.1.0/24"))
            await bench.ready.wait()
            await asyncio.sleep(1)
            assert bench.machine.state.routes == {Route("10.42.1.0/24", "192.0.2.2")}
            await bench.objects.drop(NODE, "node-2")
            await asyncio.sleep(1)
            assert bench.machine.state.routes == frozenset()

    simulate(1, scenario())


def test_a_kernel_that_refuses_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is told, and a few seconds later everything is in place."""

    async def scenario() -> None:
        async with running(tmp_path, packets=RefusingFilter()) as bench:
            await bench.objects.put(NODE, node(1, "10.42.0.0/24"))
            await bench.ready.wait()
            assert bench.packets.ruleset
            assert caplog.records[0].reason == "Cannot change packet rules: not now"  # type: ignore[attr-defined]

    simulate(1, scenario())


def test_without_a_backend_others_are_in_charge(tmp_path: Path) -> None:
    """--flannel-backend=none: no file and no rules of ours, and nothing to wait for."""

    async def scenario() -> None:
        async with running(tmp_path, "none") as bench:
            await bench.ready.wait()
            assert not bench.path.exists() and bench.packets.ruleset == ()

    simulate(1, scenario())
