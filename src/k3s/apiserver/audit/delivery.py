"""How events reach a backend: one by one before the request goes on, or in batches beside it; how large they may be.

Pure. Names, meanings and defaults are those of upstream's flags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k3s.api.object import Object, encode
from k3s.apiserver.audit.policy import REQUEST, REQUEST_RESPONSE

BATCH, BLOCKING, STRICT = MODES = ("batch", "blocking", "blocking-strict")
_TRUNCATED = "audit.k8s.io/truncated"


@dataclass(frozen=True, slots=True)
class Batching:
    """`buffer` events may wait; `size` go at once, after `wait_s` at the latest; so many batches a second, if `qps`."""

    buffer: int = 10000
    size: int = 400
    wait_s: float = 30.0
    qps: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Truncation:
    """The most bytes of one event and of one batch."""

    event: int = 100 << 10
    batch: int = 10 << 20


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the flags of one backend say of that."""

    mode: str
    batching: Batching = Batching()
    truncation: Truncation | None = None

    @property
    def strict(self) -> bool:
        """Whether a request that cannot be recorded is refused."""
        return self.mode == STRICT


def fitted(event: Object, limits: Truncation) -> Object | None:
    """The event, without its bodies when it is too large with them; None when it is too large even so."""
    if len(encode(event)) <= limits.event:
        return event
    if event["level"] not in (REQUEST, REQUEST_RESPONSE):
        return None
    kept = {name: value for name, value in event.items() if name not in ("requestObject", "responseObject")}
    kept["annotations"] = {**event.get("annotations", {}), _TRUNCATED: "true"}
    return kept if len(encode(kept)) <= limits.event else None


def parts(events: Iterable[Object], limits: Truncation | None) -> list[list[Object]]:
    """A batch as batches of the size that is allowed, in order."""
    if limits is None:
        return [list(events)]
    found: list[list[Object]] = [[]]
    total = 0
    for event in events:
        size = len(encode(event))
        if found[-1] and total + size > limits.batch:
            found.append([])
            total = 0
        found[-1].append(event)
        total += size
    return found
