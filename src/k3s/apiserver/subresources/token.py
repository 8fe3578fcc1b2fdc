"""`serviceaccounts/token`: a token for a service account, bound to an object if asked. Source: TokenRequest API."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from k3s.api.errors import ServiceUnavailable
from k3s.api.object import Object
from k3s.apiserver import body as bodies
from k3s.apiserver.call import Call
from k3s.apiserver.results import One, Result
from k3s.apiserver.writes import Writes

# The annotation of the audit log that tells which token was made (KEP-4193).
_ISSUED = "authentication.kubernetes.io/issued-credential-id"
REQUEST = ("authentication.k8s.io/v1", "TokenRequest")


class Issuer(Protocol):
    """Makes tokens (see `apiserver.tokens`)."""

    def checked(self, namespace: str, name: str, body: Object) -> Object:
        """A TokenRequest with its defaults; raises ApiError."""

    def request(self, namespace: str, name: str, body: Object) -> tuple[Object, str, str]:
        """The answer to a TokenRequest that was checked, the token's id, and a warning; raises ApiError."""

    def published(self, jwks_uri: str) -> Mapping[str, tuple[str, Object]]:
        """What others need to check the tokens, by path: content type and document."""


class TokenRequest:
    """Answers with the token in status, if admission allows: a node gets tokens for its own pods only."""

    def __init__(self, writes: Writes, issuer: Issuer | None) -> None:
        self._writes = writes
        self._issuer = issuer

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        return self._issue(call)

    async def _issue(self, call: Call) -> Result:
        """Issues the token that the body asks for."""
        if self._issuer is None:
            raise ServiceUnavailable("Cannot issue a token: this server has no signing key")
        value = bodies.read(call.request, "TokenRequest")
        request = bodies.of_kind(value, call.kind, self._writes.registry, REQUEST)
        name, issuer = call.target.info.name, self._issuer
        context = self._writes.context(call)
        request = await self._writes.crud.asked(
            context, request, lambda body: issuer.checked(call.namespace, name, body)
        )
        answer, credential, warning = issuer.request(call.namespace, name, request)
        call.notes[_ISSUED] = credential
        call.warnings += [warning] if warning else []
        return One(None, None, answer, 201)
