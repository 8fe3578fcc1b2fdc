"""From `kubectl apply` on the client's side to the server's: the annotation that the former keeps.

An apply by the manager `kubectl` may take what its annotation says is its own, and keeps the annotation current, so
that older clients go on. Source: "Migration between client-side and server-side apply", Kubernetes documentation.
"""

from __future__ import annotations

import msgspec

from k3s.api.fieldset import FieldSetError, Paths, SchemaNode, compare, of_value
from k3s.api.object import Object, decode, encode, evolve, remove

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"
# As much as all annotations of an object may be together.
_LIMIT = 256 * 1024


def _kept(obj: Object | None) -> str:
    notes = ((obj or {}).get("metadata") or {}).get("annotations") or {}
    found = notes.get(ANNOTATION)
    return found if isinstance(found, str) else ""


def owned(node: SchemaNode, live: Object | None) -> Paths:
    """The fields that the last client-side apply set and nobody changed since."""
    text = _kept(live)
    if live is None or not text:
        return frozenset()
    try:
        last = decode(text)
        if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
            return frozenset()
        comparison = compare(node, last, live)
        return of_value(node, last) - comparison.modified - comparison.added - comparison.removed
    except (msgspec.DecodeError, FieldSetError):
        return frozenset()


def current(merged: Object, config: Object) -> Object:
    """The object with the configuration in its annotation, where it has one; without it when that grows too large."""
    if not _kept(merged):
        return merged
    text = encode(remove(config, ("metadata", "annotations", ANNOTATION))).decode() + "\n"
    path = ("metadata", "annotations", ANNOTATION)
    notes = {**merged["metadata"]["annotations"], ANNOTATION: text}
    if sum(len(key.encode()) + len(value.encode()) for key, value in notes.items()) > _LIMIT:
        return remove(merged, path)
    return evolve(merged, path, text)
