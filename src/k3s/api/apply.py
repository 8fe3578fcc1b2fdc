"""Server-side apply: who owns which field (metadata.managedFields), and what follows from it.

    apply(node, live, patch, …)          merges a configuration, takes and gives up fields, finds conflicts
    track_update(node, old, new, …)      writes down who changed what, for every other create, update and patch

An update takes what it changes; an apply has to force what another manager owns with another value. A field that the
last manager gives up by leaving it out of its configuration is removed. Source: KEP-555 and the field manager of the
API server.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from k3s.api import lastapplied, times
from k3s.api.errors import ApiError, BadRequest, Conflict
from k3s.api.fieldset import (
    Comparison,
    FieldSetError,
    Path,
    Paths,
    SchemaNode,
    compare,
    contains,
    from_fields,
    merge,
    of_value,
    order,
    reaches,
    shown,
    starts_with,
    to_fields,
    without,
    zero,
)
from k3s.api.object import Object, evolve, remove

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATE_MANAGERS = 10
_ANCIENT = "ancient-changes"
_BEFORE_FIRST_APPLY = "before-first-apply"

#: Fields that belong to nobody: the server writes them, or they name the object.
_UNOWNED: Paths = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", "f:" + name)
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    }
)


#: An object in another version of its kind, with the schema of that version; None when it is not served any more.
Translate = Callable[[Object, str], "tuple[SchemaNode, Object] | None"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of managedFields; `tree` is its FieldsV1, and `raw` the entry itself while it is unchanged."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    tree: Mapping[str, Any]
    time: str = ""
    raw: Object | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two entries one: an applier stays the same across versions."""
        version = "" if self.operation == APPLY else self.api_version
        return self.manager, self.operation, version, self.subresource

    @property
    def paths(self) -> Paths:
        """The fields that the entry owns."""
        return from_fields(self.tree)

    def owning(self, paths: Paths, time: str) -> _Entry:
        """The entry with other fields, written at `time`."""
        return _made(self.manager, self.operation, self.api_version, self.subresource, paths, time)

    def minus(self, taken: Collection[Path]) -> _Entry:
        """The entry without fields that somebody else took; most writes take nothing from most managers."""
        hits = [path for path in taken if contains(self.tree, path)]
        return self.owning(self.paths.difference(hits), self.time) if hits else self

    def to_object(self) -> Object:
        """The entry as managedFields has it."""
        if self.raw is not None:
            return self.raw
        entry: Object = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.time:
            entry["time"] = self.time
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": self.tree}
        if self.subresource:
            entry["subresource"] = self.subresource
        return entry

    def describe(self) -> str:
        """The manager as conflicts name it."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return text if self.operation == APPLY else f"{text} using {self.api_version}"


@functools.lru_cache(maxsize=256)
def _made(manager: str, operation: str, api_version: str, subresource: str, paths: Paths, time: str) -> _Entry:
    """An entry, shared by the objects that are made alike in the same second."""
    entry = _Entry(manager, operation, api_version, subresource, to_fields(paths), time)
    return replace(entry, raw=entry.to_object())


def _read(obj: Object | None) -> list[_Entry]:
    """The entries of an object; raises ValueError for one that says nothing."""
    entries = []
    for raw in _entries(obj or {}):
        if raw.get("operation") not in (APPLY, UPDATE) or raw.get("fieldsType") != "FieldsV1":
            raise ValueError(f"managedFields has an entry of {raw.get('manager')!r} that says nothing")
        names = (raw.get("manager", ""), raw["operation"], raw.get("apiVersion", ""), raw.get("subresource", ""))
        entries.append(_Entry(*names, raw.get("fieldsV1") or {}, raw.get("time", ""), raw))
    return entries


def _sort_key(entry: _Entry) -> tuple[str, str, str, str, str]:
    return entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource


def _write(obj: Object, entries: Iterable[_Entry]) -> Object:
    """The object with the entries that own something, in the API's order."""
    kept = sorted((entry for entry in entries if entry.tree), key=_sort_key)
    if not kept:
        return remove(obj, ("metadata", "managedFields"))
    return evolve(obj, ("metadata", "managedFields"), [entry.to_object() for entry in _capped(kept)])


def _capped(entries: list[_Entry]) -> list[_Entry]:
    """At most ten update managers: the oldest are put together as ancient changes of their version."""
    updates = [entry for entry in entries if entry.operation == UPDATE and not entry.subresource]
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return entries
    buckets: dict[str, _Entry] = {}
    gone: set[int] = set()
    for entry in updates:
        if excess <= 0 and entry.manager != _ANCIENT:
            break
        bucket = buckets.get(entry.api_version)
        if bucket is None:
            buckets[entry.api_version] = replace(entry, manager=_ANCIENT, raw=None)
        else:
            paths = bucket.paths | entry.paths
            buckets[entry.api_version] = bucket.owning(paths, max(bucket.time, entry.time))
            excess -= 1
        gone.add(id(entry))
    kept = [entry for entry in entries if id(entry) not in gone]
    return sorted([*kept, *buckets.values()], key=_sort_key)


