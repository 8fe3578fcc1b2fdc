"""Paths below an object: status, scale, binding, eviction, tokens, and the doors to the nodes."""

from __future__ import annotations

from typing import Any

from k3s.apiserver.reads import Reads
from k3s.apiserver.subresources.status import Part
from k3s.apiserver.writes import Subresource, Writes
from k3s.base.clock import Clock


def table(reads: Reads, writes: Writes, clock: Clock, issuer: Any, nodes: Any) -> dict[str, Subresource]:
    """The handlers, by name or by `<plural>/<name>`."""
    part = Part(reads, writes)
    return {
        "status": part,
        "finalize": part,
        "approval": part,
        "ephemeralcontainers": part,
        "resize": part,
    }
