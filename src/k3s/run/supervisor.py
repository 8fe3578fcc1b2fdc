"""Starts services in order of need, watches them, stops them in reverse.

After the component manager of k0s and the `started()` of trio: a service is one coroutine `run(ready)`. It calls
`ready()` once it serves, runs until it is cancelled, and cleans up in `finally`. A service that fails or returns is a
bug: everything is stopped in order and the process ends with an error, so that its own supervisor (systemd) starts it
afresh. A half-restarted control plane is the harder bug.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from k3s.base.aio import Tasks
from k3s.base.clock import Clock

log = logging.getLogger(__name__)

Ready = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Service:
    """One part of the process. `needs` names the services that must be ready before this one starts."""

    name: str
    run: Callable[[Ready], Coroutine[Any, Any, None]]
    needs: tuple[str, ...] = ()
    stop_within_s: float = 10.0


@dataclass(slots=True)
class State:
    """Where a service stands: waiting, starting, ready, stopping, stopped or failed; `since` is seconds since 1970."""

    name: str
    phase: str = "waiting"
    since: float = 0.0
    error: str = ""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class ServiceFailed(Exception):
    """A service ended although it has to run for as long as the process."""


class Supervisor:
    """Runs a list of services, given in an order in which each one's needs come before it."""

    def __init__(self, services: Sequence[Service], clock: Clock) -> None:
        names = [service.name for service in services]
        for position, service in enumerate(services):
            missing = [need for need in service.needs if need not in names[:position]]
            if missing:
                raise ValueError(f"service {service.name} needs {missing}, which do not come before it")
        self._services = list(services)
        self._clock = clock
        self.states = {name: State(name) for name in names}
        self._ended: asyncio.Event = asyncio.Event()
        self._failure: ServiceFailed | None = None
        self._stopping = False
        self._tasks = Tasks("service")

    @property
    def is_ready(self) -> bool:
        """True while every service is ready."""
        return all(state.phase == "ready" for state in self.states.values())

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs everything until `stop` is set; raises ServiceFailed when a service ends before that.

        `on_ready` is called once, when all services are ready.
        """
        for service in self._services:
            self.states[service.name].task = self._tasks.spawn(self._guard(service), service.name)
        watcher = self._tasks.spawn(self._when_ready(on_ready), "ready")
        waiter = self._tasks.spawn(self._ended.wait(), "ended")
        stopper = self._tasks.spawn(stop.wait(), "stop")
        try:
            await asyncio.wait({waiter, stopper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            await self._stop_all()
            await self._tasks.close()
        if self._failure is not None:
            raise self._failure

    async def _when_ready(self, on_ready: Callable[[], None]) -> None:
        for state in self.states.values():
            await state.ready.wait()
        on_ready()

    async def _guard(self, service: Service) -> None:
        state = self.states[service.name]
        for need in service.needs:
            await self.states[need].ready.wait()
        self._enter(state, "starting")

        def ready() -> None:
            self._enter(state, "ready")
            state.ready.set()

        try:
            await service.run(ready)
        except asyncio.CancelledError:
            self._enter(state, "stopped")
            raise
        except Exception as error:
            self._fail(state, f"{type(error).__name__}: {error}")
            log.error("Service %s failed: %s", service.name, error, exc_info=error)
        else:
            self._fail(state, "it returned, though it has to run for as long as the process")

    def _fail(self, state: State, why: str) -> None:
        self._enter(state, "failed")
        state.error = why
        if self._failure is None and not self._stopping:
            self._failure = ServiceFailed(f"service {state.name} ended: {why}")
        self._ended.set()

    def _enter(self, state: State, phase: str) -> None:
        state.phase, state.since = phase, self._clock.now()
        log.debug("Service %s is %s", state.name, phase)

    async def _stop_all(self) -> None:
        self._stopping = True
        for service in reversed(self._services):
            state = self.states[service.name]
            task = state.task
            if task is None or task.done():
                continue
            if state.phase != "stopped":
                self._enter(state, "stopping")
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=service.stop_within_s)
            if not done:
                where = "".join(str(frame) for frame in task.get_stack(limit=1))
                log.error(
                    "Service %s did not stop within %gs and is left behind: %s",
                    service.name,
                    service.stop_within_s,
                    where,
                )
            elif state.phase != "failed":
                self._enter(state, "stopped")

    def describe(self) -> list[dict[str, Any]]:
        """The services as /debug/services shows them."""
        return [
            {"name": s.name, "phase": s.phase, "since": s.since, **({"error": s.error} if s.error else {})}
            for s in self.states.values()
        ]
