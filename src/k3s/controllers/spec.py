"""A controller as a row of the table: what it decides, and which changes make it decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3s.api import object as objects
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.controllers.actions import Decision
from k3s.controllers.world import World

if TYPE_CHECKING:
    from k3s.client.client import Client

Keys = Callable[[Object | None, Object | None, World], Iterable[str]]
Decide = Callable[[str, World, float], Decision]
Observe = Callable[[str, World, "Client"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Watch:
    """Changes of `kind` concern the keys that `keys(old, new, world)` names (None: before it was, after it is gone)."""

    kind: Kind
    keys: Keys


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """A controller as a row of the table.

    `kind`: the kind whose keys are decided; None when the keys are something else. `watches`: what else concerns a
    key. `everywhere`: the same for every kind that the server stores. `reads`: kinds looked at without being watched.
    `account`: the service account in kube-system in whose name it writes. `workers`: keys that are carried out at the
    same time. `observe`: asks the server for what no cache can tell, before each decision (`world.observed`).
    `start_keys`: decided once at the start.
    """

    name: str
    decide: Decide
    kind: Kind | None = None
    watches: tuple[Watch, ...] = ()
    everywhere: Callable[[Kind], Keys] | None = None
    reads: tuple[Kind, ...] = ()
    account: str = ""
    workers: int = 5
    observe: Observe | None = None
    start_keys: tuple[str, ...] = ()


def own_key(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    """The changed object's own key."""
    obj = new or old
    return (objects.key(obj),) if obj is not None else ()


def each(keys: Callable[[Object, World], Iterable[str]]) -> Keys:
    """The keys that an object concerns as it was and as it is."""

    def both(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
        found = dict.fromkeys(keys(new, world)) if new is not None else {}
        if old is not None:
            found |= dict.fromkeys(keys(old, world))
        return found

    return both
