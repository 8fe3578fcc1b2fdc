"""When a probe runs and what its results mean: thresholds over successes and failures.

Pure. Source: the Probe API of Pods (defaults: timeout 1 s, period 10 s, success after 1, failure after 3). Before the
first decision a readiness probe counts as failed and a liveness probe as passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from k3s.api.object import Object

STARTUP, READINESS, LIVENESS = "startup", "readiness", "liveness"
_TIMEOUT_S = 1.0
_PERIOD_S = 10.0
_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times of a probe in seconds, and its thresholds."""

    delay_s: float
    period_s: float
    timeout_s: float
    successes: int
    failures: int

    @classmethod
    def of(cls, probe: Object) -> Schedule:
        """The schedule of a Probe object."""
        return cls(
            delay_s=float(probe.get("initialDelaySeconds") or 0),
            period_s=float(probe.get("periodSeconds") or _PERIOD_S),
            timeout_s=float(probe.get("timeoutSeconds") or _TIMEOUT_S),
            successes=int(probe.get("successThreshold") or 1),
            failures=int(probe.get("failureThreshold") or _FAILURES),
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """How often in a row a probe gave the same result; `decided` is the last verdict, None before the first."""

    last: bool | None = None
    count: int = 0
    decided: bool | None = None


def count(tally: Tally, ok: bool, schedule: Schedule) -> tuple[Tally, bool | None]:
    """The tally after one more result, and the verdict when it is new (None: nothing changed)."""
    same = tally.count + 1 if tally.last is ok else 1
    made = replace(tally, last=ok, count=same)
    if same < (schedule.successes if ok else schedule.failures) or tally.decided is ok:
        return made, None
    return replace(made, decided=ok), ok


def first_delay(schedule: Schedule, kind: str, running_for_s: float, jitter: float, *, adopted: bool) -> float:
    """Seconds until the first run: the initial delay since the start of the container.

    After a restart of the kubelet the probes of all containers would run at once: `jitter` (0 to 1 of a period)
    spreads them.
    """
    left = max(0.0, schedule.delay_s - running_for_s)
    return left + jitter * schedule.period_s if adopted and kind != STARTUP else left


def handler(probe: Object) -> tuple[str, Any]:
    """Which way a probe or hook asks: exec, httpGet, tcpSocket, grpc or sleep, with its arguments."""
    for way in ("exec", "httpGet", "tcpSocket", "grpc", "sleep"):
        if probe.get(way) is not None:
            return way, probe[way]
    raise ValueError("Cannot probe: it names neither exec, httpGet, tcpSocket nor grpc")


def port_number(port: Any, container: Object) -> int:
    """The number of a port that may be a name of one of the container's ports. Raises ValueError."""
    if isinstance(port, int):
        return port
    for known in container.get("ports") or ():
        if known.get("name") == port:
            return int(known["containerPort"])
    if str(port).isdigit():
        return int(port)
    raise ValueError(f"Cannot probe: the container has no port named {port!r}")