def same_but_times(old: Object, new: Object) -> bool:
    """Whether two versions differ in nothing but when managers last wrote: then there is nothing to store."""
    mine, theirs = ([{**entry, "time": ""} for entry in _entries(obj)] for obj in (old, new))
    return mine == theirs and _bare(old) == _bare(new)


def _entries(obj: Object) -> list[Object]:
    return (obj.get("metadata") or {}).get("managedFields") or []


def _bare(obj: Object) -> Object:
    return remove(obj, ("metadata", "managedFields"))


def _owned(paths: Paths, ignored: Collection[Path]) -> Paths:
    """What of a set may be owned."""
    paths = paths - _UNOWNED
    return frozenset(path for path in paths if not starts_with(path, ignored)) if ignored else paths


# --- every write but apply ---


def track_update(
    node: SchemaNode,
    old: Object | None,
    new: Object,
    manager: str,
    *,
    subresource: str = "",
    now: float | None,
    ignored: Collection[Path] = (),
    operation: str = UPDATE,
    translate: Translate | None = None,
) -> Object:
    """`new` with managedFields that say what `manager` changed from `old` (None: it creates the object).

    To be called after defaulting and before the server allocates anything: only what the client asked for is its own.
    Without `now` the entry has no time, as those of a scale.
    `ignored` are path prefixes that this way of writing cannot change, such as `("f:status",)`.
    """
    given = (new.get("metadata") or {}).get("managedFields")
    if given is not None and (not given or given == [{}]):
        # The client asks to forget the owners; it starts again with the next apply.
        return _bare(new)
    try:
        entries = _read(new) or _read(old)
    except (AttributeError, TypeError, ValueError):
        entries = _read(old)
    if not entries and old is not None:
        return _bare(new)
    comparison = compare(node, _bare(old) if old is not None else _empty(node, new), _bare(new)).without(ignored)
    if comparison.is_same and old is not None and given is not None and given is _entries(old):
        return new
    if comparison.is_same:
        return _write(new, entries)
    changed = comparison.modified | comparison.added
    taken = changed | comparison.removed
    mine = _Entry(manager, operation, new.get("apiVersion", ""), subresource, {})
    previous = next((entry for entry in entries if entry.identity == mine.identity), None)
    start = old if old is not None else _empty(node, new)
    seen = _Versions(_bare(start), _bare(new), mine.api_version, comparison, translate, ignored)
    rest = [left for entry in entries if entry is not previous and (left := seen.rest(entry)) is not None]
    owned = _owned(changed, ignored)
    if owned and previous is not None:
        owned |= previous.paths - taken
    if owned:
        rest.append(mine.owning(owned, "" if now is None else times.format(now)))
    elif previous is not None:
        rest.append(previous.minus(taken))
    return _write(new, rest)


def _empty(node: SchemaNode, like: Object) -> Object:
    base = zero(node)
    return {**base, **{key: like[key] for key in ("apiVersion", "kind") if key in like}}


# --- apply ---


def apply(
    node: SchemaNode,
    live: Object | None,
    patch: Object,
    manager: str,
    *,
    force: bool = False,
    subresource: str = "",
    now: float,
    ignored: Collection[Path] = (),
    translate: Translate | None = None,
) -> Object:
    """The object after `manager` applied the configuration `patch` to `live` (None: it creates the object).

    Nulls and empty containers may be in the result: it goes through pruning and defaulting next. Raises Conflict when
    another manager owns a field with another value and `force` is not given, and errors for what is no configuration.
    """
    if (patch.get("metadata") or {}).get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    config = _bare(patch)
    try:
        wanted = _owned(of_value(node, config), ignored)
    except FieldSetError as error:
        raise _untyped(patch, str(error)) from error
    start = _bare(live) if live is not None else {}
    entries = _read(live)
    if live is not None and not entries:
        existing = compare(node, _empty(node, live), start).added
        first = _Entry(_BEFORE_FIRST_APPLY, UPDATE, live.get("apiVersion", ""), "", {})
        entries = [first.owning(_owned(existing, ignored), times.format(now))]
    mine = _Entry(manager, APPLY, patch.get("apiVersion", ""), subresource, to_fields(wanted))
    last = next((entry for entry in entries if entry.identity == mine.identity), None)
    others = [entry for entry in entries if entry is not last]
    if last is not None:
        mine = replace(mine, time=last.time)
    merged = merge(node, start, config)
    if last is not None:
        merged = _given_up(node, merged, last, [*others, mine], translate)
    begin = start if live is not None else _empty(node, patch)
    comparison = compare(node, begin, merged).without(ignored)
    seen = _Versions(begin, merged, mine.api_version, comparison, translate, ignored)
    if not force:
        allowed = lastapplied.owned(node, start) if manager == lastapplied.MANAGER else frozenset()
        _raise_conflicts([(entry, seen.conflicts(entry, allowed)) for entry in others])
    others = [left for entry in others if (left := seen.rest(entry)) is not None]
    if manager == lastapplied.MANAGER:
        merged = lastapplied.current(merged, config)
    if live is None or not comparison.is_same:
        mine = replace(mine, time=times.format(now))
    return _write(merged, [*others, mine])


