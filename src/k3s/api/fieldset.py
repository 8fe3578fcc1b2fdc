"""Sets of fields of an object, as managedFields has them, and how they come about.

A path is a tuple of elements, written as in FieldsV1: `f:spec`, `k:{"name":"web"}` (an element of a list by its keys),
`v:"x"` (an element of a set). Source: KEP-555 (server-side apply) and the structured merge diff rules: lists and maps
marked atomic have one owner, other maps belong field by field, other lists element by element.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Path = tuple[str, ...]
Paths = frozenset[Path]


class SchemaNode(Protocol):
    """What ownership depends on; `api.schema.Node` is one."""

    type: str
    definition: str
    default: Any
    required: frozenset[str]
    list_type: str
    list_map_keys: tuple[str, ...]
    map_type: str
    merge_key: str
    preserve_unknown: bool
    raw: Mapping[str, Any]

    def __hash__(self) -> int:
        """One node is one place: identity is enough."""

    @property
    def patch_strategies(self) -> Collection[str]:
        """Some of merge, replace and retainKeys."""

    @property
    def fields(self) -> Mapping[str, SchemaNode]:
        """The named fields of an object."""

    def child(self, field: str) -> SchemaNode | None:
        """The place of one field."""

    def items(self) -> SchemaNode | None:
        """The place of list elements or map values."""


class FieldSetError(ValueError):
    """A value that has no place in the schema; `path` is where."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{shown(path)}: {why}" if path else why)


_MISSING: Any = object()


# --- the FieldsV1 form ---


@functools.lru_cache(maxsize=256)
def to_fields(paths: Paths) -> dict[str, Any]:
    """The FieldsV1 tree of a set of paths, in the order of their elements.

    Objects that are made alike share it: a Pod's tree takes more memory than all the rest of the Pod.
    """
    tree: dict[str, Any] = {}
    members: list[dict[str, Any]] = []
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        members.append(node)
    for node in members:
        if node:
            # A member with others below it is marked by a dot; alone, an empty tree says the same.
            node["."] = {}
    return tree


def from_fields(tree: Mapping[str, Any]) -> Paths:
    """The paths of a FieldsV1 tree."""
    out: list[Path] = []
    _walk(tree, (), out)
    return frozenset(out)


def check_fields(trees: Iterable[Mapping[str, Any]]) -> None:
    """Raises ValueError for a key that names no field, no element and no value; of kinds unknown yet none is judged."""
    for tree in trees:
        for key, inner in tree.items():
            if key == ".":
                continue
            if key[1:2] != ":":
                raise ValueError(f"parsing key as path element: {key!r}")
            if key[0] in "kv":
                json.loads(key[2:])
            elif key[0] == "i":
                int(key[2:])
            check_fields((inner,))


def _walk(tree: Mapping[str, Any], path: Path, out: list[Path]) -> None:
    for key, inner in tree.items():
        if key == ".":
            out.append(path)
        elif inner:
            _walk(inner, (*path, key), out)
        else:
            out.append((*path, key))


def contains(tree: Mapping[str, Any], path: Path) -> bool:
    """Whether a path is a member of a FieldsV1 tree."""
    node: Any = tree
    for element in path:
        node = node.get(element)
        if node is None:
            return False
    return not node or "." in node


def reaches(tree: Mapping[str, Any], path: Path) -> bool:
    """Whether a FieldsV1 tree has a member at a path or below it."""
    node: Any = tree
    for element in path:
        node = node.get(element)
        if node is None:
            return False
    return True


def shown(path: Path) -> str:
    """A path as messages have it: `.spec.containers[name="web"].image`."""
    out = []
    for element in path:
        kind, text = element[0], element[2:]
        if kind == "f":
            out.append("." + text)
        elif kind == "k":
            keys = json.loads(text)
            out.append("[" + ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(keys.items())) + "]")
        else:
            out.append(f"[={text}]" if kind == "v" else f"[{text}]")
    return "".join(out)


def order(path: Path) -> tuple[Any, ...]:
    """The sort key of paths in messages: members of a level before what is deeper."""
    return tuple((len(path) - i > 1, element) for i, element in enumerate(path))


# --- the shape of a value ---


def is_atomic(node: SchemaNode | None, value: Any) -> bool:
    """Whether a map or list has one owner as a whole."""
    if isinstance(value, dict):
        if node is None:
            return False
        return node.map_type == "atomic" or (node.type == "any" and bool(node.definition))
    if isinstance(value, list):
        return node is None or not _associative(node)
    return True


def _associative(node: SchemaNode) -> bool:
    if node.type != "array":
        return False
    return node.list_type in ("map", "set") or (not node.list_type and "merge" in node.patch_strategies)


