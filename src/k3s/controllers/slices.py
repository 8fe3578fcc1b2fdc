"""How endpoints are packed into EndpointSlices with as few writes as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers.actions import Action, Create, Update, delete
from k3s.controllers.known import ENDPOINT_SLICE

MOST_ENDPOINTS = 100

#: (name, number, protocol, appProtocol) of each port, sorted.
Ports = tuple[tuple[str, int, str, str], ...]
#: The address type and the ports: what all endpoints of a slice have in common.
Group = tuple[str, Ports]


class Owner(NamedTuple):
    """Whose slices they are, and the labels they carry."""

    obj: Object
    labels: dict[str, str]


def identity(endpoint: Object) -> str:
    """What an endpoint is known by: its pod, else its address."""
    return str((endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0])


def _group_of(piece: Object) -> Group:
    rows = [
        (port.get("name") or "", port.get("port") or 0, port.get("protocol") or "TCP", port.get("appProtocol") or "")
        for port in piece.get("ports") or ()
    ]
    return piece["addressType"], tuple(sorted(rows))


def changes(owner: Owner, wanted: dict[Group, dict[str, Object]], existing: Sequence[Object]) -> list[Action]:
    by_group: dict[Group, list[Object]] = {}
    for piece in sorted(existing, key=objects.name):
        by_group.setdefault(_group_of(piece), []).append(piece)
    actions: list[Action] = []
    leftover = [piece for group, pieces in by_group.items() if group not in wanted for piece in pieces]
    for group, endpoints in wanted.items():
        actions += _group_changes(owner, group, endpoints, by_group.get(group, []))
    # What replaces them comes first, so that no moment has no endpoints.
    return actions + [delete(ENDPOINT_SLICE, piece) for piece in leftover if not objects.is_deleting(piece)]


def _group_changes(
    owner: Owner, group: Group, endpoints: dict[str, Object], existing: Sequence[Object]
) -> list[Action]:
    """Keeps endpoints where they are, fills what has room, makes new slices for the rest, drops empty ones."""
    missing = dict(endpoints)
    filled: list[tuple[Object, list[Object]]] = []
    for piece in existing:
        kept = [new for old in piece.get("endpoints") or () if (new := missing.pop(identity(old), None)) is not None]
        filled.append((piece, kept))
    rest = list(missing.values())
    actions: list[Action] = []
    alive = 0
    for piece, kept in filled:
        room = MOST_ENDPOINTS - len(kept)
        kept += rest[:room]
        rest = rest[room:]
        if kept or (piece is filled[-1][0] and not alive and not rest):
            alive += 1
            actions += _update(owner, piece, kept)
        else:
            actions.append(delete(ENDPOINT_SLICE, piece))
    chunks = [rest[at : at + MOST_ENDPOINTS] for at in range(0, len(rest), MOST_ENDPOINTS)]
    if not chunks and not alive:
        chunks = [[]]
    return actions + [Create(ENDPOINT_SLICE, _new(owner, group, chunk)) for chunk in chunks]


def _update(owner: Owner, piece: Object, endpoints: list[Object]) -> list[Action]:
    labels = owner.labels
    if objects.labels(piece) == labels and (piece.get("endpoints") or []) == endpoints:
        return []
    meta = {**piece["metadata"], "labels": labels}
    return [Update(ENDPOINT_SLICE, {**piece, "metadata": meta, "endpoints": endpoints})]


def _new(owner: Owner, group: Group, endpoints: list[Object]) -> Object:
    family, ports = group
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{objects.name(owner.obj)}-",
            "namespace": objects.namespace(owner.obj),
            "labels": owner.labels,
            "ownerReferences": [objects.owner_ref(owner.obj)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [_port(*row) for row in ports],
    }


def _port(name: str, number: int, protocol: str, app_protocol: str) -> Object:
    port: Object = {"name": name, "port": number, "protocol": protocol}
    return {**port, "appProtocol": app_protocol} if app_protocol else port
