"""Fills Secrets of type kubernetes.io/service-account-token, and removes those whose ServiceAccount is gone."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from k3s.api import object as objects
from k3s.api.errors import NotFound
from k3s.api.object import Object, evolve
from k3s.client.client import Client
from k3s.controllers.actions import NOTHING, Decision, Update, delete
from k3s.controllers.known import SECRET, SERVICE_ACCOUNT
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"

#: The token for a ServiceAccount that is kept in a Secret.
Sign = Callable[[Object, Object], str]


def specs(sign: Sign, root_ca: str) -> tuple[ControllerSpec, ...]:
    """The controller; `root_ca` is the bundle (PEM text) that goes into each Secret."""

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides a Secret; `world.observed` is its ServiceAccount as the server has it, when no cache does."""
        secret = world.get(SECRET, key)
        if secret is None or not _is_token(secret) or objects.is_deleting(secret):
            return NOTHING
        account = world.get(SERVICE_ACCOUNT, _account_key(secret)) or world.observed
        wanted_uid = objects.annotations(secret).get(ACCOUNT_UID)
        if account is None or (wanted_uid and wanted_uid != objects.uid(account)):
            return Decision([delete(SECRET, secret)])
        data = secret.get("data") or {}
        known = {"ca.crt": _b64(root_ca), "namespace": _b64(objects.namespace(secret))}
        complete = data.get("token") and known.items() <= data.items()
        if complete and wanted_uid:
            return NOTHING
        token = data.get("token") or _b64(sign(account, secret))
        notes = {**objects.annotations(secret), ACCOUNT_UID: objects.uid(account)}
        filled = evolve(secret, ("data",), {**data, **known, "token": token})
        return Decision([Update(SECRET, evolve(filled, ("metadata", "annotations"), notes))])

    return (
        ControllerSpec(
            name="serviceaccount-token-controller",
            decide=decide,
            kind=SECRET,
            watches=(Watch(SERVICE_ACCOUNT, _secrets),),
            observe=_observe,
        ),
    )


async def _observe(key: str, world: World, client: Client) -> Object | None:
    """Only the server can tell that an account is gone: the Secret may have been seen before its account."""
    secret = world.get(SECRET, key)
    if secret is None or not _is_token(secret) or world.get(SERVICE_ACCOUNT, _account_key(secret)) is not None:
        return None
    try:
        return await client.get(SERVICE_ACCOUNT, objects.namespace(secret), _account_key(secret).partition("/")[2])
    except NotFound:
        return None


def _is_token(secret: Object) -> bool:
    return secret.get("type") == TYPE and bool(objects.annotations(secret).get(ACCOUNT_NAME))


def _account_key(secret: Object) -> str:
    return f"{objects.namespace(secret)}/{objects.annotations(secret)[ACCOUNT_NAME]}"


def _secrets(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    """The Secrets of an account, when it comes or goes."""
    account = new or old
    if account is None or (old is not None and new is not None):
        return ()
    key = objects.key(account)
    found = world.list(SECRET, objects.namespace(account))
    return [objects.key(secret) for secret in found if _is_token(secret) and _account_key(secret) == key]


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
