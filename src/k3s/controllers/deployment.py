"""Deployments: rolls replica sets from one pod template to the next.

Source: the API documentation of apps/v1 Deployment; the steps and their numbers follow upstream's controller, because
tools read its conditions, annotations and events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers import deployment_revisions as revisions
from k3s.controllers import deployment_status as statuses
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Emit, Update, delete
from k3s.controllers.claims import claim, dependents_of, selector_of
from k3s.controllers.deployment_bounds import bounds
from k3s.controllers.deployment_scale import new_size, proportional
from k3s.controllers.known import DEPLOYMENT, POD, REPLICA_SET
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment with its replica sets: the one of the present template (if there is one) and older ones, by age."""

    deployment: Object
    new: Object | None
    old: tuple[Object, ...]

    @property
    def all(self) -> tuple[Object, ...]:
        """All replica sets."""
        return (*self.old, self.new) if self.new is not None else self.old

    @property
    def replicas(self) -> int:
        """How many replicas are wanted."""
        return int(self.deployment["spec"].get("replicas", 1))


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Deployment: one step, after which it is decided again."""
    deployment = world.get(DEPLOYMENT, key)
    if deployment is None:
        return NOTHING
    selector = selector_of(deployment)
    if selector.is_everything:
        text = "This deployment is selecting all pods. A non-empty selector is required."
        return Decision([Emit(deployment, "Warning", "SelectingAll", text)])
    owned = world.owned(REPLICA_SET, objects.uid(deployment))
    claims = claim(REPLICA_SET, deployment, selector, owned, world.orphans(REPLICA_SET, objects.namespace(deployment)))
    if claims:
        return Decision(claims)
    rollout = split(deployment, owned)
    if objects.is_deleting(deployment):
        return _with_status(rollout, [], now, progress=False)
    paused = statuses.pause_changed(deployment, now)
    if paused is not None:
        return Decision([Update(DEPLOYMENT, evolve(deployment, ("status", "conditions"), paused), "status")])
    if deployment["spec"].get("paused"):
        return _with_status(rollout, _scale_only(rollout) or _clean_up(rollout), now, progress=False)
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        return _recreate(rollout, world, now)
    if any(_desired(rs) not in (None, rollout.replicas) for rs in rollout.all if _size(rs)):
        return _with_status(rollout, _scale_only(rollout), now, progress=False)
    return _roll(rollout, world, now)


def split(deployment: Object, owned: Sequence[Object]) -> Rollout:
    """Finds the replica set of the present template (the oldest one, when several have it)."""
    by_age = sorted(owned, key=lambda rs: (rs["metadata"].get("creationTimestamp", ""), objects.name(rs)))
    wanted = deployment["spec"]["template"]
    new = next((rs for rs in by_age if revisions.same_template(rs["spec"]["template"], wanted)), None)
    return Rollout(deployment, new, tuple(rs for rs in by_age if rs is not new))


def _size(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def _available(rs: Object) -> int:
    return int(rs.get("status", {}).get("availableReplicas", 0))


def _desired(rs: Object) -> int | None:
    text = objects.annotations(rs).get(revisions.DESIRED)
    return int(text) if text and text.isdecimal() else None


def _resize(rollout: Rollout, rs: Object, size: int) -> list[Action]:
    """The actions that give a replica set another size and note what the Deployment wanted then."""
    deployment, old = rollout.deployment, _size(rs)
    notes = revisions.size_annotations(deployment)
    new = evolve(rs, ("metadata", "annotations"), {**objects.annotations(rs), **notes})
    if old == size and objects.annotations(new) == objects.annotations(rs):
        return []
    actions: list[Action] = [Update(REPLICA_SET, evolve(new, ("spec", "replicas"), size))]
    if old != size:
        actions.append(_scaled(deployment, objects.name(rs), old, size))
    return actions


def _scaled(deployment: Object, name: str, old: int, new: int) -> Emit:
    way = "up" if new > old else "down"
    text = f"Scaled {way} replica set {name} from {old} to {new}"
    return Emit(deployment, "Normal", "ScalingReplicaSet", text)


def _with_status(rollout: Rollout, actions: Sequence[Action], now: float, *, progress: bool) -> Decision:
    """Adds the status update, when there is one, and the time at which the progress deadline is over."""
    deployment = rollout.deployment
    status = statuses.status(deployment, rollout.new, rollout.old, now, progress=progress)
    wait = statuses.deadline_in(deployment, status, now) if progress else None
    if status == deployment.get("status", {}):
        return Decision(actions, wait)
    return Decision([*actions, Update(DEPLOYMENT, evolve(deployment, ("status",), status), "status")], wait)


def _scale_only(rollout: Rollout) -> list[Action]:
    """Brings the replica sets to the Deployment's size without rolling any further."""
    sizes = proportional(rollout.deployment, rollout.new, rollout.old)
    return [action for rs, size in sizes for action in _resize(rollout, rs, size)]


def _ensure_new(rollout: Rollout, world: World) -> list[Action]:
    """Makes the replica set of the present template, or brings its annotations up to date."""
    deployment, new = rollout.deployment, rollout.new
    revision = revisions.next_revision(rollout.old)
    if new is None:
        return _create_new(rollout, revision, world)
    notes = revisions.notes_for(deployment, new, revision)
    min_ready_s = deployment["spec"].get("minReadySeconds", 0)
    if notes != objects.annotations(new) or new["spec"].get("minReadySeconds", 0) != min_ready_s:
        changed = evolve(new, ("metadata", "annotations"), notes)
        return [Update(REPLICA_SET, evolve(changed, ("spec", "minReadySeconds"), min_ready_s))]
    shown = notes.get(revisions.REVISION, "")
    if objects.annotations(deployment).get(revisions.REVISION) != shown:
        marked = {**objects.annotations(deployment), revisions.REVISION: shown}
        return [Update(DEPLOYMENT, evolve(deployment, ("metadata", "annotations"), marked))]
    return []


