"""StatefulSets: pods with names that stay, made and ended in order, each with its own storage.

Source: the API documentation of apps/v1 StatefulSet, KEP-3335 (start ordinal), KEP-1847 (claim retention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers import history, pods
from k3s.controllers import statefulset_identity as identity
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Emit, Parallel, Update, delete, earliest
from k3s.controllers.claims import claim, dependents_of, selector_of
from k3s.controllers.known import CLAIM, CONTROLLER_REVISION, POD, STATEFUL_SET
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World


@dataclass(frozen=True, slots=True)
class State:
    """A set with its pods by ordinal and the two revisions that pods may be made from."""

    owner: Object
    current: Object
    update: Object
    slots: dict[int, Object | None]
    condemned: dict[int, Object]
    now: float

    @property
    def ordered(self) -> bool:
        """Whether one pod is waited for before the next is touched."""
        return bool(self.owner["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady")

    @property
    def partition(self) -> int:
        """The first ordinal that a rolling update touches."""
        rolling = (self.owner["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        return int(rolling.get("partition", 0)) + identity.start(self.owner)

    @property
    def rolls(self) -> bool:
        """False when pods are replaced only after someone deleted them (OnDelete)."""
        kind = (self.owner["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
        return bool(kind == "RollingUpdate")

    def wait(self, pod: Object) -> float | None:
        """Seconds until the pod counts as available, None while it is not running and ready."""
        if pods.phase(pod) != "Running":
            return None
        return pods.available_in(pod, self.owner["spec"].get("minReadySeconds", 0), self.now)

    def is_settled(self, pod: Object) -> bool:
        """Whether nothing has to be waited for at this pod."""
        return not objects.is_deleting(pod) and self.wait(pod) == 0

    def revision_for(self, ordinal: int) -> Object:
        """What a missing pod is made from: below the partition (or not yet updated) the current revision."""
        if not self.rolls:
            return self.update
        rolling = (self.owner["spec"].get("updateStrategy") or {}).get("rollingUpdate")
        if rolling is None:
            limit = identity.start(self.owner) + self.owner.get("status", {}).get("currentReplicas", 0)
        else:
            limit = self.partition
        return self.current if ordinal < limit else self.update


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a StatefulSet."""
    owner = world.get(STATEFUL_SET, key)
    if owner is None:
        return NOTHING
    owned = world.owned(POD, objects.uid(owner))
    orphans = [pod for pod in world.orphans(POD, objects.namespace(owner)) if identity.ordinal(owner, pod) is not None]
    claims = claim(POD, owner, selector_of(owner), owned, orphans)
    if claims:
        return Decision(claims)
    past = history.look(owner, world)
    if past.current is None:
        return Decision(past.actions)
    state = _state(owner, past, owned, now)
    status, wait = _status(state, owned)
    actions: list[Action] = []
    if status != owner.get("status", {}):
        actions.append(Update(STATEFUL_SET, evolve(owner, ("status",), status), "status"))
    if objects.is_deleting(owner):
        return Decision(actions)
    steps = _steps(state, world)
    if not steps:
        live = {objects.labels(pod).get(history.HASH, "") for pod in owned} | {objects.name(state.current)}
        steps = [*history.superfluous(owner, past.old, live)]
    return Decision([*actions, *steps], wait)


def _state(owner: Object, past: history.History, owned: Sequence[Object], now: float) -> State:
    update = past.current
    assert update is not None, "the present template has a revision"
    named = owner.get("status", {}).get("currentRevision")
    current = next((found for found in past.old if objects.name(found) == named), update)
    first = identity.start(owner)
    slots: dict[int, Object | None] = dict.fromkeys(range(first, first + owner["spec"].get("replicas", 1)))
    condemned: dict[int, Object] = {}
    for pod in owned:
        number = identity.ordinal(owner, pod)
        if number is None:
            continue
        if number in slots:
            slots[number] = pod
        else:
            condemned[number] = pod
    return State(owner, current, update, slots, condemned, now)


