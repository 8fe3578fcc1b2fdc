"""Adoption and release: an owner takes orphans that its selector matches and lets go of what it matches no longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3s.api import object as objects
from k3s.api import selectors
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.selectors import LabelSelector
from k3s.controllers import pods
from k3s.controllers.actions import Patch
from k3s.controllers.known import POD
from k3s.controllers.spec import Watch
from k3s.controllers.world import World


def selector_of(owner: Object) -> LabelSelector:
    """The selector in the spec: a LabelSelector object, or a plain map of labels (ReplicationController)."""
    selector = owner["spec"].get("selector")
    if owner["kind"] == "ReplicationController":
        return selectors.from_labels(selector or None)
    if selector and "matchExpressions" not in selector:
        # Values were checked when the object was written; this is the form that nearly every object has.
        return selectors.from_labels(selector.get("matchLabels"))
    return selectors.from_object(selector)


def claim(
    kind: Kind, owner: Object, selector: LabelSelector, owned: Iterable[Object], orphans: Iterable[Object]
) -> list[Patch]:
    """The patches that adopt and release objects of `kind`; an owner that is being deleted adopts nothing.

    Each patch carries the object's resourceVersion, so that nobody's change in between is lost.
    """
    patches = [release(kind, owner, obj) for obj in owned if not selector.matches(objects.labels(obj))]
    if not objects.is_deleting(owner) and not selector.is_everything:
        patches += [
            adopt(kind, owner, obj)
            for obj in orphans
            if not objects.is_deleting(obj) and selector.matches(objects.labels(obj))
        ]
    return patches


def adopt(kind: Kind, owner: Object, obj: Object) -> Patch:
    """Makes `owner` the controller of `obj`."""
    return set_owners(kind, obj, [*objects.owner_refs(obj), objects.owner_ref(owner)])


def release(kind: Kind, owner: Object, obj: Object) -> Patch:
    """Takes `owner` from the owners of `obj`."""
    uid = objects.uid(owner)
    return set_owners(kind, obj, [ref for ref in objects.owner_refs(obj) if ref["uid"] != uid])


def set_owners(kind: Kind, obj: Object, refs: list[Object]) -> Patch:
    """Replaces the owner references of exactly this version of `obj`."""
    meta = obj["metadata"]
    patch = {
        "metadata": {"ownerReferences": refs or None, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
    }
    return Patch(kind, meta.get("namespace", ""), meta["name"], patch)


def dependents_of(owner: Kind, kind: Kind = POD) -> Watch:
    """A change of a dependent concerns its controller; one of an orphan concerns every owner that may adopt it."""

    def of(obj: Object, world: World) -> Sequence[str]:
        if objects.controller_of(obj) is not None:
            return pods.owner_key(obj, owner.kind)
        owners = world.list(owner, objects.namespace(obj))
        return [objects.key(found) for found in owners if selector_of(found).matches(objects.labels(obj))]

    def keys(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
        if kind is POD and pods.same_for_owner(old, new):
            return ()
        return [key for obj in pods.sides(old, new) for key in of(obj, world)]

    return Watch(kind, keys)
