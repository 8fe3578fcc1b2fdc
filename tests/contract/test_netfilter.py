"""What both packet filters do: the one in memory and the kernel's, in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s.netfilter.fake import FakeFilter
from k3s.netfilter.interface import FilterError, PacketFilter
from k3s.netfilter.kernel import Kernel
from k3s.netfilter.ruleset import (
    DROP,
    Chain,
    ClearMark,
    DestinationNat,
    Dispatch,
    Hook,
    InSet,
    Map,
    Marked,
    Masquerade,
    Match,
    Reject,
    Remember,
    Set,
    SetMark,
    Table,
    choose,
    goto,
    jump,
)
from k3s.network import masquerade
from k3s.proxy.ports import Node, service_ports
from k3s.proxy.rules import ruleset

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NAMESPACE = f"k3s-test-{os.getpid()}"
KEY = ("ipv4_addr", "inet_proto", "inet_service")
FIELDS = ("ip daddr", "meta l4proto", "th dport")


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.root)])
def packets(request: pytest.FixtureRequest) -> Iterator[PacketFilter]:
    """Each implementation in turn."""
    if request.param == "fake":
        yield FakeFilter()
        return
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        yield Kernel(("ip", "netns", "exec", NAMESPACE, "nft"))
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def everything() -> Table:
    """A table with every kind of part."""
    endpoints = {
        f"endpoint-ns/web/tcp/http__10.42.0.{n}/80": Chain(
            (
                (Match("ip saddr", (f"10.42.0.{n}",)), SetMark(0x4000)),
                (Remember("ip saddr", f"affinity-{n}"), DestinationNat("tcp", f"10.42.0.{n}", 80)),
            )
        )
        for n in (5, 6)
    }
    service = Chain(
        (
            (Match("ip saddr", ("10.42.0.0/16", "192.0.2.0/24"), negate=True), SetMark(0x4000)),
            (InSet(("ip saddr",), "affinity-5"), goto("endpoint-ns/web/tcp/http__10.42.0.5/80")),
            (InSet(("ip saddr",), "affinity-6"), goto("endpoint-ns/web/tcp/http__10.42.0.6/80")),
            (choose(tuple(endpoints)),),
        )
    )
    chains = {
        "nat-prerouting": Chain(
            (
                (Dispatch(FIELDS, "services"),),
                (
                    Match("fib daddr type", ("local",)),
                    Match("ip daddr", ("127.0.0.0/8",), negate=True),
                    Dispatch(FIELDS[1:], "ports"),
                ),
            ),
            Hook("nat", "prerouting", -100),
        ),
        "nat-postrouting": Chain(((Marked(0x4000), jump("masquerade-marked")),), Hook("nat", "postrouting", 100)),
        "masquerade-marked": Chain(((ClearMark(0x4000),), (Masquerade(),))),
        "filter-forward": Chain(
            (
                (Match("ct state", ("new",)), InSet(("ip daddr",), "addresses"), goto("refuse")),
                (Match("iifname", ("cni0",)), Marked(0x4000, wanted=False), DROP),
            ),
            Hook("filter", "forward", 0),
        ),
        "refuse": Chain(((Reject(reset=True),), (Reject(),))),
        "service-ns/web/tcp/http": service,
        **endpoints,
    }
    sets = {
        "addresses": Set(("ipv4_addr",), frozenset({("10.43.0.9",), ("10.43.0.10",)})),
        "affinity-5": Set(("ipv4_addr",), timeout_s=10800),
        "affinity-6": Set(("ipv4_addr",), timeout_s=90061),
    }
    maps = {
        "services": Map(
            KEY,
            {
                ("10.43.0.9", "tcp", "80"): goto("service-ns/web/tcp/http"),
                ("10.43.0.9", "sctp", "80"): DROP,
            },
        ),
        "ports": Map(KEY[1:], {("udp", "30053"): goto("service-ns/web/tcp/http")}),
    }
    return Table("ip", "k3s-test", chains, sets, maps)


def test_what_is_applied_is_observed(packets: PacketFilter, run: Run) -> None:
    """Every kind of rule comes back as it was given."""

    async def scenario() -> None:
        assert await packets.observe("ip", "k3s-test") is None
        await packets.apply((), (everything(),))
        assert await packets.observe("ip", "k3s-test") == everything()
        await packets.delete("ip", "k3s-test")
        await packets.delete("ip", "k3s-test")
        assert await packets.observe("ip", "k3s-test") is None

    run(scenario())


def test_from_everything_to_nothing_and_back(packets: PacketFilter, run: Run) -> None:
    """Names that refer to each other can all go in one change, and a table that `new` lacks is deleted."""

    async def scenario() -> None:
        empty = Table("ip", "k3s-test")
        await packets.apply((), (empty,))
        await packets.apply((empty,), (everything(),))
        await packets.apply((everything(),), (empty,))
        assert await packets.observe("ip", "k3s-test") == empty
        await packets.apply((empty,), ())
        assert await packets.observe("ip", "k3s-test") is None

    run(scenario())


def test_an_unknown_table_is_replaced(packets: PacketFilter, run: Run) -> None:
    """Without knowledge of what is there, the result is still exactly what is wanted."""

    async def scenario() -> None:
        other = Table("ip", "k3s-test", {"left-over": Chain(((DROP,),))})
        await packets.apply((), (other,))
        await packets.apply(None, (everything(),))
        assert await packets.observe("ip", "k3s-test") == everything()

    run(scenario())


def test_a_refused_change_changes_nothing(packets: PacketFilter, run: Run) -> None:
    """One wrong rule, and none of the others takes effect."""

    async def scenario() -> None:
        old = everything()
        await packets.apply((), (old,))
        chains = {**old.chains, "new": Chain(((DROP,),)), "refuse": Chain(((goto("nowhere"),),))}
        with pytest.raises(FilterError, match="Cannot change packet rules"):
            await packets.apply((old,), (replace(old, chains=chains),))
        assert await packets.observe("ip", "k3s-test") == old

    run(scenario())


def test_rules_that_are_not_as_expected_are_an_error(packets: PacketFilter, run: Run) -> None:
    """Someone else deleted the table: the change says so instead of leaving half of the rules."""

    async def scenario() -> None:
        old = everything()
        await packets.apply((), (old,))
        await packets.delete("ip", "k3s-test")
        chains = {name: chain for name, chain in old.chains.items() if name != "filter-forward"}
        with pytest.raises(FilterError):
            await packets.apply((old,), (replace(old, chains=chains),))

    run(scenario())


REMOVALS = """
import asyncio, sys
from k3s.netfilter.kernel import Kernel
from k3s.netfilter.ruleset import Table

