"""DaemonSets: one pod on each node that suits the template.

Source: the API documentation of apps/v1 DaemonSet, KEP-1591 (maxSurge).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k3s.api import nodeselectors, taints
from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers import history, nodes, pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Emit, Parallel, Update, delete, earliest
from k3s.controllers.claims import claim, dependents_of, selector_of
from k3s.controllers.deployment_bounds import share
from k3s.controllers.known import CONTROLLER_REVISION, DAEMON_SET, NODE, POD
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

_BURST = 250
# A pod that failed on its node is replaced after a while that doubles.
_BACKOFF_S, _BACKOFF_MOST_S = 1.0, 900.0
_GENERATION = "deprecated.daemonset.template.generation"

_ALWAYS_TOLERATED = (
    {"key": taints.NOT_READY, "operator": "Exists", "effect": "NoExecute"},
    {"key": taints.UNREACHABLE, "operator": "Exists", "effect": "NoExecute"},
    {"key": taints.DISK_PRESSURE, "operator": "Exists", "effect": "NoSchedule"},
    {"key": taints.MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"},
    {"key": taints.PID_PRESSURE, "operator": "Exists", "effect": "NoSchedule"},
    {"key": taints.UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"},
)
_HOST_NETWORK = {"key": taints.NETWORK_UNAVAILABLE, "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class State:
    """A DaemonSet, its pods by node, and on which nodes one is to run or may stay."""

    daemon: Object
    digest: str
    by_node: Mapping[str, list[Object]]
    wanted: tuple[str, ...]
    allowed: frozenset[str]
    now: float

    def is_new(self, pod: Object) -> bool:
        """Whether the pod was made from the present template."""
        return objects.labels(pod).get(history.HASH) == self.digest

    def wait(self, pod: Object) -> float | None:
        """Seconds until the pod counts as available, None while it is not ready."""
        return pods.available_in(pod, self.daemon["spec"].get("minReadySeconds", 0), self.now)

    def is_available(self, pod: Object) -> bool:
        """Whether the pod counts as available."""
        return not objects.is_deleting(pod) and self.wait(pod) == 0


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a DaemonSet."""
    daemon = world.get(DAEMON_SET, key)
    if daemon is None:
        return NOTHING
    selector = selector_of(daemon)
    if selector.is_everything:
        text = "This daemon set is selecting all pods. A non-empty selector is required."
        return Decision([Emit(daemon, "Warning", "SelectingAll", text)])
    owned = world.owned(POD, objects.uid(daemon))
    claims = claim(POD, daemon, selector, owned, world.orphans(POD, objects.namespace(daemon)))
    if claims:
        return Decision(claims)
    if objects.is_deleting(daemon):
        return NOTHING
    past = history.look(daemon, world)
    if past.current is None:
        return Decision(past.actions)
    state = _state(daemon, history.hash_of(past.current, daemon), owned, world, now)
    creations, deletions, wait, memory = _manage(state, world)
    create_more, delete_more = _roll(state, set(creations), {objects.uid(pod) for pod in deletions})
    status, ready_in = _status(state)
    actions: list[Action] = []
    if status != daemon.get("status", {}):
        actions.append(Update(DAEMON_SET, evolve(daemon, ("status",), status), "status"))
    makes = [Create(POD, _pod(state, node), about=daemon) for node in [*creations, *create_more][:_BURST]]
    if makes:
        actions.append(Parallel(makes, slow_start=True))
    ends = [delete(POD, pod, about=daemon) for pod in [*deletions, *delete_more][:_BURST]]
    if ends:
        actions.append(Parallel(ends))
    if not makes and not ends:
        actions += history.superfluous(daemon, past.old, {objects.labels(pod).get(history.HASH, "") for pod in owned})
    return Decision(actions, earliest(wait, ready_in), memory)


def tolerations(daemon: Object) -> list[Object]:
    """The template's tolerations with those that every daemon pod has."""
    spec = daemon["spec"]["template"]["spec"]
    own = spec.get("tolerations") or []
    always = [*_ALWAYS_TOLERATED, _HOST_NETWORK] if spec.get("hostNetwork") else list(_ALWAYS_TOLERATED)
    return [*own, *(toleration for toleration in always if toleration not in own)]


