"""Who owns the number of replicas: the same fact in the entries of a workload and in those of its Scale.

    to_scale(entries, places)                        what a Scale shows of the workload's owners
    to_parent(entries, scale, version, places)       what the workload keeps after a write of its Scale

`places` tells where a version of the workload has its replicas: a path of the set, an empty one for a version without
scale, None for a version that is gone. Source: the scale handler of the API machinery's field management.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from k3s.api.fieldset import Path, contains, to_fields
from k3s.api.owners import Entry

Places = Callable[[str], "Path | None"]
API_VERSION = "autoscaling/v1"
_REPLICAS: Path = ("f:spec", "f:replicas")
_TREE = to_fields(frozenset({_REPLICAS}))


def to_scale(entries: Sequence[Entry], places: Places) -> list[Entry]:
    """The owners of the replicas, as owners of those of the Scale."""
    out = []
    for entry in entries:
        place = places(entry.api_version)
        if place and contains(entry.tree, place):
            out.append(replace(entry, api_version=API_VERSION, tree=_TREE, raw=None))
    return out


def to_parent(entries: Sequence[Entry], scale: Sequence[Entry], api_version: str, places: Places) -> list[Entry]:
    """The workload's owners: those who lost the replicas to others keep the rest, new ones own nothing else."""
    own = places(api_version)
    left = {entry.identity: entry for entry in scale}
    out = []
    for entry in entries:
        place = places(entry.api_version)
        if place is None:
            continue
        if place and contains(entry.tree, place) and left.pop(entry.identity, None) is None:
            entry = entry.minus({place})
        if entry.tree:
            out.append(entry)
    tree = to_fields(frozenset({own})) if own else {}
    for entry in left.values():
        if contains(entry.tree, _REPLICAS):
            # Nobody notes when: a Scale has no times of its own.
            out.append(replace(entry, api_version=api_version, tree=tree, time="", raw=None))
    return out