def _create_new(rollout: Rollout, revision: int, world: World) -> list[Action]:
    deployment = rollout.deployment
    size = new_size(deployment, rollout.old, None)
    rs = revisions.replica_set(deployment, size, revision)
    if world.get(REPLICA_SET, objects.key(rs)) is not None:
        # The name is taken by a set with another template or owner: another hash has to be found.
        count = deployment.get("status", {}).get("collisionCount", 0) + 1
        return [Update(DEPLOYMENT, evolve(deployment, ("status", "collisionCount"), count), "status")]
    actions: list[Action] = [Create(REPLICA_SET, rs)]
    if size:
        actions.append(_scaled(deployment, objects.name(rs), 0, size))
    marked = {**objects.annotations(deployment), revisions.REVISION: str(revision)}
    if marked != objects.annotations(deployment):
        actions.append(Update(DEPLOYMENT, evolve(deployment, ("metadata", "annotations"), marked)))
    return actions


def _roll(rollout: Rollout, world: World, now: float) -> Decision:
    actions = _ensure_new(rollout, world)
    if actions or rollout.new is None:
        return Decision(actions)
    size = new_size(rollout.deployment, rollout.old, rollout.new)
    actions = _resize(rollout, rollout.new, size)
    if not actions:
        actions = _shrink_old(rollout)
    if not actions and statuses.is_complete(rollout.deployment, rollout.deployment.get("status", {})):
        actions = _clean_up(rollout)
    return _with_status(rollout, actions, now, progress=True)


def _shrink_old(rollout: Rollout) -> list[Action]:
    """Takes from older sets what is unhealthy, then as many as may be missing."""
    new = rollout.new
    assert new is not None, "old replica sets shrink only beside a new one"
    old = [rs for rs in rollout.old if _size(rs)]
    if not old:
        return []
    _, max_unavailable = bounds(rollout.deployment)
    least = rollout.replicas - max_unavailable
    total = sum(map(_size, rollout.all))
    budget = total - least - (_size(new) - _available(new))
    if budget <= 0:
        return []
    sizes = {objects.name(rs): _size(rs) for rs in old}
    for rs in old:
        unhealthy = min(budget, max(_size(rs) - _available(rs), 0))
        sizes[objects.name(rs)] -= unhealthy
        budget -= unhealthy
    spare = sum(map(_available, rollout.all)) - least
    for rs in old:
        taken = min(sizes[objects.name(rs)], max(spare, 0))
        sizes[objects.name(rs)] -= taken
        spare -= taken
    changed = [(rs, sizes[objects.name(rs)]) for rs in old if sizes[objects.name(rs)] != _size(rs)]
    return [action for rs, size in changed for action in _resize(rollout, rs, size)]


def _recreate(rollout: Rollout, world: World, now: float) -> Decision:
    down = [action for rs in rollout.old if _size(rs) for action in _resize(rollout, rs, 0)]
    if down or _old_pods_run(rollout, world):
        return _with_status(rollout, down, now, progress=True)
    actions = _ensure_new(rollout, world)
    if actions or rollout.new is None:
        return Decision(actions)
    actions = _resize(rollout, rollout.new, rollout.replicas)
    if not actions and statuses.is_complete(rollout.deployment, rollout.deployment.get("status", {})):
        actions = _clean_up(rollout)
    return _with_status(rollout, actions, now, progress=True)


def _old_pods_run(rollout: Rollout, world: World) -> bool:
    if any(rs.get("status", {}).get("replicas", 0) for rs in rollout.old):
        return True
    return any(not pods.is_finished(pod) for rs in rollout.old for pod in world.owned(POD, objects.uid(rs)))


def _clean_up(rollout: Rollout) -> list[Action]:
    """Deletes empty old replica sets beyond revisionHistoryLimit, the oldest revisions first."""
    limit = rollout.deployment["spec"].get("revisionHistoryLimit", 10)
    candidates = [rs for rs in rollout.old if not objects.is_deleting(rs)]
    excess = sorted(candidates, key=revisions.revision_of)[: max(len(candidates) - limit, 0)]
    return [delete(REPLICA_SET, rs) for rs in excess if _is_empty(rs)]


def _is_empty(rs: Object) -> bool:
    status = rs.get("status", {})
    seen = status.get("observedGeneration", 0) >= rs["metadata"].get("generation", 0)
    return seen and not _size(rs) and not status.get("replicas", 0)


def _of_pod(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    """Only Recreate waits for pods themselves: for the end of the last old one."""
    pod = new if new is not None else old
    if pod is None or (new is not None and not pods.is_finished(new)):
        return ()
    for rs_key in pods.owner_key(pod, "ReplicaSet"):
        rs = world.get(REPLICA_SET, rs_key)
        for key in pods.owner_key(rs, "Deployment") if rs is not None else ():
            deployment = world.get(DEPLOYMENT, key)
            if deployment is not None and deployment["spec"].get("strategy", {}).get("type") == "Recreate":
                return (key,)
    return ()


SPECS = (
    ControllerSpec(
        name="deployment-controller",
        decide=decide,
        kind=DEPLOYMENT,
        watches=(dependents_of(DEPLOYMENT, REPLICA_SET), Watch(POD, _of_pod)),
        account="deployment-controller",
    ),
)
