"""Who may use the kubelet's endpoints: the API server decides, by TokenReview and SubjectAccessReview."""

from __future__ import annotations

from k3s.api.errors import Forbidden, Unauthorized
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.clock import Clock
from k3s.base.message import Request
from k3s.client.client import Client

_TOKEN_REVIEW = builtin("authentication.k8s.io/v1", "TokenReview")
_ACCESS_REVIEW = builtin("authorization.k8s.io/v1", "SubjectAccessReview")


class ApiAuthorizer:
    """Asks the API server who a caller is and what it may, and remembers the answer (kubelet's webhook mode)."""

    ALLOWED_S, DENIED_S = 300.0, 30.0

    def __init__(self, client: Client, node: str, clock: Clock) -> None:
        self._client = client
        self._node = node
        self._clock = clock
        self._known: dict[tuple[str, ...], tuple[bool, str, float]] = {}
        self._tokens: dict[str, tuple[Object | None, float]] = {}

    async def __call__(self, request: Request, verb: str, subresource: str) -> None:
        """Raises Unauthorized, Forbidden."""
        user = await self._user(request)
        if "system:masters" in user.get("groups", ()):
            return
        wanted = [subresource] if subresource == "proxy" else [subresource, "proxy"]
        reason = ""
        for each in wanted:
            allowed, reason = await self._may(user, verb, each)
            if allowed:
                return
        raise Forbidden(
            f"Forbidden (user={user['username']}, verb={verb}, resource=nodes, subresource={wanted}) {reason}"
        )

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
        if len(self._tokens) > 256:
            self._tokens.clear()
        self._tokens[token] = (user, now + (120.0 if user else 10.0))
        return user

    async def _may(self, user: Object, verb: str, subresource: str) -> tuple[bool, str]:
        key = (user["username"], *user.get("groups", ()), verb, subresource)
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and known[2] > now:
            return known[0], known[1]
        attributes = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node,
        }
        spec = {"user": user["username"], "groups": user.get("groups", []), "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._client.create(_ACCESS_REVIEW, body)
        allowed, reason = bool(answer["status"].get("allowed")), answer["status"].get("reason", "")
        if len(self._known) > 256:
            self._known.clear()
        self._known[key] = (allowed, reason, now + (self.ALLOWED_S if allowed else self.DENIED_S))
        return allowed, reason
