"""One pod's life on a node, as a state machine: `step(state, event, now) -> (state, commands)`.

                     PodChanged, VolumesReady, SandboxStarted, Started, Observed, Probed, Tick …
                                          │
        ┌───────────── SYNC ──────────────▼───────────────┐
        │ volumes ─► sandbox ─► init containers in order   │   a container ends ─► back-off ─► started again
        │   ─► sidecars as they come ─► main containers    │   the sandbox dies ─► all ended ─► a new sandbox
        └───────┬──────────────────────────────────────────┘
                │ deleted · removed · evicted · deadline · all work done
        ┌───────▼────── TERMINATING ───────────────────────┐
        │ abort what starts ─► end main containers with     │   a shorter grace shortens the wait
        │ hooks and grace ─► sidecars in reverse ─► sandbox │
        └───────┬──────────────────────────────────────────┘
                │ nothing runs, network and volumes are given back
        ┌───────▼────── TERMINATED ────────────────────────┐
        │ final status is published; once the object is     │   object gone ─► RemoveAll ─► the worker ends
        │ being deleted: DeleteObject                        │
        └──────────────────────────────────────────────────┘

Pure and level-triggered: an event changes what is known, then `_decide` looks at everything that is known. A command is
in flight until an event answers it; while it is, its flag in the state keeps it from being given again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from k3s.api import times
from k3s.api.object import Object
from k3s.kubelet import containers
from k3s.kubelet.containers import Kill, Run, Start
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Sandbox
from k3s.kubelet.signals import (
    Abort,
    Aborted,
    Command,
    DeleteFailed,
    DeleteObject,
    Event,
    Evict,
    HookFailed,
    Observed,
    PodChanged,
    PodGone,
    PrepareVolumes,
    Probed,
    Published,
    Release,
    Released,
    RemoveAll,
    Removed,
    Retry,
    SandboxDied,
    SandboxStarted,
    SandboxStopped,
    SetupFailed,
    StartContainer,
    Started,
    StartFailed,
    StartSandbox,
    StopContainer,
    StopSandbox,
    Tell,
    Tick,
    Vanished,
    VolumesReady,
)

# The distances at which what failed is tried again (upstream: backOffPeriod; sandboxes and volumes grow to a minute).
_RETRY_FIRST_S = 1.0
_RETRY_LAST_S = 60.0
_IMAGE_RETRY_FIRST_S = 10.0
_IMAGE_RETRY_LAST_S = 300.0
_CONFIG_RETRY_S = 10.0
# A fresh ErrImagePull is shown this long before it becomes ImagePullBackOff.
_SHOW_ERROR_S = 2.0
_DEFAULT_GRACE_S = 30.0
# Even a container that may be killed at once gets this long after SIGTERM (minimumGracePeriodInSeconds).
MINIMUM_GRACE_S = 2.0
_IMAGE_ERRORS = ("ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable")
_SANDBOX_CHANGED = "Pod sandbox changed, it will be killed and re-created."
# How late a second stop must shorten the first to be given.
_SHORTER_S = 0.5


class Phase(str, Enum):
    """Where in its life the pod is."""

    SYNC = "sync"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a pod ends: reason and message for its status, and whether that makes it Failed whatever the exit codes."""

    reason: str = ""
    message: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything known of a pod on this node. Times in seconds since the epoch."""

    pod: Object
    started_at: float
    phase: Phase = Phase.SYNC
    ending: Ending | None = None
    ending_since: float = 0.0
    grace_s: float = _DEFAULT_GRACE_S
    gone: bool = False
    initialized: bool = False
    runs: Mapping[str, Run] = field(default_factory=dict)
    sandbox: Sandbox | None = None
    attempt: int = 0
    volumes_ready: bool = False
    volumes_busy: bool = False
    sandbox_busy: bool = False
    retry_at: float = 0.0
    failures: int = 0
    aborting: bool = False
    aborted: bool = False
    releasing: bool = False
    published: bool = False
    deleting: bool = False
    removing: bool = False
    removed: bool = False

    @property
    def terminal(self) -> bool:
        """Nothing runs and nothing will."""
        return self.phase is Phase.TERMINATED or (
            self.phase is Phase.TERMINATING and self.aborted and not containers.alive(self.runs)
        )


def step(state: State, event: Event, now: float) -> tuple[State, list[Command]]:
    """What is known after `event`, and what to do about it."""
    return _decide(_fold(state, event, now), now)


def next_wake(state: State, now: float) -> float | None:
    """When a Tick is due although nothing happens, or None."""
    times_: list[float] = [state.retry_at] if state.retry_at > now else []
    if state.phase is Phase.SYNC:
        if (deadline := _deadline(state)) is not None:
            times_.append(deadline)
        for run in state.runs.values():
            if not run.running and not run.starting:
                times_ += [t for t in (run.retry_at, containers.may_start_at(run)) if t > now]
                if run.waiting is not None and run.waiting[0] == "ErrImagePull":
                    times_.append(max(now, _shown_until(run)))
    return min(times_) if times_ else None


# ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────────


def _fold(state: State, event: Event, now: float) -> State:
    match event:
        case PodChanged(pod):
            return _deletion(replace(state, pod=pod), now)
        case PodGone():
            ended = _end(replace(state, gone=True), Ending(), now)
            return replace(ended, grace_s=min(ended.grace_s, MINIMUM_GRACE_S))
        case Evict(reason, message):
            return _end(state, Ending(reason, message, failed=True), now)
        case VolumesReady():
            return replace(state, volumes_ready=True, volumes_busy=False, failures=0, retry_at=0.0)
        case SetupFailed():
            delay = min(_RETRY_LAST_S, _RETRY_FIRST_S * 2.0**state.failures)
            failures = min(state.failures + 1, 10)
            return replace(state, volumes_busy=False, sandbox_busy=False, failures=failures, retry_at=now + delay)
        case SandboxStarted(sandbox):
            return replace(
                state, sandbox=sandbox, attempt=sandbox.attempt, sandbox_busy=False, failures=0, retry_at=0.0
            )
        case SandboxDied(sandbox_id):
            if state.sandbox is None or state.sandbox.id != sandbox_id:
                return state
            return replace(state, sandbox=replace(state.sandbox, ready=False, ips=()))
        case SandboxStopped():
            return replace(state, sandbox_busy=False)
        case Aborted(sandbox):
            idle = {name: replace(run, starting=False) for name, run in state.runs.items()}
            return replace(
                state,
                aborting=False,
                aborted=True,
                runs=idle,
                sandbox=sandbox,
                volumes_busy=False,
                sandbox_busy=False,
                retry_at=0.0,
            )
        case Released():
            return replace(state, releasing=False, phase=Phase.TERMINATED, retry_at=0.0)
        case Published():
            return replace(state, published=state.phase is Phase.TERMINATED)
        case DeleteFailed():
            return replace(state, deleting=False, releasing=False, removing=False, retry_at=now + _RETRY_FIRST_S)
        case Removed():
            return replace(state, removed=True, removing=False)
        case Tick():
            return replace(state, retry_at=0.0) if state.retry_at <= now else state
        case _:
            return _fold_container(state, event, now)


def _fold_container(state: State, event: Event, now: float) -> State:
    match event:
        case Started(name, container):
            return _put(state, name, _began(state, name, container))
        case StartFailed(name, reason, message, container):
            return _put(state, name, _start_failed(state.runs.get(name, Run()), reason, message, container, now))
        case Observed(container):
            return _observe(state, container)
        case Vanished(container_id):
            for name, run in state.runs.items():
                if run.current is not None and run.current.id == container_id:
                    lost = replace(run.current, state=cri.EXITED, exit_code=137, reason="ContainerStatusUnknown")
                    if run.current.state != cri.EXITED:
                        lost = replace(lost, finished_at=now)
                    return _put(state, name, replace(run, current=lost, stop_at=None, kill=None, ready=False))
            return state
        case Probed(name, kind, ok, message):
            return _put(state, name, _probed(state.runs.get(name, Run()), name, kind, ok, message, state))
        case HookFailed(name, message):
            run = state.runs.get(name, Run())
            return _put(state, name, replace(run, kill=("FailedPostStartHook", message)))
        case Retry():
            again = {n: replace(r, retry_at=0.0) if r.waiting else r for n, r in state.runs.items()}
            return replace(state, runs=again, retry_at=0.0 if not state.volumes_ready else state.retry_at)
        case _:
            raise AssertionError(f"unknown event {event!r}")


def _put(state: State, name: str, run: Run) -> State:
    return replace(state, runs={**state.runs, name: run})


def _began(state: State, name: str, container: Container) -> Run:
    old = state.runs.get(name, Run())
    if old.current is not None and old.current.id == container.id and old.exited:
        # It has ended before its start was told.
        return replace(old, starting=False, waiting=None, failures=0)
    probe = containers.probe_of(state.pod, name, "startup")
    readiness = containers.probe_of(state.pod, name, "readiness")
    return replace(
        old,
        current=container,
        last=old.current if old.exited else old.last,
        waiting=None,
        retry_at=0.0,
        failures=0,
        starting=False,
        stop_at=None,
        kill=None,
        started=probe is None,
        ready=probe is None and readiness is None,
        restarts=container.attempt,
    )


def _start_failed(run: Run, reason: str, message: str, container: Container | None, now: float) -> Run:
    failures = run.failures + 1
    if reason in _IMAGE_ERRORS:
        delay = min(_IMAGE_RETRY_LAST_S, _IMAGE_RETRY_FIRST_S * 2.0 ** (failures - 1))
    elif container is not None:
        delay = 0.0
    else:
        delay = _CONFIG_RETRY_S
    made = replace(
        run, starting=False, waiting=(reason, message), retry_at=now + delay if delay else 0.0, failures=failures
    )
    if container is not None:
        # It was made and did not run: it counts as one that ended, with the back-off of a crash.
        made = replace(
            made,
            current=container,
            last=run.current if run.exited else run.last,
            restarts=container.attempt,
            started=False,
            ready=False,
        )
        if made.backoff is None:
            made = replace(made, backoff=containers.Backoff(containers.BACKOFF_FIRST_S, now))
    return made


def _observe(state: State, container: Container) -> State:
    run = state.runs.get(container.name, Run())
    if run.current is not None and run.current.id != container.id and container.attempt <= run.current.attempt:
        return state
    ended = container.state == cri.EXITED
    if run.current is not None and run.current.id == container.id:
        if run.exited:
            return state
        # Still running after a stop was tried: it may be tried again.
        made = replace(run, current=container, stop_at=None)
    else:
        last = run.current if run.exited else run.last
        made = replace(run, current=container, last=last, restarts=container.attempt)
    if ended:
        made = replace(made, stop_at=None, kill=None, started=False, ready=False)
    return _put(state, container.name, made)


def _probed(run: Run, name: str, kind: str, ok: bool, message: str, state: State) -> Run:
    if not run.running:
        return run
    if kind == "startup":
        if ok:
            return replace(run, started=True, ready=containers.probe_of(state.pod, name, "readiness") is None)
        return replace(run, kill=("Unhealthy", f"Container {name} failed startup probe, will be restarted"))
    if kind == "readiness":
        return replace(run, ready=ok)
    if ok:
        return run
    return replace(run, kill=("Unhealthy", f"Container {name} failed liveness probe, will be restarted"))


def _deletion(state: State, now: float) -> State:
    meta = state.pod["metadata"]
    if "deletionTimestamp" not in meta:
        return state
    asked = meta.get("deletionGracePeriodSeconds")
    state = _end(state, Ending(), now)
    if asked is None:
        return state
    return replace(state, grace_s=min(float(asked), state.grace_s) if state.phase is not Phase.SYNC else float(asked))


def _grace(pod: Object) -> float:
    chosen = pod["spec"].get("terminationGracePeriodSeconds")
    return _DEFAULT_GRACE_S if chosen is None else float(chosen)


def _end(state: State, ending: Ending, now: float) -> State:
    if state.phase is not Phase.SYNC:
        return state
    return replace(
        state, phase=Phase.TERMINATING, ending=ending, ending_since=now, grace_s=_grace(state.pod), retry_at=0.0
    )


# ── what to do ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _decide(state: State, now: float) -> tuple[State, list[Command]]:
    if state.phase is Phase.SYNC:
        state = _maybe_over(state, now)
    if state.phase is Phase.SYNC:
        return _sync(state, now)
    if state.phase is Phase.TERMINATING:
        return _terminate(state, now)
    return _leave(state, now)


def _deadline(state: State) -> float | None:
    seconds = state.pod["spec"].get("activeDeadlineSeconds")
    return None if seconds is None else state.started_at + float(seconds)


def _maybe_over(state: State, now: float) -> State:
    deadline = _deadline(state)
    if deadline is not None and now >= deadline:
        text = "Pod was active on the node longer than the specified deadline"
        return _end(state, Ending("DeadlineExceeded", text, failed=True), now)
    if state.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return _end(state, Ending(), now)
    if containers.finished(state.pod, state.runs):
        return _end(state, Ending(), now)
    return state


def _sync(state: State, now: float) -> tuple[State, list[Command]]:
    ready = state.sandbox is not None and state.sandbox.ready
    if not ready:
        return _sync_sandbox(state, now)
    if not state.volumes_ready:
        return _prepare(state, now)
    plan = containers.plan(state.pod, state.runs, state.initialized, now)
    state = replace(state, initialized=plan.initialized)
    commands: list[Command] = []
    runs = dict(state.runs)
    busy = any(run.starting for run in runs.values())
    for one in plan.steps:
        run = runs.get(one.name, Run())
        match one:
            case Kill(name, message) if run.stop_at is None and run.current is not None:
                reason = run.kill[0] if run.kill else "Killing"
                grace = _kill_grace(state, name, reason)
                commands.append(StopContainer(name, run.current.id, grace, message))
                runs[name] = replace(run, stop_at=now + grace)
            case Start(name, kind, attempt) if not busy:
                busy = True
                commands.append(StartContainer(name, kind, attempt))
                runs[name] = replace(containers.after_start(run, now), starting=True)
            case containers.Wait(name, until, crashed):
                runs[name], told = _wait(state, run, name, until, crashed, now)
                commands += told
            case _:
                pass
    return replace(state, runs=runs), commands


def _kill_grace(state: State, name: str, reason: str) -> float:
    """The grace of one container that is to be restarted; a liveness or startup probe may have its own."""
    if reason == "Unhealthy":
        for kind in ("liveness", "startup"):
            own = (containers.probe_of(state.pod, name, kind) or {}).get("terminationGracePeriodSeconds")
            if own is not None:
                return float(own)
    return _grace(state.pod)


def _shown_until(run: Run) -> float:
    delay = min(_IMAGE_RETRY_LAST_S, _IMAGE_RETRY_FIRST_S * 2.0 ** (run.failures - 1))
    return run.retry_at - delay + _SHOW_ERROR_S


def _wait(state: State, run: Run, name: str, until: float, crashed: bool, now: float) -> tuple[Run, list[Command]]:
    """What a container that waits for its next start shows, and what is told when that changes."""
    meta = state.pod["metadata"]
    who = f"{meta['name']}_{meta.get('namespace', '')}({meta.get('uid', '')})"
    if crashed and run.backoff is not None:
        if run.waiting is not None and run.waiting[0] == "CrashLoopBackOff":
            return run, []
        text = f"back-off {_go_duration(run.backoff.delay_s)} restarting failed container={name} pod={who}"
        told = Tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {who}", name)
        return replace(run, waiting=("CrashLoopBackOff", text)), [told]
    if run.waiting is not None and run.waiting[0] == "ErrImagePull" and now >= _shown_until(run):
        image = next(c.get("image", "") for _k, c in containers.specs(state.pod) if c["name"] == name)
        text = f'Back-off pulling image "{image}"'
        detail = f"{text}: ErrImagePull: {run.waiting[1]}" if run.waiting[1] else text
        return replace(run, waiting=("ImagePullBackOff", detail)), [Tell("Normal", "BackOff", text, name)]
    return run, []


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _sync_sandbox(state: State, now: float) -> tuple[State, list[Command]]:
    if state.sandbox_busy or state.volumes_busy:
        return state, []
    if state.sandbox is not None:
        # It has died: what ran in it is ended, then it gives its address back, then there is a new one.
        ended, commands = _stop_all(state, now, MINIMUM_GRACE_S, _SANDBOX_CHANGED)
        if containers.alive(ended.runs):
            return ended, commands
        fresh = replace(ended, sandbox=None, attempt=ended.attempt + 1, sandbox_busy=True)
        told = Tell("Normal", "SandboxChanged", _SANDBOX_CHANGED)
        return _uninitialized(fresh), [told, StopSandbox(state.sandbox.id)]
    if not state.volumes_ready:
        return _prepare(state, now)
    if state.retry_at > now:
        return state, []
    return replace(state, sandbox_busy=True), [StartSandbox(state.attempt)]


def _uninitialized(state: State) -> State:
    """The init containers have to run again: what they made may have gone with the sandbox."""
    inits = {c["name"] for kind, c in containers.specs(state.pod) if kind == containers.INIT}
    runs = {
        name: replace(run, current=None, last=run.current or run.last) if name in inits else run
        for name, run in state.runs.items()
    }
    return replace(state, runs=runs, initialized=False)


def _prepare(state: State, now: float) -> tuple[State, list[Command]]:
    if state.volumes_busy or state.retry_at > now:
        return state, []
    return replace(state, volumes_busy=True), [PrepareVolumes()]


def _stop_all(state: State, now: float, grace_s: float, message: str) -> tuple[State, list[Command]]:
    commands: list[Command] = []
    runs = dict(state.runs)
    for name in containers.stop_order(state.pod, runs):
        run = runs[name]
        assert run.current is not None
        if run.stop_at is not None and run.stop_at <= now + grace_s + _SHORTER_S:
            continue
        commands.append(StopContainer(name, run.current.id, grace_s, message))
        runs[name] = replace(run, stop_at=now + grace_s)
    return replace(state, runs=runs), commands


def _terminate(state: State, now: float) -> tuple[State, list[Command]]:
    if not state.aborted:
        return (state, []) if state.aborting else (replace(state, aborting=True), [Abort()])
    if containers.alive(state.runs):
        left = max(MINIMUM_GRACE_S, state.ending_since + state.grace_s - now)
        return _stop_all(state, now, left, "")
    if state.releasing or state.retry_at > now:
        return state, []
    return replace(state, releasing=True), [Release()]


def _leave(state: State, now: float) -> tuple[State, list[Command]]:
    if state.removed or state.retry_at > now:
        return state, []
    if state.gone:
        if state.removing:
            return state, []
        return replace(state, removing=True), [RemoveAll()]
    if "deletionTimestamp" in state.pod["metadata"] and state.published and not state.deleting:
        return replace(state, deleting=True), [DeleteObject()]
    return state, []


def begin(pod: Object, now: float) -> State:
    """The state of a pod that was just learned of."""
    started = (pod.get("status") or {}).get("startTime")
    state = State(pod=pod, started_at=times.parse(started) if started else now)
    return _deletion(state, now)


def adopt(state: State, sandboxes: list[Sandbox], found: list[Container]) -> State:
    """`state` with what the runtime already holds for the pod (after a restart of the kubelet)."""
    newest = max(sandboxes, key=lambda s: (s.attempt, s.created_at), default=None)
    runs: dict[str, Run] = {}
    initialized = False
    for kind, container in containers.specs(state.pod):
        name = container["name"]
        current, last = containers.newest(found, name)
        known = _known_status(state.pod, name)
        if current is None:
            if known.get("restartCount"):
                runs[name] = Run(restarts=known["restartCount"])
            continue
        alive = current.state == cri.RUNNING
        # A running container has passed its startup probe once it was said to be started; probes find out the rest.
        runs[name] = Run(
            current=current,
            last=last,
            restarts=current.attempt,
            started=alive and (known.get("started") is True or container.get("startupProbe") is None),
            ready=alive and (known.get("ready") is True or container.get("readinessProbe") is None),
        )
        initialized = initialized or kind == containers.MAIN
    return replace(
        state,
        sandbox=newest,
        attempt=newest.attempt if newest else 0,
        runs=runs,
        initialized=initialized and newest is not None,
    )


def _known_status(pod: Object, name: str) -> Object:
    status = pod.get("status") or {}
    for group in ("initContainerStatuses", "containerStatuses"):
        for known in status.get(group) or ():
            if known["name"] == name:
                return dict(known)
    return {}
