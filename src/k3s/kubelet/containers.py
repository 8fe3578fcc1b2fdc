"""What to start, keep and kill among a pod's containers, and when a container may be started again.

Pure. `plan` answers for a pod that should run; stopping a pod is `pod.py`'s business. Sources: the Pod lifecycle page
(restart policies, init containers, sidecars, back-off from 10 s doubling to 5 min, forgotten after 10 min) and KEP-753.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from k3s.api.object import Object
from k3s.kubelet.launch import container_hash
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container

INIT, SIDECAR, MAIN, EPHEMERAL = "init", "sidecar", "main", "ephemeral"

BACKOFF_FIRST_S = 10.0
BACKOFF_LAST_S = 300.0
_BACKOFF_FORGET_S = 600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a container must have been dead before its next start; `at` is when this was decided."""

    delay_s: float
    at: float


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of one container of the pod.

    `current` is the newest container in the runtime, `last` the ended one before it. `waiting` is (reason, message) of
    why there is none, with `retry_at` for when to try again. `stop_at` is when a stop that is on its way turns to kill.
    """

    current: Container | None = None
    last: Container | None = None
    waiting: tuple[str, str] | None = None
    retry_at: float = 0.0
    failures: int = 0
    backoff: Backoff | None = None
    starting: bool = False
    stop_at: float | None = None
    started: bool = False
    ready: bool = False
    kill: tuple[str, str] | None = None
    restarts: int = 0

    @property
    def running(self) -> bool:
        """Its process runs, as far as is known."""
        return self.current is not None and self.current.state == cri.RUNNING

    @property
    def exited(self) -> bool:
        """It ran and has ended."""
        return self.current is not None and self.current.state == cri.EXITED


@dataclass(frozen=True, slots=True)
class Start:
    """Start this container now, as its `attempt`-th restart."""

    name: str
    kind: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End this container; it is started again afterwards when its policy says so."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """This container is not started before `until`; `reason` and `message` go into its status when it crashed."""

    name: str
    until: float
    crashed: bool


Step = Start | Kill | Wait


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps, and whether all init containers have done their work."""

    steps: tuple[Step, ...]
    initialized: bool


def specs(pod: Object) -> Iterator[tuple[str, Object]]:
    """Every container of the pod with its kind, in start order."""
    spec = pod["spec"]
    for container in spec.get("initContainers") or ():
        yield (SIDECAR if container.get("restartPolicy") == "Always" else INIT), container
    for container in spec.get("containers") or ():
        yield MAIN, container
    for container in spec.get("ephemeralContainers") or ():
        yield EPHEMERAL, container


def restart_policy(pod: Object, kind: str, container: Object) -> str:
    """Always, OnFailure or Never for one container (init containers are not run again after success)."""
    if kind == EPHEMERAL:
        return "Never"
    if kind == SIDECAR:
        return "Always"
    own = container.get("restartPolicy") or pod["spec"].get("restartPolicy") or "Always"
    return "OnFailure" if kind == INIT and own == "Always" else str(own)


def should_restart(policy: str, exit_code: int, container: Object | None = None) -> bool:
    """Whether a container that ended with this code is started again; its restart rules go first (KEP-5307)."""
    for rule in (container or {}).get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        inside = exit_code in (codes.get("values") or ())
        if inside == (codes.get("operator") == "In") and rule.get("action") == "Restart":
            return True
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def after_start(run: Run, now: float) -> Run:
    """`run` with the back-off that the next crash will meet: the first start after an end makes it 10 s."""
    if run.current is None or not run.exited:
        return run
    old = run.backoff
    if old is None or run.current.finished_at - old.at > _BACKOFF_FORGET_S:
        delay = BACKOFF_FIRST_S
    else:
        delay = min(old.delay_s * 2, BACKOFF_LAST_S)
    return replace(run, backoff=Backoff(delay, now))


def may_start_at(run: Run) -> float:
    """When the back-off of a container that ended is over; 0 when it has none."""
    if run.backoff is None or run.current is None or not run.exited:
        return 0.0
    if run.current.finished_at - run.backoff.at > _BACKOFF_FORGET_S:
        return 0.0
    return run.current.finished_at + run.backoff.delay_s


