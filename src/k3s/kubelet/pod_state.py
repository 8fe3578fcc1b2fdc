"""What is known of one pod on its node, from its beginning or its adoption to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from k3s.api import times
from k3s.api.object import Object
from k3s.kubelet import containers
from k3s.kubelet.containers import Run
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container, Sandbox

_DEFAULT_GRACE_S = 30.0


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


def begin(pod: Object, now: float) -> State:
    """The state of a pod that was just learned of."""
    started = (pod.get("status") or {}).get("startTime")
    state = State(pod=pod, started_at=times.parse(started) if started else now)
    return deletion(state, now)


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


def deletion(state: State, now: float) -> State:
    """`state`, ending when its object is being deleted; a second deletion can only shorten the grace."""
    meta = state.pod["metadata"]
    if "deletionTimestamp" not in meta:
        return state
    asked = meta.get("deletionGracePeriodSeconds")
    state = end(state, Ending(), now)
    if asked is None:
        return state
    return replace(state, grace_s=min(float(asked), state.grace_s) if state.phase is not Phase.SYNC else float(asked))


def grace_of(pod: Object) -> float:
    """The grace that the pod asks for, in seconds."""
    chosen = pod["spec"].get("terminationGracePeriodSeconds")
    return _DEFAULT_GRACE_S if chosen is None else float(chosen)


def end(state: State, ending: Ending, now: float) -> State:
    """`state`, from now on coming to its end; the first reason counts."""
    if state.phase is not Phase.SYNC:
        return state
    return replace(
        state, phase=Phase.TERMINATING, ending=ending, ending_since=now, grace_s=grace_of(state.pod), retry_at=0.0
    )


def deadline(state: State) -> float | None:
    """When the pod has to end whatever it does (spec.activeDeadlineSeconds), in seconds since the epoch."""
    seconds = state.pod["spec"].get("activeDeadlineSeconds")
    return None if seconds is None else state.started_at + float(seconds)
