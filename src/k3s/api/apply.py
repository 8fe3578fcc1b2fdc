"""Server-side apply: who owns which field (metadata.managedFields), and what follows from it.

    apply(node, live, patch, …)          merges a configuration, takes and gives up fields, finds conflicts
    track_update(node, old, new, …)      writes down who changed what, for every other create, update and patch

An update takes what it changes; an apply has to force what another manager owns with another value. A field that the
last manager gives up by leaving it out of its configuration is removed. Source: KEP-555 and the field manager of the
API server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from k3s.api import lastapplied, times
from k3s.api.configured import of_value
from k3s.api.errors import ApiError, BadRequest, Conflict
from k3s.api.fieldset import (
    FieldSetError,
    Path,
    Paths,
    SchemaNode,
    check_fields,
    compare,
    contains,
    merge,
    order,
    shown,
    starts_with,
    to_fields,
)
from k3s.api.object import Object, evolve
from k3s.api.owners import APPLY, UPDATE, Entry, bare, capped, is_reset, raw_entries, read, write
from k3s.api.views import Differences, Views, empty, given_up, single

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


def same_but_times(old: Object, new: Object) -> bool:
    """Whether two versions differ in nothing but when managers last wrote: then there is nothing to store."""
    mine, theirs = ([{**entry, "time": ""} for entry in raw_entries(obj)] for obj in (old, new))
    return mine == theirs and bare(old) == bare(new)


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
    now: float,
    ignored: Collection[Path] = (),
    operation: str = UPDATE,
    views: Views | None = None,
) -> Object:
    """`new` with managedFields that say what `manager` changed from `old` (None: it creates the object).

    To be called after defaulting and before the server allocates anything: only what the client asked for is its own.
    `ignored` are path prefixes that this way of writing cannot change, such as `("f:status",)`. `views` are the other
    versions of the kind, by whose eyes their managers see the change.
    """
    given = (new.get("metadata") or {}).get("managedFields")
    if subresource and given is not None:
        # Who owns what is written with the object, never by a part of it.
        new, given = evolve(new, ("metadata", "managedFields"), raw_entries(old or {})), None
    reset = is_reset(given)
    entries = [] if reset else _read_either(new, old)
    if not entries and old is not None:
        return bare(new)
    changes = Differences(node, old, new, views or single(node), ignored)
    comparison = changes.own
    if comparison.is_same and old is not None and given is not None and given is raw_entries(old):
        return new
    if comparison.is_same:
        return write(new, capped([entry for entry in entries if changes.kept(entry)]))
    mine = Entry(manager, operation, new.get("apiVersion", ""), subresource, {})
    previous = next((entry for entry in entries if entry.identity == mine.identity), None)
    entries = changes.left(entries)
    owned = _owned(comparison.modified | comparison.added, ignored)
    if owned:
        entries = [entry for entry in entries if entry.identity != mine.identity]
        if previous is not None:
            owned |= previous.paths - comparison.removed
        entries.append(mine.owning(owned, times.format(now)))
    return write(new, capped(entries))


def _read_either(new: Object, old: Object | None) -> list[Entry]:
    """The entries that a client wrote, or those of before when it wrote none that can be read."""
    given, kept = raw_entries(new), raw_entries(old or {})
    for obj in (new, old):
        try:
            entries = read(obj)
            if obj is new and given is not kept and given != kept:
                check_fields(entry.tree for entry in entries)
        except (AttributeError, TypeError, ValueError):
            continue
        if entries:
            return entries
    return []


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
    views: Views | None = None,
) -> Object:
    """The object after `manager` applied the configuration `patch` to `live` (None: it creates the object).

    Nulls and empty containers may be in the result: it goes through pruning and defaulting next. Raises Conflict when
    another manager owns a field with another value and `force` is not given, and errors for what is no configuration.
    `ignored` and `views` as for `track_update`.
    """
    if (patch.get("metadata") or {}).get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    config = bare(patch)
    try:
        wanted = _owned(of_value(node, config), ignored)
    except FieldSetError as error:
        raise _untyped(patch, str(error)) from error
    views = views or single(node)
    start = bare(live) if live is not None else {}
    entries = read(live)
    if live is not None and not entries:
        existing = compare(node, empty(node, live), start)
        first = Entry(_BEFORE_FIRST_APPLY, UPDATE, live.get("apiVersion", ""), subresource, {})
        entries = [first.owning(_owned(existing.modified | existing.added, ignored), times.format(now))]
    mine = Entry(manager, APPLY, patch.get("apiVersion", ""), subresource, to_fields(wanted))
    last = next((entry for entry in entries if entry.identity == mine.identity), None)
    others = [entry for entry in entries if entry is not last]
    if last is not None:
        mine = replace(mine, time=last.time)
    merged = merge(node, start, config)
    if last is not None:
        merged = given_up(merged, last, [*others, mine], views, _UNOWNED)
    changes = Differences(node, start if live is not None else None, merged, views, ignored)
    if not force:
        conflicts = _conflicts(changes, others)
        if conflicts and manager == lastapplied.MANAGER:
            conflicts = lastapplied.unsettled(node, start, patch, conflicts)
        _raise_conflicts(conflicts)
    others = changes.left(others)
    if live is None or not changes.own.is_same:
        mine = replace(mine, time=times.format(now))
    if manager == lastapplied.MANAGER:
        merged = lastapplied.renewed(merged, config)
    return write(merged, [*others, mine])


def _conflicts(changes: Differences, others: Iterable[Entry]) -> list[tuple[Entry, list[Path]]]:
    """Who else owns what changes, and which fields."""
    found = []
    for entry in others:
        seen = changes.of(entry.api_version)
        if seen is not None:
            found.append((entry, [path for path in seen.modified | seen.added if contains(entry.tree, path)]))
    return [(entry, paths) for entry, paths in found if paths]


def _raise_conflicts(found: list[tuple[Entry, list[Path]]]) -> None:
    if not found:
        return
    conflicts = sorted(found, key=lambda conflict: conflict[0].describe())
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
