"""Bearer tokens that only another service knows: asked about by TokenReview, as the kubeconfig of a webhook says.

Source: "Webhook Token Authentication" in the Kubernetes documentation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k3s.api.errors import ApiError, OutcomeUnknown
from k3s.api.object import get
from k3s.apiserver import identity
from k3s.apiserver.authn import AudienceUser
from k3s.apiserver.identity import User
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.client.transport import Transport

log = logging.getLogger(__name__)

_ASK_S = 30.0
_ATTEMPTS = 2


class TokenWebhook:
    """Asks one webhook; `path` is that of its URL, `version` of the TokenReview, `ttl_s` how long answers count."""

    def __init__(self, transport: Transport, version: str = "v1beta1", ttl_s: float = 120.0) -> None:
        self._transport = transport
        self._version = version
        self.ttl_s = ttl_s

    def takes(self, token: str) -> bool:
        """Any token may be known there."""
        return True

    async def user(self, token: str, audiences: Sequence[str]) -> User | AudienceUser | None:
        """Whom the token stands for; None when the webhook does not know it, or does not answer."""
        spec: dict[str, Any] = {"token": token, "audiences": list(audiences)}
        body = {"apiVersion": f"authentication.k8s.io/{self._version}", "kind": "TokenReview", "spec": spec}
        for _ in range(_ATTEMPTS):
            try:
                async with asyncio.timeout(_ASK_S):
                    answer = await self._transport.send(Request("POST", "", {}, body))
                break
            except (ApiError, OutcomeUnknown, TimeoutError) as error:
                log.warning("Cannot ask the webhook about a token: %s", error)
        else:
            return None
        if answer.status not in (200, 201) or not isinstance(answer.body, dict):
            log.warning("The webhook answers a TokenReview with %s, which is no TokenReview", answer.status)
            return None
        return _user(answer.body.get("status"), audiences)


def _user(status: Any, audiences: Sequence[str]) -> User | AudienceUser | None:
    name = get(status, "user", "username", default="")
    if get(status, "authenticated") is not True or not isinstance(name, str) or not name:
        return None
    user = status["user"]
    extra = {key.lower(): tuple(map(str, values)) for key, values in (user.get("extra") or {}).items()}
    groups = identity.with_authenticated(tuple(map(str, user.get("groups") or ())), name)
    found = User(name, groups, str(user.get("uid") or ""), extra)
    good = get(status, "audiences") or []
    if not audiences or not good:
        return found  # it knows nothing of audiences: good for those of this server
    shared = tuple(audience for audience in audiences if audience in good)
    return AudienceUser(found, shared) if shared else None


def from_file(path: str, version: str, ttl_s: float) -> TokenWebhook:
    """The webhook that a kubeconfig file names. Raises ValueError, OSError."""
    from k3s.client.https import from_kubeconfig
    from k3s.client.kubeconfig import load

    file = Path(path)
    return TokenWebhook(from_kubeconfig(load(file.read_text(), file.parent)), version, ttl_s)
