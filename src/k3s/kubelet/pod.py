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

from dataclasses import replace

from k3s.kubelet import containers
from k3s.kubelet.containers import Kill, Run, Start
from k3s.kubelet.pod_events import MINIMUM_GRACE_S, fold, shown_until
from k3s.kubelet.pod_state import Ending, Phase, State, deadline, end, grace_of
from k3s.kubelet.signals import (
    Abort,
    Command,
    DeleteObject,
    Event,
    PrepareVolumes,
    Release,
    RemoveAll,
    StartContainer,
    StartSandbox,
    StopContainer,
    StopSandbox,
    Tell,
)

_SANDBOX_CHANGED = "Pod sandbox changed, it will be killed and re-created."
# How late a second stop must shorten the first to be given.
_SHORTER_S = 0.5


def step(state: State, event: Event, now: float) -> tuple[State, list[Command]]:
    """What is known after `event`, and what to do about it."""
    return _decide(fold(state, event, now), now)


def next_wake(state: State, now: float) -> float | None:
    """When a Tick is due although nothing happens, or None."""
    times_: list[float] = [state.retry_at] if state.retry_at > now else []
    if state.phase is Phase.SYNC:
        if (over := deadline(state)) is not None:
            times_.append(over)
        for run in state.runs.values():
            if not run.running and not run.starting:
                times_ += [t for t in (run.retry_at, containers.may_start_at(run)) if t > now]
                if run.waiting is not None and run.waiting[0] == "ErrImagePull":
                    times_.append(max(now, shown_until(run)))
    return min(times_) if times_ else None


def _decide(state: State, now: float) -> tuple[State, list[Command]]:
    if state.phase is Phase.SYNC:
        state = _maybe_over(state, now)
    if state.phase is Phase.SYNC:
        return _sync(state, now)
    if state.phase is Phase.TERMINATING:
        return _terminate(state, now)
    return _leave(state, now)


def _maybe_over(state: State, now: float) -> State:
    over = deadline(state)
    if over is not None and now >= over:
        text = "Pod was active on the node longer than the specified deadline"
        return end(state, Ending("DeadlineExceeded", text, failed=True), now)
    if state.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return end(state, Ending(), now)
    if containers.finished(state.pod, state.runs):
        return end(state, Ending(), now)
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
                grace = _killgrace_of(state, name, reason)
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


def _killgrace_of(state: State, name: str, reason: str) -> float:
    """The grace of one container that is to be restarted; a liveness or startup probe may have its own."""
    if reason == "Unhealthy":
        for kind in ("liveness", "startup"):
            own = (containers.probe_of(state.pod, name, kind) or {}).get("terminationGracePeriodSeconds")
            if own is not None:
                return float(own)
    return grace_of(state.pod)


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
    if run.waiting is not None and run.waiting[0] == "ErrImagePull" and now >= shown_until(run):
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
