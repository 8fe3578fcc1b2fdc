"""The annotation in which client-side apply keeps its last configuration, and the way from there to server-side apply.

    unsettled(…)       the conflicts that remain when kubectl takes over from its own client-side apply
    renewed(…)         the annotation kept current, for old clients that apply next

Both are for the manager `kubectl` alone: another name opts out. Source: KEP-555 and the field manager's handling of
the annotation.
"""

from __future__ import annotations

from typing import Any

import msgspec

from k3s.api.configured import of_value
from k3s.api.fieldset import FieldSetError, Path, Paths, SchemaNode, compare
from k3s.api.object import Object, decode, evolve, get, remove
from k3s.api.owners import Entry

MANAGER = "kubectl"
ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_ANNOTATIONS_LIMIT = 256 * 1024
_PLACE = ("metadata", "annotations", ANNOTATION)
_sorted = msgspec.json.Encoder(order="sorted").encode
# Go writes these in a form that is safe inside HTML and JavaScript.
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def unsettled(
    node: SchemaNode, live: Object, patch: Object, conflicts: list[tuple[Entry, list[Path]]]
) -> list[tuple[Entry, list[Path]]]:
    """The conflicts about fields that the last client-side apply did not set, or that were changed since."""
    settled = _settled(node, live, patch)
    left = [(entry, [path for path in paths if path not in settled]) for entry, paths in conflicts]
    return [(entry, paths) for entry, paths in left if paths]


def _settled(node: SchemaNode, live: Object, patch: Object) -> Paths:
    """The fields of the last client-side apply that are still as it set them."""
    text = get(live, *_PLACE)
    try:
        last: Any = decode(text) if text else None
    except msgspec.DecodeError:
        return frozenset()
    if not isinstance(last, dict) or last.get("apiVersion") != patch.get("apiVersion"):
        return frozenset()
    try:
        fields = of_value(node, last)
    except FieldSetError:
        return frozenset()
    change = compare(node, last, live)
    return fields - change.modified - change.added - change.removed


def renewed(obj: Object, config: Object) -> Object:
    """The object with the configuration in its annotation, if it has one; without it when that has no room."""
    if not get(obj, *_PLACE):
        return obj
    text = _sorted(remove(config, _PLACE)).decode().translate(_ESCAPED) + "\n"
    notes = {**obj["metadata"]["annotations"], ANNOTATION: text}
    if sum(len(key.encode()) + len(value.encode()) for key, value in notes.items()) > _ANNOTATIONS_LIMIT:
        return remove(obj, _PLACE)
    return evolve(obj, _PLACE, text)
