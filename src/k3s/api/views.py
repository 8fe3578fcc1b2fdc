"""How other versions of a kind see a write: owners keep their fields in the version that they wrote with.

    Views            by apiVersion: the schema, and how an object becomes one of that version; None for one that is gone
    Differences      what a write changes, as each version sees it
    given_up(…)      an object without what its applier no longer names and nobody else owns

Source: the version converter of the field manager, and the pruning of structured merge diff.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from k3s.api.fieldset import Comparison, Path, SchemaNode, compare, reaches, without, zero
from k3s.api.object import Object
from k3s.api.owners import Entry, bare


class View(NamedTuple):
    """One version of a kind."""

    node: SchemaNode
    convert: Callable[[Object], Object]


Views = Callable[[str], "View | None"]


def single(node: SchemaNode) -> Views:
    """The views of a kind with one version: whoever wrote wrote that."""
    return lambda api_version: View(node, _same)


def _same(obj: Object) -> Object:
    return obj


def empty(node: SchemaNode, like: Object) -> Object:
    """What a creation is compared with."""
    return {**zero(node), **{key: like[key] for key in ("apiVersion", "kind") if key in like}}


class Differences:
    """What a write makes of `old` (None: it creates), as each version of the kind sees it."""

    def __init__(
        self, node: SchemaNode, old: Object | None, new: Object, views: Views, ignored: Collection[Path] = ()
    ) -> None:
        self._views, self._ignored = views, ignored
        self._old = bare(old) if old is not None else None
        self._new = bare(new)
        self.own = self._compared(View(node, _same))
        self._others: dict[str, Comparison | None] = {}

    def _compared(self, view: View) -> Comparison:
        new = view.convert(self._new)
        old = view.convert(self._old) if self._old is not None else empty(view.node, new)
        return compare(view.node, old, new).without(self._ignored)

    def of(self, api_version: str) -> Comparison | None:
        """The difference in the eyes of a version; None when there is no such version (any more)."""
        if api_version == self._new.get("apiVersion", api_version):
            return self.own
        if api_version not in self._others:
            view = self._views(api_version)
            self._others[api_version] = self._compared(view) if view is not None else None
        return self._others[api_version]

    def left(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries without what the write took from them, and without those of versions that are gone."""
        out = []
        for entry in entries:
            found = self.of(entry.api_version)
            if found is not None:
                out.append(entry.minus(found.modified | found.added | found.removed))
        return out

    def kept(self, entry: Entry) -> bool:
        """Whether the version of an entry is still there."""
        return self.of(entry.api_version) is not None


def given_up(merged: Object, last: Entry, owners: Sequence[Entry], views: Views, kept: Collection[Path]) -> Object:
    """The object without the fields of an applier's last configuration that nobody owns any more.

    `owners` are all others and the new configuration; `kept` are paths that stay whoever owns them.
    """
    own, view = views(merged.get("apiVersion", "")), views(last.api_version)
    if own is None or view is None:
        return merged
    peers = [entry for entry in owners if entry.api_version == last.api_version]
    # The newest configuration owns nearly everything of the last one: look for the few paths only.
    gone = _unreached(last.paths, peers).difference(kept)
    if not gone:
        return merged
    before = view.convert(merged)
    after = without(view.node, before, gone) or {}
    others = [entry for entry in owners if entry.api_version != last.api_version]
    for api_version in dict.fromkeys(entry.api_version for entry in others):
        other = views(api_version)
        if other is not None:
            after = _restored(other, before, after, [entry for entry in others if entry.api_version == api_version])
    if others:
        lost = compare(view.node, before, view.convert(after)).removed & last.paths
        after = without(view.node, before, lost) or {}
    return own.convert(after)


def _unreached(paths: Collection[Path], entries: Sequence[Entry]) -> set[Path]:
    return {path for path in paths if not any(reaches(entry.tree, path) for entry in reversed(entries))}


def _restored(view: View, before: Object, after: Object, entries: Sequence[Entry]) -> Object:
    """What is left after pruning, with what owners of another version hold put back."""
    whole, pruned = view.convert(before), view.convert(after)
    lost = _unreached(compare(view.node, whole, pruned).removed, entries)
    return without(view.node, whole, lost) or {}
