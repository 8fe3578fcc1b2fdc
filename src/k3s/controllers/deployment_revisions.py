"""The replica sets of a Deployment as its history: names, revisions, annotations.

Source: the annotations that `kubectl rollout history` and `undo` read (deployment.kubernetes.io/…).
"""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object, evolve, remove
from k3s.controllers.deployment_bounds import bounds
from k3s.controllers.hashes import template_hash

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"

# Annotations of a Deployment that say something about itself and are not copied to its sets.
_OWN = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MOST,
        "deprecated.deployment.rollback.to",
    )
)
_HISTORY_LENGTH = 2000


def same_template(one: Object, other: Object) -> bool:
    """Whether two pod templates differ in nothing but the hash label."""
    if one["spec"] != other["spec"]:
        return False
    return _metadata(one) == _metadata(other)


def _metadata(template: Object) -> Object:
    meta = template.get("metadata") or {}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH}
    return {**{key: value for key, value in meta.items() if value and key != "labels"}, "labels": labels}


def revision_of(rs: Object) -> int:
    """The revision that a set is annotated with, 0 when there is none."""
    text = objects.annotations(rs).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0


def next_revision(old: Sequence[Object]) -> int:
    """One more than the highest revision of the old sets."""
    return max(map(revision_of, old), default=0) + 1


def size_annotations(deployment: Object) -> dict[str, str]:
    """What a set notes about the Deployment's size, for scaling in proportion later."""
    replicas = int(deployment["spec"].get("replicas", 1))
    return {DESIRED: str(replicas), MOST: str(replicas + bounds(deployment)[0])}


def notes_for(deployment: Object, rs: Object, revision: int) -> dict[str, str]:
    """The annotations of the newest set: its own, the Deployment's, and the revision it now has."""
    copied = {key: value for key, value in objects.annotations(deployment).items() if key not in _OWN}
    notes = {**objects.annotations(rs), **copied}
    before = revision_of(rs)
    if before >= revision:
        return notes
    if before:
        past = [number for number in notes.get(HISTORY, "").split(",") if number]
        notes[HISTORY] = ",".join([*past, str(before)])[-_HISTORY_LENGTH:].lstrip(",")
    notes[REVISION] = str(revision)
    return notes


def replica_set(deployment: Object, size: int, revision: int) -> Object:
    """The set of the present template; its name and hash label follow from the template."""
    spec = deployment["spec"]
    digest = template_hash(spec["template"], deployment.get("status", {}).get("collisionCount"))
    template = remove(spec["template"], ("metadata", "creationTimestamp"))
    labels = {**(template.get("metadata", {}).get("labels") or {}), HASH: digest}
    selector = spec["selector"]
    copied = {key: value for key, value in objects.annotations(deployment).items() if key not in _OWN}
    body: Object = {
        "replicas": size,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: digest}},
        "template": evolve(template, ("metadata", "labels"), labels),
    }
    if spec.get("minReadySeconds"):
        body["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{objects.name(deployment)}-{digest}",
            "namespace": objects.namespace(deployment),
            "labels": labels,
            "annotations": {**copied, **size_annotations(deployment), REVISION: str(revision)},
            "ownerReferences": [objects.owner_ref(deployment)],
        },
        "spec": body,
    }