def keys_of(node: SchemaNode) -> tuple[str, ...]:
    """The fields that tell the elements of a list apart; none for a set."""
    if node.list_type == "map":
        return node.list_map_keys
    return (node.merge_key,) if not node.list_type and node.merge_key else ()


_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def element_of(node: SchemaNode, value: Any, path: Path = (), index: int = 0) -> str:
    """The path element of one element of a list that merges; raises FieldSetError when it names no key. `index` is its
    place, for that message."""
    keys = keys_of(node)
    if not keys:
        return "v:" + _text(value)
    items = node.items()
    found: dict[str, Any] = {}
    for key in sorted(keys):
        inner = value.get(key) if isinstance(value, dict) else None
        if inner is None:
            child = items.child(key) if items is not None else None
            inner = child.default if child is not None else None
        if inner is not None:
            found[key] = inner
    if not found:
        names = " ".join(_text(key) for key in keys)
        raise FieldSetError(
            path,
            f"element {index}: associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)",
        )
    return "k:" + _text(found)


def child_of(node: SchemaNode | None, field: str) -> SchemaNode | None:
    """The schema of a field; None where the value decides."""
    return node.child(field) if node is not None else None


def elements(node: SchemaNode, value: list[Any], path: Path) -> dict[str, list[Any]]:
    """The elements of a list that merges by their path element, under which there should be one."""
    out: dict[str, list[Any]] = {}
    for inner in value:
        out.setdefault(element_of(node, inner, path), []).append(inner)
    return out


# --- differences of values ---


class Comparison(NamedTuple):
    """How a value became another one."""

    modified: Paths
    added: Paths
    removed: Paths

    @property
    def is_same(self) -> bool:
        """True when nothing differs."""
        return not (self.modified or self.added or self.removed)

    def without(self, prefixes: Collection[Path]) -> Comparison:
        """What differs outside of these prefixes."""
        if not prefixes:
            return self
        kept = (frozenset(p for p in paths if not starts_with(p, prefixes)) for paths in self)
        return Comparison(*kept)


def starts_with(path: Path, prefixes: Collection[Path]) -> bool:
    """Whether a path lies at or below one of these."""
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def compare(node: SchemaNode, old: Any, new: Any) -> Comparison:
    """The fields that differ; parts that are one and the same object are not looked into."""
    walker = _Compare()
    walker.walk(node, old, new, ())
    return Comparison(frozenset(walker.modified), frozenset(walker.added), frozenset(walker.removed))


_NESTED = (dict, list)


class _Compare:
    def __init__(self) -> None:
        self.modified: set[Path] = set()
        self.added: set[Path] = set()
        self.removed: set[Path] = set()

    def walk(self, node: SchemaNode | None, old: Any, new: Any, path: Path) -> None:
        if old is new:
            return
        if old is _MISSING:
            _collect_added(node, new, path, self.added)
            return
        value = new if new is not _MISSING and new is not None else old
        if value is _MISSING or is_atomic(node, value) or _different_shapes(old, new) or not (old or new):
            self.leaf(old, new, path)
            return
        if isinstance(value, dict):
            if not old and (new is _MISSING or not new):
                self.leaf(old, new, path)
                return
            self.maps(node, _or_empty(old, {}), _or_empty(new, {}), path)
        elif node is not None:
            lists = [elements(node, _or_empty(side, []), path) for side in (old, new)]
            if not lists[0] and not lists[1]:
                self.leaf(old, new, path)
                return
            for element in lists[0] | lists[1]:
                self.element(node, lists[0].get(element, ()), lists[1].get(element, ()), (*path, element))
        if new is _MISSING:
            self.removed.add(path)

    def element(self, node: SchemaNode, old: Sequence[Any], new: Sequence[Any], path: Path) -> None:
        """What has one key: as a rule one element on each side; more than one are seen as one."""
        if len(old) > 1 and len(new) > 1:
            self.leaf(old, new, path)
        elif len(old) > 1:
            self.removed.add(path)
            if new:
                self.walk(node.items(), _MISSING, new[0], path)
        elif len(new) > 1:
            self.added.add(path)
            if old:
                self.walk(node.items(), old[0], _MISSING, path)
        else:
            self.walk(node.items(), old[0] if old else _MISSING, new[0] if new else _MISSING, path)

    def maps(self, node: SchemaNode | None, old: Any, new: Any, path: Path) -> None:
        for key in old | new:
            left, right = old.get(key, _MISSING), new.get(key, _MISSING)
            if left is not right:
                self.walk(child_of(node, key), left, right, (*path, "f:" + key))

    def leaf(self, old: Any, new: Any, path: Path) -> None:
        if new is _MISSING:
            self.removed.add(path)
        elif old != new or type(old) is not type(new):
            self.modified.add(path)


