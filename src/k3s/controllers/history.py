"""ControllerRevisions: the history of a DaemonSet's or StatefulSet's pod template, for rollbacks.

Source: the API documentation of apps/v1 ControllerRevision; `kubectl rollout history` and `undo` read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers.actions import Action, Create, Delete, Update, delete
from k3s.controllers.claims import claim, selector_of
from k3s.controllers.hashes import template_hash
from k3s.controllers.known import CONTROLLER_REVISION
from k3s.controllers.world import World

#: The label that ties a pod to the revision it was made from.
HASH = "controller-revision-hash"


class History(NamedTuple):
    """The revision of the present template (None until it is written), the others by number, and what to do first."""

    current: Object | None
    old: tuple[Object, ...]
    actions: list[Action]


def data_of(owner: Object) -> Object:
    """What a revision keeps: a patch that puts the template back."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def hash_of(revision: Object, owner: Object) -> str:
    """The value of the hash label for pods of a revision."""
    found = objects.labels(revision).get(HASH, "")
    # A StatefulSet labels its pods with the revision's whole name.
    return objects.name(revision) if owner["kind"] == "StatefulSet" else found


def look(owner: Object, world: World) -> History:
    """Finds the revision of the present template, or says how to make it; adopts and renumbers where needed."""
    owned = world.owned(CONTROLLER_REVISION, objects.uid(owner))
    orphans = world.orphans(CONTROLLER_REVISION, objects.namespace(owner))
    adopted = claim(CONTROLLER_REVISION, owner, selector_of(owner), owned, orphans)
    if adopted:
        return History(None, (), list(adopted))
    ordered = sorted(owned, key=lambda found: (found["revision"], objects.name(found)))
    data = data_of(owner)
    same = [found for found in ordered if found["data"] == data]
    last = ordered[-1]["revision"] if ordered else 0
    if not same:
        return History(None, tuple(ordered), _create(owner, data, last + 1, world))
    current = same[-1]
    old = tuple(found for found in ordered if found is not current)
    if current["revision"] < last:
        # A rollback: the old template is the newest revision again.
        return History(None, old, [Update(CONTROLLER_REVISION, evolve(current, ("revision",), last + 1))])
    return History(current, old, [])


def _create(owner: Object, data: Object, number: int, world: World) -> list[Action]:
    collisions = owner.get("status", {}).get("collisionCount")
    for count in (collisions, *range((collisions or 0) + 1, (collisions or 0) + 8)):
        digest = template_hash(data, count)
        name = f"{objects.name(owner)}-{digest}"
        if world.get(CONTROLLER_REVISION, f"{objects.namespace(owner)}/{name}") is None:
            break
    labels = {**(owner["spec"]["template"].get("metadata", {}).get("labels") or {}), HASH: digest}
    revision = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": objects.namespace(owner),
            "labels": labels,
            "annotations": _annotations(owner),
            "ownerReferences": [objects.owner_ref(owner)],
        },
        "data": data,
        "revision": number,
    }
    return [Create(CONTROLLER_REVISION, revision)]


def _annotations(owner: Object) -> dict[str, str]:
    ours = "kubectl.kubernetes.io/last-applied-configuration"
    return {key: value for key, value in objects.annotations(owner).items() if key != ours}


def superfluous(owner: Object, old: Sequence[Object], live: Collection[str]) -> list[Delete]:
    """Deletes revisions beyond revisionHistoryLimit whose hash no pod carries, the oldest first."""
    limit = owner["spec"].get("revisionHistoryLimit", 10)
    dead = [found for found in old if hash_of(found, owner) not in live]
    return [delete(CONTROLLER_REVISION, found) for found in dead[: max(len(dead) - limit, 0)]]