def _steps(state: State, world: World) -> list[Action]:
    """What can be done now; in an ordered set this is one pod."""
    steps, settled = _fill(state, world)
    if state.ordered and (steps or not settled):
        return steps
    steps += _shrink(state, world)
    if steps or state.condemned or not state.rolls:
        return steps
    return _roll(state)


def _fill(state: State, world: World) -> tuple[list[Action], bool]:
    """Makes missing pods and replaces ended ones, lowest ordinal first; tells whether all that are wanted are well."""
    claims: list[Action] = []
    makes: list[Action] = []
    repairs: list[Action] = []
    settled = True
    for number, pod in state.slots.items():
        if pod is None:
            revision = state.revision_for(number)
            claims += identity.missing_claims(state.owner, number, world)
            makes.append(Create(POD, identity.pod(state.owner, revision, number), about=state.owner))
        elif pods.is_finished(pod) and not objects.is_deleting(pod):
            text = f"StatefulSet {objects.key(state.owner)} is recreating failed Pod {objects.name(pod)}"
            repairs += [Emit(state.owner, "Warning", "RecreatingFailedPod", text), delete(POD, pod)]
        elif state.is_settled(pod):
            continue
        elif pods.phase(pod) == "Pending":
            claims += identity.missing_claims(state.owner, number, world)
        settled = False
        if state.ordered:
            break
    actions = [*claims, *repairs]
    if makes:
        actions.append(Parallel(makes, slow_start=True))
    return actions, settled


def _shrink(state: State, world: World) -> list[Action]:
    """Ends pods beyond the wanted number, highest ordinal first."""
    actions: list[Action] = []
    # The lowest one that is not well may go although others wait for it: nothing else would make it well.
    unwell = next((n for n in sorted(state.condemned) if not state.is_settled(state.condemned[n])), None)
    for number in sorted(state.condemned, reverse=True):
        pod = state.condemned[number]
        if objects.is_deleting(pod):
            if state.ordered:
                break
            continue
        if state.ordered and not state.is_settled(pod) and number != unwell:
            break
        actions += identity.hand_claims_to(state.owner, pod, number, world)
        actions.append(delete(POD, pod, about=state.owner))
        if state.ordered:
            break
    return actions


def _roll(state: State) -> list[Action]:
    """Ends the highest pod that is not of the update revision, once all above it are well."""
    wanted = objects.name(state.update)
    for number in sorted(state.slots, reverse=True):
        pod = state.slots[number]
        if number < state.partition or pod is None:
            return []
        if objects.labels(pod).get(history.HASH) != wanted and not objects.is_deleting(pod):
            return [delete(POD, pod, about=state.owner)]
        if not state.is_settled(pod):
            return []
    return []


def _status(state: State, owned: Sequence[Object]) -> tuple[Object, float | None]:
    owner, before = state.owner, state.owner.get("status", {})
    waits = [state.wait(pod) for pod in owned]
    living = [pod for pod in owned if not objects.is_deleting(pod)]
    revisions = [objects.labels(pod).get(history.HASH) for pod in living]
    current, update = objects.name(state.current), objects.name(state.update)
    counts = {
        "readyReplicas": sum(1 for wait in waits if wait is not None),
        "currentReplicas": revisions.count(current),
        "updatedReplicas": revisions.count(update),
    }
    if state.rolls and counts["updatedReplicas"] == len(owned) == counts["readyReplicas"]:
        current, counts["currentReplicas"] = update, counts["updatedReplicas"]
    status: Object = {
        "observedGeneration": owner["metadata"].get("generation", 0),
        "replicas": len(owned),
        **{name: count for name, count in counts.items() if count},
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": before.get("collisionCount", 0),
        "availableReplicas": sum(1 for wait in waits if wait == 0),
    }
    if "conditions" in before:
        status["conditions"] = before["conditions"]
    return status, earliest(*(wait for wait in waits if wait))


SPECS = (
    ControllerSpec(
        name="statefulset-controller",
        decide=decide,
        kind=STATEFUL_SET,
        watches=(dependents_of(STATEFUL_SET), dependents_of(STATEFUL_SET, CONTROLLER_REVISION)),
        reads=(CLAIM,),
        account="statefulset-controller",
    ),
)
