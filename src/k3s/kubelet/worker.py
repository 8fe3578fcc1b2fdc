"""One pod's worker: feeds events to the state machine, has its commands carried out, keeps its probes running and its
status published. It is a thin loop; what to do is decided in `pod.py`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from k3s.api.errors import ApiError, Conflict, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object, key, namespace, revision, uid
from k3s.base.aio import Tasks
from k3s.kubelet import containers, pod, probes, signals, status, volumes
from k3s.kubelet.actions import PodActions, Shared
from k3s.kubelet.pod_state import Phase, State
from k3s.kubelet.probes import Schedule
from k3s.kubelet.runtime import interface as cri

log = logging.getLogger(__name__)

# Progress that nobody waits for is published together with what follows it.
_QUIET_S = 0.25
_RETRY_S = 1.0
# After an error that nobody expected: it will rarely go away by itself.
_FAULT_S = 10.0
_KINDS = (probes.STARTUP, probes.READINESS, probes.LIVENESS)


class PodWorker:
    """Runs one pod until it is gone. `api_pod` answers the object with its status (a static pod's is its mirror)."""

    def __init__(
        self, shared: Shared, state: State, api_pod: Callable[[], Object | None], *, adopted: bool = False
    ) -> None:
        self.state = state
        self._shared = shared
        # A bug in the handling of one pod is told and tried again; it does not take the node with it.
        self._tasks = Tasks(f"pod {key(state.pod)}", self._task_failed)
        self._api_pod = api_pod
        self._adopted = adopted
        self._events: deque[signals.Event] = deque()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._probing: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._messages: dict[str, str] = {}
        self._publish_wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._published: Object | None = None
        self._shown: tuple[Any, ...] = (False,)
        self._refresh_wake = asyncio.Event()
        #: Called after each change of the state.
        self.listeners: list[Callable[[], None]] = []
        self.actions = PodActions(shared, lambda: self.state.pod, self.send)
        self.actions.sandbox = state.sandbox
        self.actions.refreshed = self._refresh_wake.set

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return uid(self.state.pod)

    def send(self, event: signals.Event) -> None:
        """Gives the worker an event; never waits."""
        self._events.append(event)
        self._wake.set()

    def sources_changed(self) -> None:
        """A ConfigMap or Secret of the pod changed."""
        self.send(signals.Retry())
        self._refresh_wake.set()

    async def run(self) -> None:
        """Works until the pod is removed."""
        self._tasks.spawn(self._publish_loop(), "publish")
        self._tasks.spawn(self._refresh_loop(), "refresh")
        self.send(signals.Tick())
        try:
            while not self.state.removed:
                await self._wake.wait()
                self._wake.clear()
                while self._events:
                    self._guarded(self._step, self._events.popleft())
                self._guarded(self._after)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._tasks.close()

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Does one thing for the pod; an error of it that nobody expected stays with this pod, which is tried again."""
        try:
            action(*arguments)
        except Exception as error:  # a pod that we cannot handle must not take the node with it
            log.error("Cannot handle pod: %r", error, extra={"pod": key(self.state.pod)}, exc_info=error)
            self._tell_fault(error)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_FAULT_S, self.send, signals.Tick())

    def _tell_fault(self, error: BaseException) -> None:
        self.actions.tell("Warning", "FailedSync", f"error: {type(error).__name__}: {error}"[:500])

    def check(self, container_id: str) -> None:
        """Finds out how a container is of which the runtime said that it ended."""
        self._tasks.spawn(self.actions.check(container_id), "check")

    def _task_failed(self, name: str, error: BaseException) -> None:
        """Answers a command that ended with an unexpected error, so that the state machine goes on."""
        what = name.rpartition("/")[2]
        self._tell_fault(error)
        if what in ("volumes", "sandbox"):
            self.send(signals.SetupFailed())
        elif what.startswith("start "):
            container = what.removeprefix("start ")
            text = f"internal error: {type(error).__name__}: {error}"
            self.send(signals.StartFailed(container, "CreateContainerError", text))
        elif what == "abort":
            self.send(signals.Aborted(self.state.sandbox))
        elif what in ("release", "remove", "delete"):
            self.send(signals.DeleteFailed())
        elif what == "stop sandbox":
            self.send(signals.SandboxStopped())
        elif what in ("publish", "refresh"):
            again = self._publish_loop if what == "publish" else self._refresh_loop
            self._spawn(self._later(again), what)

    def _step(self, event: signals.Event) -> None:
        now = self._shared.clock.now()
        before = self.state
        if isinstance(event, signals.Observed) and event.container.state == cri.EXITED:
            self._read_message(event)
        self.state, commands = pod.step(self.state, event, now)
        if isinstance(event, signals.PodChanged) and _labels_changed(before.pod, self.state.pod):
            self._refresh_wake.set()
        for command in commands:
            self._carry_out(command)

    def _read_message(self, event: signals.Observed) -> None:
        ended = event.container
        if ended.id not in self._messages:
            self._messages[ended.id] = self.actions.files.termination_message(self.state.pod, ended)

    def _carry_out(self, command: signals.Command) -> None:
        act = self.actions
        match command:
            case signals.PrepareVolumes():
                self._begin(act.prepare(), "volumes")
            case signals.StartSandbox(attempt):
                self._begin(act.start_sandbox(attempt), "sandbox")
            case signals.StartContainer(name, _kind, attempt):
                self._begin(act.start_container(name, attempt), f"start {name}")
            case signals.StopSandbox(sandbox_id):
                self._spawn(act.stop_sandbox(sandbox_id), "stop sandbox")
            case signals.StopContainer(name, container_id, grace_s, message):
                self._spawn(act.stop_container(name, container_id, grace_s, message), f"stop {name}")
            case signals.Abort():
                self._spawn(self._abort(), "abort")
            case signals.Release():
                self._spawn(act.release(), "release")
            case signals.DeleteObject():
                found = self._api_pod()
                self._spawn(act.delete_object(uid(found) if found else self.uid), "delete")
            case signals.RemoveAll():
                self._spawn(act.remove_all(), "remove")
            case signals.Tell(kind, reason, message, container):
                act.tell(kind, reason, message, container)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        return self._tasks.spawn(work, what)

    def _begin(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Starts what an Abort cancels."""
        task = self._spawn(work, what)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _abort(self) -> None:
        tasks = list(self._starting)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.actions.settle()

    def _after(self) -> None:
        """What follows from the state: the next tick, the probes, the status."""
        now = self._shared.clock.now()
        self.actions.sandbox = self.state.sandbox
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = pod.next_wake(self.state, now)
        if wake is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wake - now), self.send, signals.Tick())
        self._probe()
        shown = self._what_matters()
        if shown != self._shown:
            self._shown = shown
            self._urgent.set()
        self._publish_wake.set()
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        for tell in tuple(self.listeners):
            tell()

    def _what_matters(self) -> tuple[Any, ...]:
        """What someone may wait for: when it changes, the status goes out at once."""
        if self.state.phase is not Phase.SYNC:
            return (self.state.phase is Phase.TERMINATED,)
        runs = self.state.runs
        main = [runs.get(c["name"]) for kind, c in containers.specs(self.state.pod) if kind == containers.MAIN]
        ready = all(run is not None and run.running and run.ready for run in main)
        return (ready, *(run.waiting for run in runs.values() if run.waiting))

    # ── probes ──

    def _probe(self) -> None:
        wanted = self._wanted_probes()
        for entry in [entry for entry in self._probing if entry not in wanted]:
            self._probing.pop(entry).cancel()
        for entry, container in wanted.items():
            known = self._probing.get(entry)
            if known is None or (known.done() and not known.cancelled() and known.exception() is not None):
                self._probing[entry] = self._start_probe(entry, container)
        self._adopted = False

    def _wanted_probes(self) -> dict[tuple[str, str, str], Object]:
        if self.state.phase is Phase.TERMINATED:
            return {}
        made: dict[tuple[str, str, str], Object] = {}
        ending = self.state.phase is not Phase.SYNC
        for kind, container in containers.specs(self.state.pod):
            run = self.state.runs.get(container["name"])
            if kind not in (containers.MAIN, containers.SIDECAR) or run is None or run.current is None:
                continue
            if not run.running or run.starting:
                continue
            for which in _KINDS:
                due = (which == probes.STARTUP) is not run.started
                # A pod that ends is still asked whether it is ready: traffic may yet flow (KEP-2727).
                if due and container.get(f"{which}Probe") and not (ending and which != probes.READINESS):
                    made[(container["name"], which, run.current.id)] = container
        return made

    def _start_probe(self, entry: tuple[str, str, str], container: Object) -> asyncio.Task[None]:
        name, kind, container_id = entry
        probe = container[f"{kind}Probe"]
        run = self.state.runs[name]
        assert run.current is not None
        age = max(0.0, self._shared.clock.now() - run.current.started_at)
        first = probes.first_delay(
            Schedule.of(probe), kind, age, self._shared.entropy.fraction(), adopted=self._adopted
        )
        what = {"startup": "Startup", "readiness": "Readiness", "liveness": "Liveness"}[kind]
        return self._tasks.spawn(
            self._shared.prober.watch(
                kind,
                probe,
                lambda: self.actions.target(container, container_id),
                lambda ok, text: self.send(signals.Probed(name, kind, ok, text)),
                lambda text: self.actions.tell("Warning", "Unhealthy", f"{what} probe failed: {text}", name),
                first,
            ),
            f"{kind} probe of {name}",
        )

    # ── volumes that change ──

    async def _refresh_loop(self) -> None:
        while True:
            due = self.actions.token_due
            left = None if due is None else max(0.0, due - self._shared.clock.now())
            try:
                async with asyncio.timeout(left):
                    await self._refresh_wake.wait()
            except TimeoutError:
                pass
            self._refresh_wake.clear()
            if self.state.volumes_ready and self.state.phase is not Phase.TERMINATED:
                await self.actions.refresh()

    # ── status ──

    def facts(self) -> status.Facts:
        """What the status is made of, now."""
        state = self.state
        ending = state.ending
        return status.Facts(
            host_ips=self._shared.facts().addresses,
            started_at=state.started_at,
            pod_ips=state.sandbox.ips if state.sandbox else (),
            sandbox_ready=state.sandbox is not None and state.sandbox.ready and state.phase is not Phase.TERMINATED,
            initialized=state.initialized,
            terminal=state.terminal,
            reason=ending.reason if ending else "",
            message=ending.message if ending else "",
            failed=bool(ending and ending.failed),
            messages=self._messages,
        )

    def current_status(self) -> Object:
        """The pod's status as this node knows it."""
        known = self._known()
        old = known.get("status") or {} if known else {}
        return status.pod_status(self.state.pod, self.state.runs, self.facts(), self._shared.clock.now(), old)

    def _known(self) -> Object | None:
        """The newest object that is known to be in the API: the watch may lag behind our own writes."""
        seen, written = self._api_pod(), self._published
        if seen is None or written is None or uid(seen) != uid(written):
            return seen
        return seen if revision(seen) >= revision(written) else written

    async def _later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does the work again that has failed, after a while."""
        await asyncio.sleep(_FAULT_S)
        self._publish_wake.set()
        await work()

    async def _publish_loop(self) -> None:
        while True:
            await self._publish_wake.wait()
            if not self._urgent.is_set():
                try:
                    async with asyncio.timeout(_QUIET_S):
                        await self._urgent.wait()
                except TimeoutError:
                    pass
            self._urgent.clear()
            self._publish_wake.clear()
            if not await self._publish():
                await asyncio.sleep(_RETRY_S)
                self._publish_wake.set()

    async def _publish(self) -> bool:
        known, final = self._known(), self.state.phase is Phase.TERMINATED
        if known is None or self.state.gone:
            return True
        patch = status.changes(known.get("status") or {}, self.current_status())
        if patch:
            body = {"metadata": {"uid": uid(known)}, "status": patch}
            space, name = namespace(known), known["metadata"]["name"]
            try:
                self._published = await self._shared.client.patch(
                    builtin("v1", "Pod"), space, name, body, subresource="status"
                )
            except (NotFound, Conflict):
                # Gone, or another pod of that name: the watch tells.
                return True
            except (ApiError, OutcomeUnknown) as error:
                log.warning("Pod status was not published", extra={"pod": key(known), "reason": str(error)})
                return False
        if final and not self.state.published:
            self.send(signals.Published())
        return True


def _labels_changed(old: Object, new: Object) -> bool:
    if not any(volumes.changes_with_pod(volume) for volume in new["spec"].get("volumes") or ()):
        return False
    return any(old["metadata"].get(part) != new["metadata"].get(part) for part in ("labels", "annotations"))
