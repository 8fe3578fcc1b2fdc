"""The three patches that change an object: JSON patch, JSON merge patch and strategic merge patch.

    json_patch(obj, ops)               RFC 6902, at most 10000 operations
    merge_patch(obj, patch)            RFC 7386
    strategic_merge(node, obj, patch)  merges lists by the keys in the schema and knows the `$` directives

All are pure: the result shares with the object whatever the patch leaves alone, and inputs are never changed.
`parse` makes patches of request bodies. Source of limits and wording: the patch handler of the API server; of the
directives: the document on strategic merge patches of the API conventions.
"""

from __future__ import annotations

from typing import Any

from k3s.api import jsontext
from k3s.api.errors import ApiError, BadRequest, Invalid, TooLarge
from k3s.api.merge import strategic_merge
from k3s.api.object import Object, decode, encode

__all__ = ["JSON", "MERGE", "STRATEGIC", "json_patch", "merge_patch", "parse", "strategic_merge"]

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

MAX_OPERATIONS = 10000
MAX_COPY_BYTES = 3 * 1024 * 1024

_REJECTED = "the server rejected our request due to an error in our request"


def parse(content_type: str, data: bytes) -> Any:
    """The patch in a request body: a list of operations for JSON patch, an object for the others; raises BadRequest."""
    prefix = "" if content_type == STRATEGIC else "error decoding patch: "
    try:
        value = jsontext.value(data)
    except jsontext.Malformed as error:
        raise BadRequest(f"{prefix}{error}") from error
    if content_type == JSON:
        if value is None:
            return []
        if not isinstance(value, list):
            kind = jsontext.kind_of(value)
            raise BadRequest(f"{prefix}json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch")
        return value
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = jsontext.kind_of(value)
        raise BadRequest(f"{prefix}json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    return value


# --- JSON merge patch ---


def merge_patch(obj: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(obj, dict):
        obj = {}
    changed: dict[str, Any] | None = None
    for key, value in patch.items():
        if value is None:
            if key in obj:
                changed = dict(obj) if changed is None else changed
                changed.pop(key, None)
            continue
        old = obj.get(key)
        new = merge_patch(old, value)
        if new is not old or key not in obj:
            changed = dict(obj) if changed is None else changed
            changed[key] = new
    return obj if changed is None else changed


# --- JSON patch ---


class _Rejected(Exception):
    """An operation that cannot be done; clients only learn that the patch was refused."""


class _Draft:
    """The document of a patch under way: what an operation changes is copied once, then changed in place.

    Ten thousand operations on a large map would else copy it ten thousand times.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        # The copies, by identity; kept, so that no identity comes again.
        self._own: dict[int, Any] = {}

    def _owned(self, value: Any) -> Any:
        if not isinstance(value, dict | list) or id(value) in self._own:
            return value
        copy = value.copy()
        self._own[id(copy)] = copy
        return copy

    def _open(self, path: list[str]) -> Any:
        """What is at a path, free to be changed."""
        node = self.root = self._owned(self.root)
        for step in path:
            if isinstance(node, dict):
                if step not in node:
                    raise _Rejected(f"there is no {step!r}")
                node[step] = child = self._owned(node[step])
            elif isinstance(node, list):
                index = _index(step, len(node))
                node[index] = child = self._owned(node[index])
            else:
                raise _Rejected(f"there is nothing in {step!r}")
            node = child
        return node

    def put(self, path: list[str], value: Any, *, insert: bool) -> None:
        """Sets the value at a path; `insert` makes room in lists, where `-` is the end."""
        if not path:
            self.root = value
            return
        node, step = self._open(path[:-1]), path[-1]
        if isinstance(node, dict):
            node[step] = value
        elif not isinstance(node, list):
            raise _Rejected(f"there is nothing in {step!r}")
        elif insert:
            node.insert(len(node) if step == "-" else _index(step, len(node) + 1), value)
        else:
            node[_index(step, len(node))] = value

    def take(self, path: list[str]) -> None:
        """Removes the value at a path."""
        if not path:
            raise _Rejected("the whole object cannot be removed")
        node, step = self._open(path[:-1]), path[-1]
        if isinstance(node, dict):
            if step not in node:
                raise _Rejected(f"there is no {step!r}")
            del node[step]
        elif isinstance(node, list):
            del node[_index(step, len(node))]
        else:
            raise _Rejected(f"there is nothing in {step!r}")


def json_patch(obj: Object, operations: list[Any]) -> Any:
    """RFC 6902: the operations one after the other, all or none.

    Raises BadRequest for what is no operation, TooLarge for more than 10000, Invalid when one cannot be done.
    """
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}"
        )
    for operation in operations:
        if not isinstance(operation, dict):
            kind = jsontext.kind_of(operation)
            raise BadRequest(
                f"error decoding patch: json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation"
            )
    draft = _Draft(obj)
    copied = 0
    try:
        for operation in operations:
            copied += _operate(draft, operation)
            if copied > MAX_COPY_BYTES:
                raise _Rejected(f"the copies are larger than {MAX_COPY_BYTES} bytes")
    except _Rejected as error:
        raise rejected() from error
    return draft.root


def rejected() -> ApiError:
    """The answer to a JSON patch that cannot be applied; upstream keeps the reason to itself."""
    return Invalid(_REJECTED, {})


def _operate(draft: _Draft, operation: dict[str, Any]) -> int:
    """Does one operation; how many bytes it copied."""
    kind = operation.get("op")
    path = _pointer(operation, "path")
    if kind == "add":
        draft.put(path, _value(operation), insert=True)
    elif kind == "replace":
        _look(draft.root, path)
        draft.put(path, _value(operation), insert=False)
    elif kind == "remove":
        draft.take(path)
    elif kind == "test":
        _test(draft.root, path, operation.get("value"))
    elif kind == "move":
        source = _pointer(operation, "from")
        value = _look(draft.root, source)
        draft.take(source)
        draft.put(path, value, insert=True)
    elif kind == "copy":
        text = encode(_look(draft.root, _pointer(operation, "from")))
        # A copy of its own: what is done to one of the two must not be seen in the other.
        draft.put(path, decode(text), insert=True)
        return len(text)
    else:
        raise _Rejected(f"there is no operation {kind!r}")
    return 0


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise _Rejected("the operation has no value")
    return operation["value"]


def _pointer(operation: dict[str, Any], field: str) -> list[str]:
    text = operation.get(field)
    if not isinstance(text, str):
        raise _Rejected(f"{field} is missing")
    if text and not text.startswith("/"):
        raise _Rejected(f"{field} does not start with a slash")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _index(step: str, length: int) -> int:
    """The position that a step names in a list of this length; negative ones count from the end."""
    if not step.isascii() or not step.removeprefix("-").isdigit() or len(step) > 9:
        raise _Rejected(f"{step!r} is no position in a list")
    index = int(step)
    if index < 0:
        index += length
    if not 0 <= index < length:
        raise _Rejected(f"position {step} is outside of the list")
    return index


def _look(document: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(document, dict):
            if step not in document:
                raise _Rejected(f"there is no {step!r}")
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(step, len(document))]
        else:
            raise _Rejected(f"there is nothing in {step!r}")
    return document


def _test(document: Any, path: list[str], wanted: Any) -> None:
    try:
        found = _look(document, path)
    except _Rejected:
        # A missing key counts as null, but its parent has to be there.
        if wanted is None and isinstance(_look(document, path[:-1]), dict):
            return
        raise
    if not _equal(found, wanted):
        raise _Rejected("the test found another value")


def _equal(a: Any, b: Any) -> bool:
    # Python says that True equals 1; JSON does not.
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
