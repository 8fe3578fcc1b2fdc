"""The lease by which a server shows that it runs."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.controllers.test_with_api_server import EPOCH, Plane

from k3s.api import times
from k3s.api.object import Object
from k3s.apiserver import presence
from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.sim import loop


def test_name() -> None:
    """The name is upstream's: a hash of the host's name, so that a restart finds its lease again."""
    assert presence.name_of("localhost") == "apiserver-l2yubf4cvcl5c7a3wrubrwqdve"
    assert presence.name_of("localhost") != presence.name_of("other")


@pytest.mark.parametrize(
    ("spec", "over"),
    [
        ({"renewTime": times.micro(EPOCH), "leaseDurationSeconds": 3600}, False),
        ({"renewTime": times.micro(EPOCH - 3601), "leaseDurationSeconds": 3600}, True),
        ({"leaseDurationSeconds": 3600}, True),
        ({"renewTime": times.micro(EPOCH)}, True),
    ],
)
def test_when_a_lease_is_over(spec: Object, over: bool) -> None:
    """A lease ends its duration after the last renewal; one that does not say when has ended."""
    assert presence.is_over({"spec": spec}, EPOCH) is over


def test_a_server_keeps_its_lease_and_removes_those_of_others_that_are_gone() -> None:
    """It is made, renewed before it ends, taken over by the next start; a strange lease goes when it is over, leases
    of other components stay."""

    async def main() -> None:
        async with Plane() as plane:
            gone = presence.renewed(None, "gone", "gone_1", EPOCH)
            await plane.root.create(presence.LEASE, gone)
            other = {**gone, "metadata": {"name": "scheduler", "namespace": "kube-system"}}
            await plane.root.create(presence.LEASE, other)
            name = presence.name_of("here")

            def lease() -> Object:
                return plane.cache.get(presence.LEASE, "kube-system", name) or {}

            for start in (1, 2):
                service = presence.Presence(plane.root, "here", LoopClock(EPOCH), SeededEntropy(start))
                running = asyncio.create_task(service.run(lambda: None))
                await plane.until(lambda: bool(lease()))
                await asyncio.sleep(1)
                first = lease()
                assert first["metadata"]["labels"]["kubernetes.io/hostname"] == "here"
                assert first["spec"]["holderIdentity"] == f"{name}_{SeededEntropy(start).uid()}"
                await asyncio.sleep(3601)
                now = LoopClock(EPOCH).now()
                assert not presence.is_over(lease(), now)
                assert lease()["metadata"]["uid"] == first["metadata"]["uid"]
                running.cancel()
            names = {found["metadata"]["name"] for found in plane.all(presence.LEASE, "kube-system")}
            assert names == {name, "scheduler"}

    loop.run(1, main())
