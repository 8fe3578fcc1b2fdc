"""Garbage collection: an object whose owners are all gone goes too.

Deleting an owner has three ways (propagationPolicy). Background: it goes at once, its dependents after it. Foreground:
the finalizer `foregroundDeletion` holds it until dependents that block it are gone. Orphan: the finalizer `orphan`
holds it until its dependents have forgotten it. Source: the documentation of garbage collection and OwnerReference.

A key is `apiVersion|kind|namespace/name`. Only metadata is looked at, in the caches that everyone shares; the graph is
their index by owner, so there is no second copy of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api.kinds import Kind, Registry, split_api_version
from k3s.api.object import Object
from k3s.controllers.actions import NOTHING, Action, Decision, Emit, Parallel, Patch, delete
from k3s.controllers.claims import set_owners
from k3s.controllers.spec import ControllerSpec, Decide, Keys, Observe
from k3s.controllers.world import World

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
#: Stands for an owner that there is, but in another namespace than the object that names it.
ELSEWHERE: Object = {}


class Owner(NamedTuple):
    """Where a reference points."""

    kind: Kind
    key: str


def item_key(kind: Kind, obj: Object) -> str:
    """The key of an object among all kinds."""
    return f"{kind.api_version}|{kind.kind}|{objects.key(obj)}"


def locate(registry: Registry, key: str) -> tuple[Kind | None, str]:
    """The kind (None when it is not served any more) and the plain key."""
    api_version, kind, plain = key.split("|", 2)
    return registry.by_kind(*split_api_version(api_version), kind), plain


def owner_kind(registry: Registry, ref: Object) -> Kind | None:
    """The kind that a reference names, in the version that is stored; None when there is none."""
    named = registry.by_kind(*split_api_version(ref["apiVersion"]), ref["kind"])
    return registry.storage_kind(named) if named is not None and named.stored else None


def owner_of(registry: Registry, kind: Kind, obj: Object, ref: Object) -> Owner | None:
    """Where a reference of `obj` points; None when that cannot be told (unknown kind, or in no namespace)."""
    owner = owner_kind(registry, ref)
    if owner is None or (owner.namespaced and not kind.namespaced):
        return None
    return Owner(owner, f"{objects.namespace(obj)}/{ref['name']}" if owner.namespaced else ref["name"])


def cached(world: World, owner: Owner, uid: str) -> Object | None:
    """The owner with this uid, when the cache has it."""
    if owner.kind not in world.kinds():
        return None
    found = world.get(owner.kind, owner.key)
    return found if found is not None and objects.uid(found) == uid else None


def dependents(world: World, uid: str) -> list[tuple[Kind, Object]]:
    """Everything of any kind that names this owner."""
    return [(kind, obj) for kind in world.kinds() for obj in world.dependents(kind, uid)]


def decider(registry: Registry) -> Decide:
    """The decider for these kinds; `world.observed` maps uids of owners not in the cache to what the server
    said (None: gone for good; ELSEWHERE: in a namespace where the reference does not reach)."""

    def decide(key: str, world: World, now: float) -> Decision:
        kind, plain = locate(registry, key)
        obj = world.get(kind, plain) if kind is not None and kind in world.kinds() else None
        if kind is None or obj is None:
            return NOTHING
        if not objects.is_deleting(obj):
            return _judge(registry, kind, obj, world)
        finalizers = obj["metadata"].get("finalizers") or []
        if ORPHAN in finalizers:
            return _let_go(kind, obj, world)
        if FOREGROUND in finalizers:
            return _finish(kind, obj, world)
        return NOTHING

    return decide


def _judge(registry: Registry, kind: Kind, obj: Object, world: World) -> Decision:
    """Keeps an object that has an owner left, deletes one that has none."""
    looked_up: Mapping[str, Object | None] = world.observed or {}
    solid: list[Object] = []
    waiting: list[Object] = []
    refs = objects.owner_refs(obj)
    told: list[Action] = [_stray(obj, ref) for ref in refs if looked_up.get(ref["uid"]) is ELSEWHERE]
    for ref in refs:
        owner = owner_of(registry, kind, obj, ref)
        if owner is None:
            return Decision(told)  # Whether this owner is there cannot be told, so nothing is done to the object.
        found = cached(world, owner, ref["uid"])
        if found is None:
            if ref["uid"] not in looked_up:
                # The object changed while its owners were looked up.
                return Decision(requeue_after_s=0.0)
            found = looked_up[ref["uid"]]
        if found is not None and found is not ELSEWHERE:
            (waiting if FOREGROUND in _held(found) else solid).append(ref)
    if not refs or len(solid) == len(refs):
        return NOTHING
    if solid:
        return Decision([*told, set_owners(kind, obj, solid)])
    return Decision([*told, *_remove(kind, obj, bool(waiting), world)])


def _stray(obj: Object, ref: Object) -> Emit:
    """Tells that a reference leads to an object of another namespace."""
    space = objects.namespace(obj)
    named = f"{ref['apiVersion']}/{ref['kind']}, namespace: {space}, name: {ref['name']}, uid: {ref['uid']}"
    return Emit(obj, "Warning", "OwnerRefInvalidNamespace", f'ownerRef [{named}] does not exist in namespace "{space}"')


def _remove(kind: Kind, obj: Object, owner_waits: bool, world: World) -> list[Action]:
    finalizers = obj["metadata"].get("finalizers") or []
    policy = "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
    below = dependents(world, objects.uid(obj)) if owner_waits else []
    if below:
        policy = "Foreground"
        if any(
            objects.is_deleting(dep) and FOREGROUND in (dep["metadata"].get("finalizers") or ()) for _, dep in below
        ):
            # A circle of objects that wait for each other would wait for ever: this one lets its owners go first.
            refs = [{**ref, "blockOwnerDeletion": False} for ref in objects.owner_refs(obj)]
            if refs != objects.owner_refs(obj):
                return [set_owners(kind, obj, refs)]
    return [delete(kind, obj, propagation=policy, revision=objects.revision(obj))]


def _let_go(kind: Kind, obj: Object, world: World) -> Decision:
    uid = objects.uid(obj)
    patches = [
        set_owners(dep_kind, dep, [ref for ref in objects.owner_refs(dep) if ref["uid"] != uid])
        for dep_kind, dep in dependents(world, uid)
    ]
    return Decision([Parallel(patches)] if patches else [_without_finalizer(kind, obj, ORPHAN)])


def _finish(kind: Kind, obj: Object, world: World) -> Decision:
    uid = objects.uid(obj)
    for _, dep in dependents(world, uid):
        if any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in objects.owner_refs(dep)):
            return NOTHING
    return Decision([_without_finalizer(kind, obj, FOREGROUND)])


def _without_finalizer(kind: Kind, obj: Object, finalizer: str) -> Patch:
    meta = obj["metadata"]
    left = [name for name in meta["finalizers"] if name != finalizer]
    change = {"finalizers": left or None, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
    return Patch(kind, meta.get("namespace", ""), meta["name"], {"metadata": change})


def _held(obj: Object | None) -> tuple[str, ...]:
    """The finalizers of ours that hold an object which is being deleted."""
    if obj is None or not objects.is_deleting(obj):
        return ()
    return tuple(name for name in obj["metadata"].get("finalizers") or () if name in (FOREGROUND, ORPHAN))


def watcher(registry: Registry, died: Callable[[str], None]) -> Callable[[Kind], Keys]:
    """Which objects a change of an object of any kind concerns; `died` is told the uids that are gone for good."""

    def everywhere(kind: Kind) -> Keys:
        def keys(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
            before = objects.owner_refs(old) if old is not None else []
            after = objects.owner_refs(new) if new is not None else []
            found: dict[str, None] = {}
            if old is not None and (new is None or objects.uid(old) != objects.uid(new)):
                died(objects.uid(old))
                found |= {item_key(k, dep): None for k, dep in dependents(world, objects.uid(old))}
            if old is not None and before != after:
                # An owner that is being deleted may have waited for this.
                for ref in before:
                    owner = owner_of(registry, kind, old, ref)
                    holder = cached(world, owner, ref["uid"]) if owner is not None else None
                    if owner is not None and _held(holder):
                        found[f"{owner.kind.api_version}|{owner.kind.kind}|{owner.key}"] = None
            if new is not None:
                held = _held(new)
                if (after and (old is None or before != after)) or (held and held != _held(old)):
                    found[item_key(kind, new)] = None
                if FOREGROUND in held and FOREGROUND not in _held(old):
                    found |= {item_key(k, dep): None for k, dep in dependents(world, objects.uid(new))}
            return found

        return keys

    return everywhere


def specs(registry: Registry, observe: Observe, died: Callable[[str], None]) -> tuple[ControllerSpec, ...]:
    """The controller; `observe` is `observers.Owners.look_up`."""
    return (
        ControllerSpec(
            name="garbage-collector-controller",
            decide=decider(registry),
            everywhere=watcher(registry, died),
            account="generic-garbage-collector",
            workers=20,
            observe=observe,
        ),
    )
