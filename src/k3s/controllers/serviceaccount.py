"""Gives each namespace its `default` ServiceAccount, again when someone deletes it."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object
from k3s.controllers.actions import NOTHING, Create, Decision
from k3s.controllers.known import NAMESPACE, SERVICE_ACCOUNT
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

NAME = "default"


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a namespace."""
    space = world.get(NAMESPACE, key)
    if space is None or objects.is_deleting(space) or world.get(SERVICE_ACCOUNT, f"{key}/{NAME}") is not None:
        return NOTHING
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": key}}
    return Decision([Create(SERVICE_ACCOUNT, account)])


def _deleted(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    if new is None and old is not None and objects.name(old) == NAME:
        return (objects.namespace(old),)
    return ()


SPECS = (
    ControllerSpec(
        name="serviceaccount-controller",
        decide=decide,
        kind=NAMESPACE,
        watches=(Watch(SERVICE_ACCOUNT, _deleted),),
        account="service-account-controller",
    ),
)
