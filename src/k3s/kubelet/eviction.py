"""Whether the node is short of memory, disk or process ids.

Pure. A condition that was true stays true for a while after the signal is well again, so that it does not flap
(evictionPressureTransitionPeriod, 5 min). Source: node-pressure eviction documentation; the thresholds are k3s's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k3s.api import quantity
from k3s.api.object import Object, uid
from k3s.kubelet import resources

TRANSITION_S = 300.0
DEFAULT = {"imagefs.available": "5%", "nodefs.available": "5%"}

_CONDITIONS = {
    "memory.available": "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "imagefs.inodesFree": "DiskPressure",
    "pid.available": "PIDPressure",
}
_LOW_ON = {"MemoryPressure": "memory", "DiskPressure": "ephemeral-storage", "PIDPressure": "pids"}


@dataclass(frozen=True, slots=True)
class Signal:
    """How much of something there is, and how much is left."""

    capacity: int
    available: int


def parse(text: str) -> dict[str, str]:
    """`signal<value,…` as the flag eviction-hard has it. Raises ValueError naming what is wrong."""
    made: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        signal, found, value = part.partition("<")
        if not found or signal not in _CONDITIONS:
            raise ValueError(
                f"Cannot use the eviction threshold {part!r}: write <signal><<value>, {sorted(_CONDITIONS)}"
            )
        made[signal] = value
    return made


def threshold(value: str, capacity: int) -> int:
    """A threshold in units of the signal: a percentage of the capacity, or a quantity."""
    if value.endswith("%"):
        return int(float(value[:-1]) * capacity / 100)
    return quantity.value(value)


def pressed(signals: Mapping[str, Signal], thresholds: Mapping[str, str]) -> set[str]:
    """The conditions that hold by the signals now."""
    return {
        _CONDITIONS[name]
        for name, value in thresholds.items()
        if name in signals and signals[name].available < threshold(value, signals[name].capacity)
    }


def conditions(last_true: Mapping[str, float], now_pressed: set[str], now: float) -> tuple[dict[str, float], set[str]]:
    """When each condition was last true, and which are to be shown."""
    seen = {**last_true, **dict.fromkeys(now_pressed, now)}
    return seen, {name for name, at in seen.items() if now - at < TRANSITION_S}


def victim(pods: Sequence[Object], used: Mapping[str, int], condition: str) -> tuple[Object, str] | None:
    """The pod that has to go first, and the message for its status; None when all are critical.

    First who uses more than was asked for, then the lower priority, then who uses most beyond the request. `used` is
    bytes of memory (or of disk, for DiskPressure) by pod uid.
    """
    name = "memory" if condition == "MemoryPressure" else "ephemeral-storage"

    def beyond(pod: Object) -> int:
        asked = sum(resources.amounts(c, "requests").get(name, 0) for c in pod["spec"]["containers"])
        return used.get(uid(pod), 0) - asked

    able = [pod for pod in pods if not resources.is_critical(pod)]
    if not able:
        return None
    chosen = min(able, key=lambda pod: (beyond(pod) <= 0, int(pod["spec"].get("priority") or 0), -beyond(pod)))
    return chosen, f"The node was low on resource: {_LOW_ON[condition]}. "
