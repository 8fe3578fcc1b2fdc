"""Runs all controllers of a process over shared informers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from k3s.api.kinds import Kind, Registry
from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.controllers.informers import Informers
from k3s.controllers.known import CUSTOM_RESOURCE, EVENT
from k3s.controllers.runtime import QueueMetrics, Runner
from k3s.controllers.spec import ControllerSpec

_TABLE_CHANGES_WITHIN_S = 1.0
_NEEDED = frozenset(("list", "watch", "delete"))


class Controllers:
    """The controllers, made before the informers start so that none of the first objects is missed.

    `client_for(account)` gives the client that writes in the name of a service account in kube-system; the empty
    account is the controller manager's own identity.
    """

    def __init__(
        self,
        specs: Sequence[ControllerSpec],
        informers: Informers,
        client_for: Callable[[str], Client],
        registry: Registry,
        clock: Clock,
        entropy: Entropy,
        story: Story,
        metrics: QueueMetrics | None = None,
    ) -> None:
        self._informers = informers
        self._registry = registry
        self._everywhere: list[Kind] = []
        self.runners = [
            Runner(spec, informers, client_for(spec.account), clock, entropy, story, metrics) for spec in specs
        ]
        if any(spec.everywhere for spec in specs):
            informers.of(CUSTOM_RESOURCE).subscribe(self._custom_resource_changed)
            self._watch_everywhere()

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs every controller until cancelled; `ready` is called when all of them decide."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def fail(name: str, error: BaseException) -> None:
            if not failed.done():
                failed.set_exception(error)

        tasks = Tasks("controllers", fail)
        left = {runner.spec.name for runner in self.runners}

        def started(name: str) -> None:
            left.discard(name)
            if not left:
                ready()

        try:
            for runner in self.runners:
                name = runner.spec.name
                tasks.spawn(runner.run(lambda name=name: started(name)), name)  # type: ignore[misc]
            await failed
        finally:
            await tasks.close()

    def _custom_resource_changed(self, key: str, old: Object | None, new: Object | None) -> None:
        self._watch_everywhere()
        # The server changes its table of kinds when it sees the same event, perhaps after this.
        asyncio.get_running_loop().call_later(_TABLE_CHANGES_WITHIN_S, self._watch_everywhere)

    def _watch_everywhere(self) -> None:
        """Follows the registry: custom kinds come and go."""
        # Lists keep the registry's order: the order of a set of kinds differs from run to run.
        wanted = [kind for kind in self._registry.stored() if set(kind.verbs) >= _NEEDED and kind.kind != EVENT.kind]
        for kind in wanted:
            if kind in self._everywhere:
                continue
            for runner in self.runners:
                if runner.spec.everywhere is not None:
                    runner.watch(kind, runner.spec.everywhere(kind))
        for kind in self._everywhere:
            if kind in wanted:
                continue
            for runner in self.runners:
                runner.unwatch(kind)
            self._informers.forget(kind)
        self._everywhere = wanted