def suits(daemon: Object, node: Object, tolerated: Sequence[Object]) -> tuple[bool, bool]:
    """Whether a pod is to run on the node, and whether one that is there may stay."""
    if not nodeselectors.fits(daemon["spec"]["template"]["spec"], node):
        return False, False
    if not taints.untolerated(taints.taints_of(node), tolerated, ("NoSchedule", "NoExecute")):
        return True, True
    return False, not taints.untolerated(taints.taints_of(node), tolerated, ("NoExecute",))


def _state(daemon: Object, digest: str, owned: Iterable[Object], world: World, now: float) -> State:
    by_node: dict[str, list[Object]] = {}
    for pod in sorted(owned, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), objects.name(pod))):
        by_node.setdefault(nodes.meant_for(pod), []).append(pod)
    tolerated = tolerations(daemon)
    judged = {objects.name(node): suits(daemon, node, tolerated) for node in world.list(NODE)}
    wanted = tuple(name for name, (run, _) in judged.items() if run)
    return State(daemon, digest, by_node, wanted, frozenset(n for n, (_, stay) in judged.items() if stay), now)


def _manage(state: State, world: World) -> tuple[list[str], list[Object], float | None, Any]:
    """Nodes that lack a pod, pods that are to go, when to look again, and what to remember about failures."""
    creations: list[str] = []
    deletions: list[Object] = []
    waits: list[float | None] = []
    failures: Mapping[str, tuple[int, float]] = world.memory or {}
    memory: dict[str, tuple[int, float]] = {}
    known = {objects.name(node) for node in world.list(NODE)}
    for name in dict.fromkeys([*state.wanted, *state.by_node]):
        present = state.by_node.get(name, [])
        alive = [pod for pod in present if not objects.is_deleting(pod)]
        if name not in state.allowed:
            # Pods of nodes that are gone are the pod garbage collector's, unless they never got there.
            deletions += [pod for pod in alive if name in known or not pod["spec"].get("nodeName")]
            continue
        failed = [pod for pod in alive if pods.phase(pod) == "Failed"]
        running = [pod for pod in alive if pods.phase(pod) != "Failed"]
        if failed:
            count, since = failures.get(name, (0, state.now))
            due = since + min(_BACKOFF_S * 2.0**count, _BACKOFF_MOST_S)
            memory[name] = (count, since) if due > state.now else (count + 1, state.now)
            if due > state.now:
                waits.append(due - state.now)
            else:
                deletions += failed
        elif name in failures and not any(map(state.is_available, running)):
            memory[name] = failures[name]
        deletions += _surplus(state, running)
        if name in state.wanted and not present:
            creations.append(name)
    return creations, deletions, earliest(*waits), memory or None


def _surplus(state: State, running: Sequence[Object]) -> list[Object]:
    """All but the oldest pod of a node; in an update with surge the oldest old and the oldest new may be together."""
    groups = [running]
    if _bounds(state)[0]:
        groups = [[p for p in running if state.is_new(p)], [p for p in running if not state.is_new(p)]]
    return [pod for group in groups for pod in group[1:]]


