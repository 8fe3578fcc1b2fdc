"""Empties a namespace that is being deleted, then lets it go (spec.finalizers, subresource finalize)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api import times
from k3s.api.kinds import Kind
from k3s.api.object import Object, evolve
from k3s.controllers.actions import NOTHING, Action, Decision, DeleteCollection, Parallel, Update
from k3s.controllers.known import NAMESPACE
from k3s.controllers.spec import ControllerSpec, Keys, Observe
from k3s.controllers.world import World

FINALIZER = "kubernetes"
# Asked again when nothing tells that something went, e.g. events, which nobody watches.
_ASK_AGAIN_S = 5.0
# type: reason when there is a problem, reason and message when there is none
_CONDITIONS = {
    "NamespaceDeletionDiscoveryFailure": (
        "DiscoveryFailed",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "GroupVersionParsingFailed",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeletionFailed",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": (
        "SomeFinalizersRemain",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What the server says a namespace holds: some objects of each kind, and the errors met while asking.

    `unavailable` names the group versions (`metrics.k8s.io/v1beta1`) of which nobody knows what they hold.
    """

    found: dict[Kind, list[Object]]
    failures: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a namespace; `world.observed` is its Contents while it is being deleted."""
    space = world.get(NAMESPACE, key)
    if space is None or not objects.is_deleting(space) or FINALIZER not in _finalizers(space):
        return NOTHING
    contents = world.observed
    assert isinstance(contents, Contents), "a namespace that is being deleted has been looked into"
    sweeps = [
        DeleteCollection(kind, key, "Background")
        for kind, found in contents.found.items()
        if any(not objects.is_deleting(obj) for obj in found)
    ]
    if sweeps and not world.failure:
        return Decision([Parallel(sweeps)], 0.0)  # What remains is told after this, not before.
    actions: list[Action] = []
    conditions = _conditions(space, contents, world.failure, now)
    if conditions != (space.get("status", {}).get("conditions") or []):
        actions.append(Update(NAMESPACE, evolve(space, ("status", "conditions"), conditions), "status"))
    if contents.found or contents.failures or contents.unavailable:
        return Decision([*actions, Parallel(sweeps)] if sweeps else actions, _ASK_AGAIN_S)
    if actions:
        return Decision(actions, 0.0)
    left = [name for name in _finalizers(space) if name != FINALIZER]
    return Decision([Update(NAMESPACE, evolve(space, ("spec", "finalizers"), left), "finalize")])


def _finalizers(space: Object) -> list[str]:
    return space.get("spec", {}).get("finalizers") or []


def _problems(contents: Contents, failure: str) -> dict[str, str]:
    """What keeps the namespace, by condition; `failure` is why the last deletion of its contents was refused."""
    unknown = [f"{name}: stale GroupVersion discovery: {name}" for name in sorted(contents.unavailable)]
    failures = sorted(filter(None, (*contents.failures, failure)))
    remaining = sorted(f"{k.plural}.{k.group} has {len(v)} resource instances" for k, v in contents.found.items())
    held = Counter(
        name for found in contents.found.values() for obj in found for name in obj["metadata"].get("finalizers") or ()
    )
    finalizers = [f"{name} in {count} resource instances" for name, count in sorted(held.items())]
    problems = (
        (
            "NamespaceDeletionDiscoveryFailure",
            f"Discovery failed for some groups, {len(unknown)} failing: "
            "unable to retrieve the complete list of server APIs: ",
            unknown,
        ),
        (
            "NamespaceDeletionContentFailure",
            f"Failed to delete all resource types, {len(failures)} remaining: ",
            failures,
        ),
        ("NamespaceContentRemaining", "Some resources are remaining: ", remaining),
        ("NamespaceFinalizersRemaining", "Some content in the namespace has finalizers remaining: ", finalizers),
    )
    return {type: start + ", ".join(items) for type, start, items in problems if items}


def _conditions(space: Object, contents: Contents, failure: str, now: float) -> list[Object]:
    """The five conditions that tell why a namespace is still there (KEP-1193 and the Namespace documentation).

    No group version of this server is named so that it cannot be parsed: that one is never true.
    """
    problems = _problems(contents, failure)
    conditions: dict[str, Object] = {found["type"]: found for found in space.get("status", {}).get("conditions") or ()}
    for type, (bad_reason, good_reason, good_message) in _CONDITIONS.items():
        problem = problems.get(type)
        new = {
            "type": type,
            "status": "True" if problem else "False",
            "reason": bad_reason if problem else good_reason,
            "message": problem or good_message,
        }
        old = conditions.get(type, {})
        same = old.get("status") == new["status"]
        conditions[type] = {**new, "lastTransitionTime": old["lastTransitionTime"] if same else times.format(now)}
    return list(conditions.values())


def _gone_from(kind: Kind) -> Keys:
    """An object that went may have been the last one of a namespace that is being deleted."""

    def keys(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
        if new is not None or old is None:
            return ()
        name = objects.namespace(old)
        space = world.get(NAMESPACE, name) if name else None
        return (name,) if space is not None and objects.is_deleting(space) else ()

    return keys


def specs(observe: Observe) -> tuple[ControllerSpec, ...]:
    """The controller, with the coroutine that looks into namespaces (`observers.contents`)."""
    return (
        ControllerSpec(
            name="namespace-controller",
            decide=decide,
            kind=NAMESPACE,
            everywhere=_gone_from,
            account="namespace-controller",
            workers=10,
            observe=observe,
        ),
    )