async def main():
    kernel, told, changed = Kernel(), [], asyncio.Event()
    end = kernel.subscribe(lambda *table: (told.append(table), changed.set()))
    one, two = Table("ip", "one"), Table("ip6", "two")
    await kernel.apply((), (one, two))
    await kernel.delete("ip", "one")
    await kernel.apply(None, (two,))
    await kernel.delete("ip6", "two")
    while len(told) < 3:
        changed.clear()
        await changed.wait()
    end()
    print(told)

asyncio.run(main())
"""


@pytest.mark.root
def test_removals_are_told_by_the_kernel(packets: PacketFilter) -> None:
    """Deleting and replacing a table is noticed. The socket is of the process's namespace, so the process moves."""
    if isinstance(packets, Kernel):
        words = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", REMOVALS]
        done = subprocess.run(words, capture_output=True, timeout=20, check=True)
        assert done.stdout.decode().strip() == str([("ip", "one"), ("ip6", "two"), ("ip6", "two")])


def test_removals_are_told_by_the_fake(run: Run) -> None:
    """The same sequence as the kernel's."""

    async def scenario() -> None:
        fake = FakeFilter()
        told: list[tuple[str, str]] = []
        end = fake.subscribe(lambda family, name: told.append((family, name)))
        one, two = Table("ip", "one"), Table("ip6", "two")
        await fake.apply((), (one, two))
        await fake.delete("ip", "one")
        await fake.apply(None, (two,))
        await fake.delete("ip6", "two")
        end()
        await fake.apply((), (one,))
        await fake.delete("ip", "one")
        assert told == [("ip", "one"), ("ip6", "two"), ("ip6", "two")]

    run(scenario())


