"""Rules for events of either version, and for the conditions in a status.

Source: the API documentation; order and wording as in upstream 1.36, which names the fields as v1 does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    internal,
    invalid,
    one_of,
    required,
    too_long,
    unchanged,
)

# How long the texts of an event may be: field as v1 names it, by which else it may be found, limit, whether needed.
_TEXTS = (
    ("reportingInstance", "reportingInstance", 128, True),
    ("action", "action", 128, True),
    ("reason", "reason", 128, True),
    ("message", "note", 1024, False),
)
# What only events of old have: the field of v1, and that of events.k8s.io/v1.
_OLD = (
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("source", "deprecatedSource"),
)
# What stays in a change, in the order of its causes.
_KEPT = (
    ("involvedObject", "regarding"),
    ("reason", "reason"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    *_OLD[:3],
    ("reason", "reason"),
    *((name, name) for name in ("type", "eventTime", "action", "related", "reportingController", "reportingInstance")),
)


def event(obj: Object) -> Causes:
    """An event of v1, and what holds for all events: they lie in the namespace of what they are about."""
    about = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace", "")
    own = (obj.get("metadata") or {}).get("namespace", "")
    timed = bool(obj.get("eventTime"))
    astray = not about and own not in ("default", "kube-system") if timed else about != own
    if astray and not (not about and own == "default"):
        yield invalid("involvedObject.namespace", about, "does not match event.namespace")
    if not timed:
        return
    name = obj.get("reportingComponent") or obj.get("reportingController") or ""
    if not name:
        yield required("reportingController")
    yield from each("reportingController", name, names.qualified_name(name))
    for field, other, limit, needed in _TEXTS:
        text = obj.get(field) or obj.get(other) or ""
        if needed and not text:
            yield required(field)
        if len(text.encode("utf-8", "surrogatepass")) > limit:
            yield invalid(field, "", f"can have at most {limit} characters")


def event_new(obj: Object) -> Causes:
    """An event of events.k8s.io/v1: who saw it, what was done, and nothing of old."""
    yield from event(obj)
    yield from _series(obj)
    if not obj.get("eventTime"):
        yield required("eventTime")
    if obj.get("type", "") not in ("Normal", "Warning"):
        yield invalid("type", "", f"has invalid value: {obj.get('type', '')}")
    for field, name in _OLD:
        if obj.get(name):
            yield invalid(field, "", "needs to be unset")


def event_new_update(old: Object, new: Object) -> Causes:
    """A changed event of events.k8s.io/v1: only its series goes on."""
    yield from event(new)
    if old.get("series") != new.get("series"):
        yield from _series(new)
    for field, name in _KEPT:
        before, after = (obj.get(name) or None for obj in (old, new))
        text = name not in ("regarding", "related", "deprecatedSource", "eventTime", *(other for _, other in _OLD))
        shown = internal(after) if isinstance(after, Mapping) else "" if text and after is None else after
        yield from () if before == after else unchanged(field, before, shown)


def _series(obj: Object) -> Causes:
    series = obj.get("series")
    if series is None:
        return
    if series.get("count", 0) < 2:
        yield invalid("series.count", "", "should be at least 2")
    if not series.get("lastObservedTime"):
        yield required("series.lastObservedTime")


_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_REASON_SAID = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    f"'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{_REASON}')"
)
_is_reason = re.compile(_REASON).fullmatch


def conditions(field: str, values: Sequence[Mapping[str, Any]] | None) -> Causes:
    """The conditions of a status: each type once, with a time and a reason."""
    seen: set[str] = set()
    for i, value in enumerate(values or ()):
        at = f"{field}[{i}]"
        kind, reason = value.get("type", ""), value.get("reason", "")
        if kind in seen:
            yield duplicate(f"{at}.type", kind)
        seen.add(kind)
        yield from each(f"{at}.type", kind, names.qualified_name(kind))
        yield from one_of(f"{at}.status", value.get("status", ""), ("False", "True", "Unknown"))
        if value.get("observedGeneration", 0) < 0:
            yield invalid(
                f"{at}.observedGeneration", value["observedGeneration"], "must be greater than or equal to zero"
            )
        if not value.get("lastTransitionTime"):
            yield required(f"{at}.lastTransitionTime", "must be set")
        if not reason:
            yield required(f"{at}.reason", "must be set")
        else:
            yield from () if _is_reason(reason) else (invalid(f"{at}.reason", reason, _REASON_SAID),)
            yield from () if len(reason) <= 1024 else (too_long(f"{at}.reason", 1024),)
        if len(value.get("message", "").encode("utf-8", "surrogatepass")) > 32 * 1024:
            yield too_long(f"{at}.message", 32 * 1024)
