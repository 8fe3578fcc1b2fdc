"""A bounded record of what happened to whom: (time, component, key, what), for /debug/story and failed simulations."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

# Enough for some minutes of a busy cluster; about 1 MB at the most.
_LIMIT = 4096


class Line(NamedTuple):
    """One thing that happened."""

    at: float
    component: str
    key: str
    what: str


class Story:
    """The newest lines of a process, oldest first."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._lines: deque[Line] = deque(maxlen=limit)

    def tell(self, at: float, component: str, key: str, what: str) -> None:
        """Adds a line; `at` is in seconds since the epoch, `key` is `namespace/name` or `name`."""
        self._lines.append(Line(at, component, key, what))

    def lines(self, key: str | None = None, component: str | None = None) -> list[Line]:
        """The lines about a key, or by a component, or all."""
        return [
            line
            for line in self._lines
            if (key is None or line.key == key) and (component is None or line.component == component)
        ]