class _Versions:
    """A change as the managers of each version see it: they own fields of theirs."""

    def __init__(
        self,
        old: Object,
        new: Object,
        api_version: str,
        comparison: Comparison,
        translate: Translate | None,
        ignored: Collection[Path],
    ) -> None:
        self._old, self._new = old, new
        self._translate = translate
        self._ignored = ignored
        self._found: dict[str, Comparison | None] = {api_version: comparison}
        self._taken: dict[str, Paths] = {}

    def _seen(self, api_version: str) -> Comparison | None:
        """What differs in a version; None when there is no such version any more."""
        if self._translate is None:
            return next(iter(self._found.values()))
        if api_version not in self._found:
            sides = self._translate(self._old, api_version), self._translate(self._new, api_version)
            self._found[api_version] = None
            if sides[0] is not None and sides[1] is not None:
                node, old = sides[0]
                self._found[api_version] = compare(node, old, sides[1][1]).without(self._ignored)
        return self._found[api_version]

    def rest(self, entry: _Entry) -> _Entry | None:
        """An entry without what changed; None for one of a version that is gone."""
        taken = self._taken.get(entry.api_version)
        if taken is None:
            seen = self._seen(entry.api_version)
            if seen is None:
                return None
            taken = self._taken[entry.api_version] = seen.modified | seen.added | seen.removed
        return entry.minus(taken)

    def conflicts(self, entry: _Entry, allowed: Paths) -> list[Path]:
        """The fields of an entry that change, but for those that may be taken."""
        seen = self._seen(entry.api_version)
        if seen is None:
            return []
        return [path for path in seen.modified | seen.added if contains(entry.tree, path) and path not in allowed]


def _given_up(
    node: SchemaNode, merged: Object, last: _Entry, owners: list[_Entry], translate: Translate | None
) -> Object:
    """The object without the fields of the last configuration that nobody owns any more."""
    if translate is not None and any(entry.api_version != last.api_version for entry in owners):
        return _given_up_between(merged, last, owners, translate)
    # The newest configuration owns nearly everything of the last one: look for the few paths only.
    gone = {path for path in last.paths if not any(reaches(entry.tree, path) for entry in reversed(owners))} - _UNOWNED
    if not gone:
        return merged
    return without(node, merged, gone) or {}


def _given_up_between(merged: Object, last: _Entry, owners: list[_Entry], translate: Translate) -> Object:
    """The same where managers know different versions: each keeps what is its own in its version."""
    found = translate(merged, last.api_version)
    if found is None:
        return merged
    left = without(*found, last.paths - _UNOWNED) or {}
    left = {**left, "apiVersion": last.api_version, "kind": merged["kind"]}
    for version in dict.fromkeys([last.api_version, *sorted(entry.api_version for entry in owners)]):
        owned = frozenset[Path]().union(*(entry.paths for entry in owners if entry.api_version == version))
        whole, rest = translate(merged, version), translate(left, version)
        if whole is not None and rest is not None:
            node, obj = whole
            kept = _with_parents(owned | compare(node, {}, rest[1]).added)
            left = without(node, obj, compare(node, {}, obj).added - kept - _UNOWNED) or {}
    back = translate(left, merged["apiVersion"])
    return merged if back is None else back[1]


def _with_parents(paths: Iterable[Path]) -> Paths:
    return frozenset(path[: i + 1] for path in paths for i in range(len(path)))


def _raise_conflicts(found: list[tuple[_Entry, list[Path]]]) -> None:
    conflicts = sorted(((e, p) for e, p in found if p), key=lambda conflict: conflict[0].describe())
    if not conflicts:
        return
    causes: list[Object] = []
    texts: list[str] = []
    for entry, paths in conflicts:
        who = entry.describe()
        names = [shown(path) for path in sorted(paths, key=order)]
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": name} for name in names
        ]
        if len(names) == 1:
            texts.append(f"conflict with {who}: {names[0]}")
        else:
            texts.append(f"conflicts with {who}:\n" + "\n".join(f"- {name}" for name in names))
    count = f"{len(causes)} conflict" + ("" if len(causes) == 1 else "s")
    raise Conflict(f"Apply failed with {count}: " + "\n".join(texts), {"causes": causes})


def _untyped(patch: Object, why: str) -> ApiError:
    meta: dict[str, Any] = patch.get("metadata") or {}
    group, _, version = patch.get("apiVersion", "").rpartition("/")
    what = f"{meta.get('namespace', '')}/{meta.get('name', '')}; {group}/{version}, Kind={patch.get('kind', '')}"
    return ApiError(f"failed to create typed patch object ({what}): {why}", code=500)