endpoint_sets = st.lists(st.frozensets(st.integers(1, 4), max_size=3), min_size=2, max_size=5)


def services(backends: frozenset[int]) -> Table:
    """A table that balances over the backends, and has no chain for nothing."""
    chains = {f"endpoint-{n}": Chain(((DestinationNat("tcp", f"10.42.0.{n}", 80),),)) for n in sorted(backends)}
    elements = {("10.43.0.9", "tcp", "80"): goto("service")} if backends else {("10.43.0.9", "tcp", "80"): DROP}
    if chains:
        chains["service"] = Chain(((choose(tuple(chains)),),))
    chains["nat"] = Chain(((Dispatch(FIELDS, "services"),),), Hook("nat", "prerouting", -100))
    return Table("ip", "k3s-test", chains, {}, {"services": Map(KEY, elements)})


@given(endpoint_sets)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_changes_ends_at_the_last(packets: PacketFilter, run: Run, steps: list[frozenset[int]]) -> None:
    """Small changes one after another lead to the same rules as making them at once."""

    async def scenario() -> None:
        await packets.delete("ip", "k3s-test")
        before: tuple[Table, ...] = ()
        for backends in steps:
            after = (services(backends),)
            await packets.apply(before, after)
            before = after
        assert await packets.observe("ip", "k3s-test") == before[0]

    run(scenario())


DUAL = Node("node-1", ("10.42.0.0/16", "fd00:42::/56"))


def dual_stack() -> tuple[Table, ...]:
    """The tables of a service with two families, a balancer with source ranges, and one without endpoints."""
    port = {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}
    spec = {
        "type": "LoadBalancer",
        "clusterIP": "10.43.0.20",
        "clusterIPs": ["10.43.0.20", "fd00:43::20"],
        "ports": [port],
        "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "externalIPs": ["2001:db8::7", "203.0.113.7"],
        "loadBalancerSourceRanges": ["2001:db8:1::/48", "2001:db8:2::5/128", "198.51.100.0/24"],
    }
    status = {"loadBalancer": {"ingress": [{"ip": "2001:db8::8"}, {"ip": "203.0.113.8"}]}}
    service = {"metadata": {"namespace": "ns", "name": "dns"}, "spec": spec, "status": status}
    slices = [
        {
            "addressType": family,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": [address], "nodeName": "node-1"} for address in addresses],
        }
        for family, addresses in (("IPv4", ("10.42.0.5", "10.42.0.6")), ("IPv6", ("fd00:42::5", "fd00:42::6")))
    ]
    none = {
        "metadata": {"namespace": "ns", "name": "none"},
        "spec": {**spec, "clusterIPs": ["10.43.0.21", "fd00:43::21"]},
    }
    ports = (*service_ports(service, slices, DUAL), *service_ports(none, [], DUAL))
    return (*ruleset(ports, DUAL), *masquerade.ruleset(DUAL.cluster_cidrs))


def test_the_rules_of_services_and_pods(packets: PacketFilter, run: Run) -> None:
    """What the proxy and the network make is taken and comes back the same, in both families."""

    async def scenario() -> None:
        await packets.apply((), dual_stack())
        for table in dual_stack():
            assert await packets.observe(table.family, table.name) == table
        await packets.apply(dual_stack(), ruleset((), DUAL))
        for table in ruleset((), DUAL):
            assert await packets.observe(table.family, table.name) == table

    run(scenario())