def _attempt(run: Run) -> int:
    return run.restarts + 1 if run.current is not None or run.last is not None else run.restarts


def _start(kind: str, name: str, run: Run, now: float) -> Step:
    until = max(may_start_at(run), run.retry_at)
    if until > now:
        return Wait(name, until, crashed=may_start_at(run) > now)
    return Start(name, kind, _attempt(run))


def _changed(container: Object, run: Run) -> bool:
    known = run.current.annotations.get(cri.CONTAINER_HASH) if run.current else None
    return known is not None and known != container_hash(container)


def _ended_for_good(pod: Object, kind: str, container: Object, run: Run) -> bool:
    assert run.current is not None
    return not should_restart(restart_policy(pod, kind, container), run.current.exit_code, container)


def plan(pod: Object, runs: Mapping[str, Run], initialized: bool, now: float) -> Plan:
    """The next steps for a pod whose sandbox is ready. `initialized`: its init containers were done before."""
    steps: list[Step] = []
    blocked = False
    for kind, container in specs(pod):
        name = container["name"]
        run = runs.get(name, Run())
        if run.running:
            if run.kill is not None:
                steps.append(Kill(name, run.kill[1]))
            elif _changed(container, run) and kind != INIT:
                steps.append(Kill(name, f"Container {name} definition changed, will be restarted"))
            blocked = blocked or kind == INIT or (kind == SIDECAR and not run.started and not initialized)
            continue
        if kind == EPHEMERAL:
            if run.current is None:
                steps.append(_start(kind, name, run, now))
            continue
        if blocked and kind != MAIN:
            continue
        if kind == MAIN:
            if blocked:
                continue
            if run.current is None or not run.exited or not _ended_for_good(pod, kind, container, run):
                steps.append(_start(kind, name, run, now))
            continue
        if kind == INIT and (initialized or (run.exited and run.current and run.current.exit_code == 0)):
            continue
        if run.exited and _ended_for_good(pod, kind, container, run):
            blocked = True
            continue
        steps.append(_start(kind, name, run, now))
        blocked = blocked or not initialized
    return Plan(tuple(steps), initialized or not blocked)


def finished(pod: Object, runs: Mapping[str, Run]) -> bool:
    """Whether the pod's work is over: no container will run again (sidecars do not count)."""
    for kind, container in specs(pod):
        run = runs.get(container["name"], Run())
        if kind == INIT:
            if run.exited and run.current and run.current.exit_code != 0 and _ended_for_good(pod, kind, container, run):
                return True
        elif kind == MAIN and (not run.exited or run.starting or not _ended_for_good(pod, kind, container, run)):
            return False
    return True


def alive(runs: Mapping[str, Run]) -> list[str]:
    """The names of the containers that run or are about to."""
    return [name for name, run in runs.items() if run.running or run.starting]


def stop_order(pod: Object, runs: Mapping[str, Run]) -> list[str]:
    """The containers to end now: all but sidecars together, then the sidecars one by one from the last (KEP-753)."""
    main = [c["name"] for kind, c in specs(pod) if kind != SIDECAR]
    running = [name for name in main if runs.get(name, Run()).running]
    if running:
        return running
    sidecars = [c["name"] for kind, c in specs(pod) if kind == SIDECAR]
    return next(([name] for name in reversed(sidecars) if runs.get(name, Run()).running), [])


def newest(containers: list[Container], name: str) -> tuple[Container | None, Container | None]:
    """The newest container of that name and the one before it, by attempt and then by age."""
    mine = sorted((c for c in containers if c.name == name), key=lambda c: (c.attempt, c.created_at), reverse=True)
    return (mine[0] if mine else None), (mine[1] if len(mine) > 1 else None)


def probe_of(pod: Object, name: str, kind: str) -> Any:
    """The probe of a container (`startup`, `readiness` or `liveness`), or None."""
    for container_kind, container in specs(pod):
        if container["name"] == name and container_kind in (MAIN, SIDECAR):
            return container.get(f"{kind}Probe")
    return None
