"""What both machines do: the one in memory and the kernel's network, in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from k3s.network.diff import DeleteLink, DeleteRoute, SetRoute
from k3s.network.fake import FakeHost
from k3s.network.host import Host
from k3s.network.interface import HostError, Machine
from k3s.network.plan import Route

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NAMESPACE = f"k3s-test-net-{os.getpid()}"


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.root)])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Each implementation in turn; the kernel's has one interface with 192.0.2.2/24."""
    if request.param == "fake":
        yield FakeHost()
        return
    inside = ["ip", "-n", NAMESPACE]
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run([*inside, "link", "add", "outer", "type", "bridge"], check=True)
        subprocess.run([*inside, "address", "add", "192.0.2.2/24", "dev", "outer"], check=True)
        subprocess.run([*inside, "link", "set", "outer", "up"], check=True)
        yield Host(("ip", "-n", NAMESPACE))
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def test_routes(machine: Machine, run: Run) -> None:
    """Routes are made, replaced, observed and removed; only ours are seen."""

    async def scenario() -> None:
        assert (await machine.observe()).routes == frozenset()
        first, second = Route("10.42.2.0/24", "192.0.2.7"), Route("10.42.2.0/24", "192.0.2.8")
        await machine.apply([SetRoute(first)])
        assert (await machine.observe()).routes == {first}
        await machine.apply([SetRoute(second)])
        assert (await machine.observe()).routes == {second}
        await machine.apply([DeleteRoute(second)])
        assert (await machine.observe()).routes == frozenset()
        with pytest.raises(HostError):
            await machine.apply([DeleteRoute(second)])

    run(scenario())


def test_links_with_an_address(machine: Machine, run: Run) -> None:
    """Asking twice is the same as once, another address replaces the first, removing twice is fine."""

    async def scenario() -> None:
        await machine.ensure_address("k3s-dns", "10.43.0.10/32")
        await machine.ensure_address("k3s-dns", "10.43.0.10")
        await machine.ensure_address("k3s-dns", "10.43.0.11/32")
        await machine.remove_link("k3s-dns")
        await machine.remove_link("k3s-dns")
        with pytest.raises(HostError):
            await machine.apply([DeleteLink("k3s-dns")])

    run(scenario())


@pytest.mark.root
def test_the_real_address_answers(run: Run) -> None:
    """The kernel itself delivers to the address of a link without ports."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        host = Host(("ip", "-n", NAMESPACE))
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        run(host.ensure_address("k3s-dns", "10.43.0.10/32"))
        ping = ["ip", "netns", "exec", NAMESPACE, "busybox", "ping", "-c1", "-W1", "10.43.0.10"]
        assert subprocess.run(ping, capture_output=True).returncode == 0
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)
