"""The entries of metadata.managedFields: who owns which fields, by what way of writing.

    read(obj) -> entries          raises ValueError for what says nothing
    write(obj, entries) -> obj    those that own something, in the API's order
    capped(entries) -> entries    at most ten that come from updates

Source: KEP-555 and the ManagedFieldsEntry of the API machinery.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from k3s.api.fieldset import Path, Paths, contains, from_fields, to_fields
from k3s.api.object import Object, evolve, remove

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATE_MANAGERS = 10
MANAGER_LIMIT = 128
_ANCIENT = "ancient-changes"

Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of managedFields; `tree` is its FieldsV1, and `raw` the entry itself while it is unchanged."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    tree: Mapping[str, Any]
    time: str = ""
    raw: Object | None = None

    @property
    def identity(self) -> Identity:
        """What makes two entries one: an applier stays the same across versions."""
        version = "" if self.operation == APPLY else self.api_version
        return self.manager, self.operation, version, self.subresource

    @property
    def paths(self) -> Paths:
        """The fields that the entry owns."""
        return from_fields(self.tree)

    def owning(self, paths: Paths, time: str) -> Entry:
        """The entry with other fields, written at `time`."""
        return _made(self.manager, self.operation, self.api_version, self.subresource, paths, time)

    def minus(self, taken: Collection[Path]) -> Entry:
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
def _made(manager: str, operation: str, api_version: str, subresource: str, paths: Paths, time: str) -> Entry:
    """An entry, shared by the objects that are made alike in the same second."""
    entry = Entry(manager, operation, api_version, subresource, to_fields(paths), time)
    return replace(entry, raw=entry.to_object())


def raw_entries(obj: Object) -> list[Object]:
    """The entries of an object as they are written there."""
    return (obj.get("metadata") or {}).get("managedFields") or []


def read(obj: Object | None) -> list[Entry]:
    """The entries of an object, of those with one identity the last; raises ValueError for one that says nothing."""
    entries: dict[Identity, Entry] = {}
    for raw in raw_entries(obj or {}):
        if raw.get("operation") not in (APPLY, UPDATE) or raw.get("fieldsType") != "FieldsV1":
            raise ValueError(f"managedFields has an entry of {raw.get('manager')!r} that says nothing")
        if not raw.get("apiVersion"):
            raise ValueError(f"managedFields has an entry of {raw.get('manager')!r} without apiVersion")
        names = (raw.get("manager", ""), raw["operation"], raw["apiVersion"], raw.get("subresource", ""))
        entry = Entry(*names, raw.get("fieldsV1") or {}, raw.get("time", ""), raw)
        entries[entry.identity] = entry
    return list(entries.values())


def _sort_key(entry: Entry) -> tuple[str, str, str, str, str]:
    return entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource


def write(obj: Object, entries: Iterable[Entry]) -> Object:
    """The object with the entries that own something, in the API's order."""
    kept = sorted((entry for entry in entries if entry.tree), key=_sort_key)
    if not kept:
        return bare(obj)
    return evolve(obj, ("metadata", "managedFields"), [entry.to_object() for entry in kept])


def bare(obj: Object) -> Object:
    """The object without its record of owners."""
    return remove(obj, ("metadata", "managedFields"))


def capped(entries: list[Entry]) -> list[Entry]:
    """At most ten entries of updates: the oldest of a version are put together as its ancient changes."""
    updates = sorted(
        (entry for entry in entries if entry.operation == UPDATE and entry.tree),
        key=lambda entry: (entry.time, entry.identity),
    )
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return entries
    kept = {entry.identity: entry for entry in entries}
    oldest: dict[str, Entry] = {}
    for entry in updates:
        if excess <= 0:
            break
        first = oldest.setdefault(entry.api_version, entry)
        bucket = replace(first, manager=_ANCIENT, subresource="", raw=None)
        if entry is first or entry.identity == bucket.identity:
            continue
        if bucket.identity not in kept:
            kept[bucket.identity] = replace(kept.pop(first.identity), manager=_ANCIENT, subresource="", raw=None)
        together = kept[bucket.identity].paths | entry.paths
        kept[bucket.identity] = bucket.owning(together, entry.time)
        del kept[entry.identity]
        excess -= 1
    return list(kept.values())


def is_reset(given: list[Object] | None) -> bool:
    """Whether a client asks to forget the owners: an empty list, or one empty entry."""
    return given is not None and (not given or given == [{}])


def strange_character(manager: str) -> str:
    """What is wrong with the characters of a manager's name; empty when nothing is."""
    for at, char in enumerate(manager):
        if not char.isprintable():
            return f"invalid character U+{ord(char):04X} (at position {len(manager[:at].encode())})"
    return ""
