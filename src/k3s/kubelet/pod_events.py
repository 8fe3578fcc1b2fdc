"""What an event changes in what is known of a pod; nothing is decided here."""

from __future__ import annotations

from dataclasses import replace

from k3s.kubelet import containers
from k3s.kubelet.containers import Run
from k3s.kubelet.pod_state import Ending, Phase, State, deletion, end
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container
from k3s.kubelet.signals import (
    Aborted,
    DeleteFailed,
    Event,
    Evict,
    HookFailed,
    Observed,
    PodChanged,
    PodGone,
    Probed,
    Published,
    Released,
    Removed,
    Retry,
    SandboxDied,
    SandboxStarted,
    SandboxStopped,
    SetupFailed,
    Started,
    StartFailed,
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
# Even a container that may be killed at once gets this long after SIGTERM (minimumGracePeriodInSeconds).
MINIMUM_GRACE_S = 2.0
_IMAGE_ERRORS = ("ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable")


def fold(state: State, event: Event, now: float) -> State:
    """What is known once `event` has happened."""
    match event:
        case PodChanged(pod):
            return deletion(replace(state, pod=pod), now)
        case PodGone():
            ended = end(replace(state, gone=True), Ending(), now)
            return replace(ended, grace_s=min(ended.grace_s, MINIMUM_GRACE_S))
        case Evict(reason, message):
            return end(state, Ending(reason, message, failed=True), now)
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
        delay = _image_delay(failures)
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


def shown_until(run: Run) -> float:
    """Until when a failed pull is shown as such, before it is shown as waiting for the next try."""
    return run.retry_at - _image_delay(run.failures) + _SHOW_ERROR_S


def _image_delay(failures: int) -> float:
    return min(_IMAGE_RETRY_LAST_S, _IMAGE_RETRY_FIRST_S * 2.0 ** (failures - 1))
