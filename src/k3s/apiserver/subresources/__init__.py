"""Paths below an object: status, scale, binding, eviction, tokens, and the doors to the nodes."""

from __future__ import annotations

from k3s.apiserver.admits import Admits
from k3s.apiserver.reads import Reads
from k3s.apiserver.subresources.binding import Binding
from k3s.apiserver.subresources.connect import Connect, NodeDialer
from k3s.apiserver.subresources.eviction import Eviction
from k3s.apiserver.subresources.scale import ScalePart
from k3s.apiserver.subresources.status import Part
from k3s.apiserver.subresources.token import Issuer, TokenRequest
from k3s.apiserver.writes import Subresource, Writes


def table(
    reads: Reads, writes: Writes, admission: Admits, issuer: Issuer | None, nodes: NodeDialer | None
) -> dict[str, Subresource]:
    """The handlers, by name or by `<plural>/<name>`."""
    part = Part(reads, writes)
    connect = Connect(nodes, admission)
    whole = ("status", "finalize", "approval", "ephemeralcontainers", "resize")
    doors = ("exec", "attach", "portforward", "log", "proxy")
    return {
        **dict.fromkeys(whole, part),
        **dict.fromkeys(doors, connect),
        "scale": ScalePart(reads, writes),
        "binding": Binding(writes),
        "eviction": Eviction(writes),
        "serviceaccounts/token": TokenRequest(writes, issuer),
    }
