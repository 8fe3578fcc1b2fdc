"""Who owns the number of replicas: the same in the managedFields of a workload and in those of its Scale.

Source: upstream's ScaleHandler. A Scale knows one field; what a manager owns of it is owned in the workload, at the
place where that keeps the number, and by nobody else unless both applied it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k3s.api.fieldset import Path, contains, from_fields, to_fields
from k3s.api.object import Object

_SCALE = "autoscaling/v1"
_REPLICAS = ("f:spec", "f:replicas")


def identity(entry: Object) -> tuple[str, str, str, str]:
    """What makes two entries one: an applier stays the same across versions."""
    version = "" if entry.get("operation") == "Apply" else entry.get("apiVersion", "")
    return entry.get("manager", ""), entry.get("operation", ""), version, entry.get("subresource", "")


def in_scale(entries: Iterable[Object], places: Mapping[str, Path]) -> list[Object]:
    """The entries of a Scale, from those of its workload; `places` tells where each version keeps the number."""
    fields = to_fields(frozenset({_REPLICAS}))
    return [{**entry, "apiVersion": _SCALE, "fieldsV1": fields} for entry in entries if _has(entry, places)]


def in_workload(
    before: Iterable[Object], scale: Iterable[Object], places: Mapping[str, Path], api_version: str
) -> list[Object]:
    """The entries of a workload (in `api_version`) after its Scale got the entries `scale`."""
    owners = {identity(entry): entry for entry in scale if entry.get("fieldsV1")}
    made: dict[tuple[str, str, str, str], Object] = {}
    times: dict[tuple[str, str, str, str], str] = {}
    for entry in before:
        who = identity(entry)
        times[who] = entry.get("time", "")
        if entry.get("apiVersion") not in places:
            continue
        if who not in owners and _has(entry, places):
            left = from_fields(entry["fieldsV1"]) - {places[entry["apiVersion"]]}
            if left:
                made[who] = {**entry, "fieldsV1": to_fields(left)}
        else:
            made[who] = entry
    fields = to_fields(frozenset({places[api_version]}))
    for who, entry in owners.items():
        kept: dict[str, Any] = {**entry, "apiVersion": api_version, "fieldsV1": fields}
        kept.pop("time", None)
        if times.get(who):
            kept["time"] = times[who]
        made[who] = kept
    return sorted(made.values(), key=_order)


def _has(entry: Object, places: Mapping[str, Path]) -> bool:
    place = places.get(entry.get("apiVersion", ""))
    return place is not None and contains(entry.get("fieldsV1") or {}, place)


def _order(entry: Object) -> tuple[str, ...]:
    fields = ("operation", "time", "manager", "apiVersion", "subresource")
    return tuple(entry.get(field, "") for field in fields)
