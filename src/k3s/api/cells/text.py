"""How table cells write ages, lists, selectors and counts.

Source of the age rules: `duration.HumanDuration` as observed on upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from k3s.api import selectors, times
from k3s.api.object import Object

#: The age of a time field (text or None) as a cell writes it.
Age = Callable[[Any], str]
Cells = Callable[[Object, Age], list[Any]]

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"


def duration(seconds: float) -> str:
    """A span of time in two units at most: `59s`, `5m3s`, `3h2m`, `7d`, `2y30d`."""
    if seconds < -1:
        return "<invalid>"
    s = max(0, int(seconds))
    if s < 120:
        return f"{s}s"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if minutes < 10:
        return _pair(minutes, "m", s % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _pair(days, "d", hours % 24, "h")
    years = days // 365
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _pair(years, "y", days % 365, "d")
    return f"{years}y"


def _pair(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def age_at(now: float) -> Age:
    """The function that writes the age of a time, seen at `now` (seconds since 1970)."""
    cache: dict[str, str] = {}

    def age(text: Any) -> str:
        if not text:
            return UNKNOWN
        found = cache.get(text)
        if found is None:
            found = cache[text] = duration(now - times.parse(text))
        return found

    return age


def created(obj: Object) -> Any:
    """metadata.creationTimestamp, or None."""
    return obj.get("metadata", {}).get("creationTimestamp")


def some(items: Iterable[str], most: int = 3, *, separator: str = ",", empty: str = NONE) -> str:
    """The first few of a list, and how many more there are."""
    texts = list(items)
    if not texts:
        return empty
    text = separator.join(texts[:most])
    return f"{text} + {len(texts) - most} more..." if len(texts) > most else text


def pairs(labels: Mapping[str, str] | None) -> str:
    """Labels as `a=b,c=d`, sorted."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector(value: Mapping[str, Any] | None) -> str:
    """A label selector object in its text form."""
    if not value:
        return NONE
    try:
        return str(selectors.from_object(value)) or NONE
    except selectors.SelectorError:
        return "<error>"


def containers(template_spec: Mapping[str, Any]) -> list[str]:
    """Names and images of the containers of a pod spec, as two cells."""
    listed = template_spec.get("containers") or []
    return [",".join(c.get("name", "") for c in listed), ",".join(c.get("image", "") for c in listed)]


def condition(obj: Object, kind: str) -> Mapping[str, Any] | None:
    """The status condition of a type, or None."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found.get("type") == kind:
            return found  # type: ignore[no-any-return]
    return None


def is_true(obj: Object, kind: str) -> bool:
    """Whether the status condition of a type is True."""
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def access_modes(modes: Iterable[str] | None) -> str:
    """Access modes of a volume in short."""
    given = set(modes or ())
    return ",".join(short for mode, short in _MODES.items() if mode in given)
