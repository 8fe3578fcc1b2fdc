"""The objects of a kind as they were a moment ago: what is there now, with the last changes taken back. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from k3s.apiserver.cache import Change, Item


def as_of(present: Iterable[Item], changes: Sequence[Change], namespace: str, last: str) -> Iterator[Item]:
    """The objects before `changes`, in order of datastore keys.

    `present` are the objects of `namespace` (empty: of all) after `last` as they are now, in that order; of what the
    changes replaced or removed, the same part is taken.
    """
    before: dict[tuple[str, str], Item | None] = {}
    for change in changes:
        before.setdefault((change.item.namespace, change.item.name), change.old)
    start = _place(last)
    past = [
        item
        for item in before.values()
        if item is not None and namespace in ("", item.namespace) and (not last or _order(item) > start)
    ]
    unchanged = (item for item in present if (item.namespace, item.name) not in before)
    return heapq.merge(unchanged, sorted(past, key=_order), key=_order)


def _place(last: str) -> tuple[str, str]:
    space, _, name = last.rpartition("/")
    return space + "/", name


def _order(item: Item) -> tuple[str, str]:
    # As keys sort: "a-b/" before "a/".
    return item.namespace + "/", item.name
