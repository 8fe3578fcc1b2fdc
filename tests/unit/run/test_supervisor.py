"""Services start in order of need, stop in reverse, and a failure stops everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from k3s.base.clock import SystemClock
from k3s.run.supervisor import Service, ServiceFailed, Supervisor


def service(name: str, told: list[str], *needs: str, fails: bool = False, returns: bool = False) -> Service:
    async def run(ready: Callable[[], None]) -> None:
        told.append(f"start {name}")
        ready()
        try:
            if fails:
                raise OSError("broken")
            if not returns:
                await asyncio.Event().wait()
        finally:
            told.append(f"stop {name}")

    return Service(name, run, needs, stop_within_s=0.05)


def test_order(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Needs come first on the way up and last on the way down."""
    told: list[str] = []

    async def scenario() -> None:
        stop = asyncio.Event()
        supervisor = Supervisor([service("a", told), service("b", told, "a"), service("c", told, "b")], SystemClock())
        await supervisor.run(stop, on_ready=stop.set)
        assert {s["phase"] for s in supervisor.describe()} == {"stopped"}

    run(scenario())
    assert told == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


@pytest.mark.parametrize("kind", ["fails", "returns"])
def test_an_end_is_fatal(kind: str, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """A service that fails or returns stops the others, and the process learns which one it was."""
    told: list[str] = []

    async def scenario() -> None:
        services = [service("a", told), service("b", told, "a", **{kind: True})]
        with pytest.raises(ServiceFailed, match="service b ended"):
            await Supervisor(services, SystemClock()).run(asyncio.Event())

    run(scenario())
    assert told[-1] == "stop a"


def test_a_late_service_is_left_behind(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """One that does not stop in its time does not keep the others from stopping."""
    told: list[str] = []

    async def stubborn(ready: Callable[[], None]) -> None:
        ready()
        release = asyncio.get_running_loop().time() + 0.2
        while (left := release - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), left)
            except (asyncio.CancelledError, asyncio.TimeoutError):
                continue

    async def scenario() -> None:
        stop = asyncio.Event()
        services = [service("a", told), Service("stubborn", stubborn, ("a",), stop_within_s=0.01)]
        await Supervisor(services, SystemClock()).run(stop, on_ready=stop.set)

    run(scenario())
    assert told == ["start a", "stop a"]


def test_needs_must_come_first() -> None:
    """A list in the wrong order is a mistake of the composition, told at once."""
    with pytest.raises(ValueError, match="needs"):
        Supervisor([service("a", [], "b"), service("b", [])], SystemClock())
