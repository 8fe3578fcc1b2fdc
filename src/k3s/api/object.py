"""An API object: a plain dict that nobody changes once it is made (law 5).

A new version is built by copying the path that differs; everything else is shared between the versions.
"""

# No `from __future__ import annotations` here: mypy would take the function `annotations` for a second definition.
from typing import Any

import msgspec

Object = dict[str, Any]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_MISSING: Any = object()


def encode(obj: Any) -> bytes:
    """The compact JSON bytes of an object or any JSON value."""
    return _encoder.encode(obj)


def decode(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of JSON bytes; raises msgspec.DecodeError."""
    return _decoder.decode(data)


def name(obj: Object) -> str:
    """metadata.name, or the empty string."""
    return str(obj.get("metadata", {}).get("name", ""))


def namespace(obj: Object) -> str:
    """metadata.namespace, or the empty string for a cluster-scoped object."""
    return str(obj.get("metadata", {}).get("namespace", ""))


def uid(obj: Object) -> str:
    """metadata.uid, or the empty string."""
    return str(obj.get("metadata", {}).get("uid", ""))


def key(obj: Object) -> str:
    """`namespace/name`, or `name` for a cluster-scoped object."""
    meta = obj.get("metadata", {})
    space = meta.get("namespace")
    return f"{space}/{meta.get('name', '')}" if space else str(meta.get("name", ""))


def split_key(text: str) -> tuple[str, str]:
    """The namespace (may be empty) and the name of a key that `key` made."""
    space, _, last = text.rpartition("/")
    return space, last


def revision(obj: Object) -> int:
    """metadata.resourceVersion as a number, 0 when there is none."""
    return int(obj.get("metadata", {}).get("resourceVersion") or 0)


def labels(obj: Object) -> dict[str, str]:
    """metadata.labels, empty when there are none; not to be changed."""
    return obj.get("metadata", {}).get("labels") or {}


def annotations(obj: Object) -> dict[str, str]:
    """metadata.annotations, empty when there are none; not to be changed."""
    return obj.get("metadata", {}).get("annotations") or {}


def is_deleting(obj: Object) -> bool:
    """True once metadata.deletionTimestamp is set."""
    return "deletionTimestamp" in obj.get("metadata", {})


def get(obj: Any, *path: str | int, default: Any = None) -> Any:
    """The value at a path of keys and list positions, or `default` where the path ends early."""
    for step in path:
        if isinstance(obj, dict):
            obj = obj.get(step, _MISSING)
        elif isinstance(obj, list) and isinstance(step, int) and -len(obj) <= step < len(obj):
            obj = obj[step]
        else:
            return default
        if obj is _MISSING:
            return default
    return obj


def evolve(obj: Object, path: tuple[str, ...], value: Any) -> Object:
    """A copy of `obj` with `value` at `path`; only the dicts on the path are new, missing ones are made."""
    first, rest = path[0], path[1:]
    return {**obj, first: evolve(obj.get(first) or {}, rest, value) if rest else value}


def remove(obj: Object, path: tuple[str, ...]) -> Object:
    """A copy of `obj` without the value at `path`; `obj` itself when nothing is there."""
    first, rest = path[0], path[1:]
    if first not in obj:
        return obj
    if not rest:
        return {k: v for k, v in obj.items() if k != first}
    inner = obj[first]
    if not isinstance(inner, dict):
        return obj
    changed = remove(inner, rest)
    return obj if changed is inner else {**obj, first: changed}


def owner_refs(obj: Object) -> list[Object]:
    """metadata.ownerReferences, empty when there are none."""
    return obj.get("metadata", {}).get("ownerReferences") or []


def controller_of(obj: Object) -> Object | None:
    """The owner reference with controller=true, of which there is at most one."""
    for ref in owner_refs(obj):
        if ref.get("controller"):
            return ref
    return None


def owner_ref(owner: Object, *, controller: bool = True, block: bool = True) -> Object:
    """The reference that makes an object belong to `owner`."""
    meta = owner["metadata"]
    ref = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    if controller:
        ref["controller"] = True
    if block:
        ref["blockOwnerDeletion"] = True
    return ref
