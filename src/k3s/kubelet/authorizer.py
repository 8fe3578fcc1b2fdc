"""Who may use the kubelet's endpoints: the API server decides, by TokenReview and SubjectAccessReview."""

from __future__ import annotations

from k3s.api.errors import Forbidden, Unauthorized
from k3s.api.kinds import builtin
from k3s.api.object import Object, encode
from k3s.base.clock import Clock
from k3s.base.message import Request
from k3s.client.client import Client

_TOKEN_REVIEW = builtin("authentication.k8s.io/v1", "TokenReview")
_ACCESS_REVIEW = builtin("authorization.k8s.io/v1", "SubjectAccessReview")
_MOST_KNOWN = 256


class ApiAuthorizer:
    """Asks the API server who a caller is and what it may, and remembers the answer (kubelet's webhook mode)."""

    ALLOWED_S, DENIED_S = 300.0, 30.0

    def __init__(self, client: Client, node: str, clock: Clock) -> None:
        self._client = client
        self._node = node
        self._clock = clock
        self._known: dict[bytes, tuple[bool, float]] = {}
        self._tokens: dict[str, tuple[Object | None, float]] = {}

    async def __call__(self, request: Request, verb: str, subresources: tuple[str, ...]) -> None:
        """Asks for each subresource until one is allowed. Raises Unauthorized, Forbidden."""
        user = await self._user(request)
        if "system:masters" in user.get("groups", ()):
            return
        for each in subresources:
            if await self._may(user, verb, each):
                return
        listed = " ".join(subresources)
        raise Forbidden(f"Forbidden (user={user['username']}, verb={verb}, resource=nodes, subresource(s)=[{listed}])")

    async def _user(self, request: Request) -> Object:
        if request.peer is not None:
            return {
                "username": request.peer.common_name,
                "groups": [*request.peer.organizations, "system:authenticated"],
            }
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("Unauthorized")
        user = await self._reviewed(token)
        if user is None:
            raise Unauthorized("Unauthorized")
        return user

    async def _reviewed(self, token: str) -> Object | None:
        known = self._tokens.get(token)
        now = self._clock.monotonic()
        if known is not None and known[1] > now:
            return known[0]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        answer = await self._client.create(_TOKEN_REVIEW, body)
        status = answer.get("status", {})
        user = status.get("user") if status.get("authenticated") else None
        if len(self._tokens) > _MOST_KNOWN:
            self._tokens.clear()
        self._tokens[token] = (user, now + (120.0 if user else 10.0))
        return user

    async def _may(self, user: Object, verb: str, subresource: str) -> bool:
        attributes = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node,
        }
        who = {"user": user["username"], **{key: user[key] for key in ("groups", "uid", "extra") if user.get(key)}}
        spec = {**who, "resourceAttributes": attributes}
        key, now = encode(spec), self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and known[1] > now:
            return known[0]
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._client.create(_ACCESS_REVIEW, body)
        allowed = bool(answer["status"].get("allowed"))
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known[key] = (allowed, now + (self.ALLOWED_S if allowed else self.DENIED_S))
        return allowed