def _collect_added(node: SchemaNode | None, value: Any, path: Path, out: set[Path]) -> None:
    """The fields of a part that was not there before: itself and all below."""
    out.add(path)
    if value.__class__ is dict:
        if is_atomic(node, value):
            return
        for key, inner in value.items():
            below = (*path, "f:" + key)
            if inner.__class__ in _NESTED:
                _collect_added(child_of(node, key), inner, below, out)
            else:
                out.add(below)
    elif value.__class__ is list and node is not None and _associative(node):
        items = node.items()
        for element, found in elements(node, value, path).items():
            if len(found) > 1:
                out.add((*path, element))
            else:
                _collect_added(items, found[0], (*path, element), out)


def _or_empty(value: Any, empty: Any) -> Any:
    return empty if value is _MISSING or value is None else value


def _different_shapes(old: Any, new: Any) -> bool:
    if old is _MISSING or new is _MISSING or old is None or new is None:
        return False
    return isinstance(old, dict) is not isinstance(new, dict) or isinstance(old, list) is not isinstance(new, list)


@functools.lru_cache(maxsize=512)
def zero(node: SchemaNode) -> dict[str, Any]:
    """What is always there even in an empty object of this schema: what a creation is compared with. Shared."""
    out: dict[str, Any] = {}
    for name, raw in node.raw.get("properties", {}).items():
        child, default = node.fields[name], raw.get("default")
        if child.type == "object" and default == {}:
            out[name] = zero(child)
        elif name in node.required:
            out[name] = None if child.type in ("object", "array", "map") else default
        elif default is not None and default in ("", 0, False):
            out[name] = default
    return out


# --- merging and removing ---


def merge(node: SchemaNode | None, live: Any, config: Any) -> Any:
    """The live value with the configuration in it: granular parts merge, atomic ones are replaced."""
    if live is None or config is None or is_atomic(node, config) or _different_shapes(live, config):
        return live if live == config and live.__class__ is config.__class__ else config
    if isinstance(config, dict):
        changed: dict[str, Any] = {}
        for key, inner in config.items():
            old = live.get(key)
            new = merge(child_of(node, key), old, inner)
            if new is not old or key not in live:
                changed[key] = new
        return {**live, **changed} if changed else live
    merged = _merge_lists(node, live, config) if node is not None else config
    return live if merged == live else merged


def _merge_lists(node: SchemaNode, live: list[Any], config: list[Any]) -> list[Any]:
    """Elements in the order of the configuration, those that only live has where they stood.

    Elements of live that share a key stay as they are; where the configuration names that key, it replaces them.
    """
    left, right = elements(node, live, ()), elements(node, config, ())
    places, wanted = [element_of(node, inner) for inner in live], list(right)
    shared = iter([element for element in wanted if element in left])
    awaited = next(shared, None)
    merged: set[str] = set()
    out: list[Any] = []
    at = done = 0
    while at < len(places) or done < len(wanted):
        here = places[at] if at < len(places) else None
        pending = wanted[done] if done < len(wanted) else None
        if here is not None and here not in right:
            out.append(live[at])
            at += 1
            continue
        if here is not None and here != pending:
            # It comes where the configuration has it: earlier or later.
            later = pending is not None and awaited is not None and here != awaited
            at += later or here in merged
            if later:
                continue
        if pending is None:
            continue
        found = left.get(pending, ())
        out.append(merge(node.items(), found[0] if len(found) == 1 else None, right[pending][0]))
        merged.add(pending)
        done += 1
        if pending == here:
            at += 1
        if pending == awaited:
            awaited = next(shared, None)
    return out


def without(node: SchemaNode | None, value: Any, paths: Collection[Path]) -> Any:
    """The value without fields and elements; what becomes empty by that goes too (None)."""
    if not paths or not isinstance(value, dict | list):
        return value
    here: dict[str, list[Path]] = {}
    for path in paths:
        here.setdefault(path[0], []).append(path[1:])
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        for key, inner in value.items():
            below = here.get("f:" + key)
            if below is None:
                out[key] = inner
            elif () not in below:
                left = without(child_of(node, key), inner, below)
                if left is not None:
                    out[key] = left
        return out or None
    if node is None:
        return value
    kept: list[Any] = []
    for inner in value:
        below = here.get(element_of(node, inner))
        if below is None:
            kept.append(inner)
        elif () not in below:
            left = without(node.items(), inner, below)
            if left is not None:
                kept.append(left)
    return kept or None
