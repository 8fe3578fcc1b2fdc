"""How large the replica sets of a Deployment are to be: arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers import deployment_revisions as revisions
from k3s.controllers.deployment_bounds import bounds


def new_size(deployment: Object, old: Sequence[Object], new: Object | None) -> int:
    """The size of the new replica set: as large as maxSurge allows beside the old ones."""
    replicas = int(deployment["spec"].get("replicas", 1))
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        return replicas
    size = _size(new) if new is not None else 0
    if size >= replicas:
        return replicas
    surge, _ = bounds(deployment)
    room = replicas + surge - sum(map(_size, old)) - size
    return size if room <= 0 else size + min(room, replicas - size)


def proportional(deployment: Object, new: Object | None, old: Sequence[Object]) -> list[tuple[Object, int]]:
    """The sizes with which a change of spec.replicas in the middle of a rollout keeps the sets' proportions."""
    replicas = int(deployment["spec"].get("replicas", 1))
    all_sets = [*old, new] if new is not None else list(old)
    active = [rs for rs in all_sets if _size(rs)]
    if len(active) <= 1:
        only = active[0] if active else new if new is not None else old[-1] if old else None
        return [] if only is None else [(only, replicas)]
    if new is not None and _is_saturated(new, replicas):
        return [(rs, 0) for rs in old if _size(rs)]
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        return []
    return _spread(deployment, active, replicas)


def _size(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def _is_saturated(new: Object, replicas: int) -> bool:
    noted = objects.annotations(new).get(revisions.DESIRED)
    available = new.get("status", {}).get("availableReplicas", 0)
    return _size(new) == replicas and noted == str(replicas) and available == replicas


def _spread(deployment: Object, active: list[Object], replicas: int) -> list[tuple[Object, int]]:
    surge, _ = bounds(deployment)
    most = replicas + surge if replicas else 0
    to_add = most - sum(map(_size, active))
    # Larger sets first; among equals the newer grows and the older shrinks.
    by_age = sorted(active, key=lambda rs: rs["metadata"].get("creationTimestamp", ""), reverse=to_add > 0)
    ordered = sorted(by_age, key=_size, reverse=True)
    sizes, added = [], 0
    for rs in ordered:
        portion = 0
        if to_add and added != to_add:
            wanted, allowed = _fraction(deployment, rs, most), to_add - added
            portion = min(wanted, allowed) if to_add > 0 else max(wanted, allowed)
        sizes.append(_size(rs) + portion)
        added += portion
    sizes[0] = max(sizes[0] + to_add - added, 0)
    return list(zip(ordered, sizes, strict=True))


def _fraction(deployment: Object, rs: Object, most: int) -> int:
    """By how much a set changes when all keep their proportion."""
    if not most:
        return -_size(rs)
    noted = objects.annotations(rs).get(revisions.MOST)
    before = int(noted) if noted and noted.isdecimal() else deployment.get("status", {}).get("replicas", 0)
    if not before:
        return 0
    return math.floor(_size(rs) * most / before + 0.5) - _size(rs)