def _bounds(state: State) -> tuple[int, int]:
    """maxSurge and maxUnavailable as counts."""
    strategy = state.daemon["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = share(rolling.get("maxSurge", 0), len(state.wanted), up=True)
    unavailable = share(rolling.get("maxUnavailable", 1), len(state.wanted), up=True)
    return surge, unavailable if surge or unavailable else 1


def _roll(state: State, creations: set[str], leaving: set[str]) -> tuple[list[str], list[Object]]:
    """Old pods that may be replaced now, and nodes on which the new pod may start beside the old one."""
    surge, unavailable = _bounds(state)
    if not surge and not unavailable:
        return [], []
    rows = []
    for name in state.wanted:
        alive = [pod for pod in state.by_node.get(name, ()) if objects.uid(pod) not in leaving]
        old = next((pod for pod in alive if not state.is_new(pod)), None)
        rows.append((name, old, next((pod for pod in alive if state.is_new(pod)), None)))
    return _roll_up(state, rows, surge, creations) if surge else ([], _roll_over(state, rows, unavailable))


def _roll_over(
    state: State, rows: Sequence[tuple[str, Object | None, Object | None]], unavailable: int
) -> list[Object]:
    missing = 0
    at_once: list[Object] = []
    candidates: list[Object] = []
    for _, old, new in rows:
        if old is None:
            missing += new is None or not state.is_available(new)
        elif not state.is_available(old):
            missing += 1
            if not objects.is_deleting(old):
                at_once.append(old)
        else:
            candidates.append(old)
    return at_once + candidates[: max(unavailable - missing, 0)]


def _roll_up(
    state: State, rows: Sequence[tuple[str, Object | None, Object | None]], surge: int, creations: set[str]
) -> tuple[list[str], list[Object]]:
    above = 0
    deletions: list[Object] = []
    at_once: list[str] = []
    candidates: list[str] = []
    for name, old, new in rows:
        if old is None or name in creations:
            continue
        if new is not None:
            above += 1
            if state.is_available(new) and not objects.is_deleting(old):
                deletions.append(old)
        elif state.is_available(old):
            candidates.append(name)
        else:
            at_once.append(name)
    return at_once + candidates[: max(surge - above, 0)], deletions


def _pod(state: State, node: str) -> Object:
    daemon = state.daemon
    template = daemon["spec"]["template"]
    spec = nodes.bound_to({**template["spec"], "tolerations": tolerations(daemon)}, node)
    labels = {history.HASH: state.digest}
    if generation := objects.annotations(daemon).get(_GENERATION):
        labels["pod-template-generation"] = generation
    return pods.from_template(template, daemon, labels=labels, spec=spec)


def _status(state: State) -> tuple[Object, float | None]:
    daemon = state.daemon
    scheduled = ready = available = updated = misplaced = 0
    waits: list[float | None] = []
    wanted = set(state.wanted)
    for name in dict.fromkeys([*state.wanted, *state.by_node]):
        present = [pod for pod in state.by_node.get(name, ()) if not objects.is_deleting(pod)]
        if name not in wanted:
            misplaced += bool(present) and name != ""
            continue
        if not present:
            continue
        scheduled += 1
        # Beside a new pod the older one counts, until it is gone.
        pod = next((found for found in present if pods.is_ready(found)), present[0])
        wait = state.wait(pod)
        ready += wait is not None
        available += wait == 0
        waits.append(wait if wait else None)
        updated += any(map(state.is_new, present))
    status: Object = {
        "currentNumberScheduled": scheduled,
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": len(state.wanted),
        "numberReady": ready,
        "observedGeneration": daemon["metadata"].get("generation", 0),
    }
    unavailable = len(state.wanted) - available
    more = {"updatedNumberScheduled": updated, "numberAvailable": available, "numberUnavailable": unavailable}
    status |= {name: count for name, count in more.items() if count}
    for kept in ("collisionCount", "conditions"):
        if kept in daemon.get("status", {}):
            status[kept] = daemon["status"][kept]
    return status, earliest(*waits)


def _of_node(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    """Sets that a change of the node's labels or taints concerns; heartbeats concern none."""
    if old is not None and new is not None:
        same = objects.labels(old) == objects.labels(new) and taints.taints_of(old) == taints.taints_of(new)
        if same:
            return ()
    concerned = []
    for daemon in world.list(DAEMON_SET):
        tolerated = tolerations(daemon)
        before = suits(daemon, old, tolerated) if old is not None else (False, False)
        after = suits(daemon, new, tolerated) if new is not None else (False, False)
        if before != after:
            concerned.append(objects.key(daemon))
    return concerned


SPECS = (
    ControllerSpec(
        name="daemonset-controller",
        decide=decide,
        kind=DAEMON_SET,
        watches=(dependents_of(DAEMON_SET), Watch(NODE, _of_node), dependents_of(DAEMON_SET, CONTROLLER_REVISION)),
        account="daemon-set-controller",
        workers=2,
    ),
)
