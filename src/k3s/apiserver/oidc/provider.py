"""One issuer at work: its keys, fetched when they are first needed and again when a token names a new one."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from k3s.api.errors import ApiError, ServiceUnavailable
from k3s.api.object import decode
from k3s.apiserver.identity import User
from k3s.apiserver.oidc.claims import Mapper, Refused
from k3s.apiserver.oidc.settings import IssuerSettings
from k3s.apiserver.rsa import unb64
from k3s.base.clock import Clock

if TYPE_CHECKING:
    from k3s.apiserver.oidc.keys import Key

log = logging.getLogger(__name__)

_LONGEST_TOKEN = 16384
_FETCH_S = 10.0
# So often at the most the keys are fetched again, whatever tokens name.
_APART_S = 10.0
_LEEWAY_S = 10.0

#: A JSON document at a URL that is served by whom these PEM authorities know (empty: the system's). Raises ApiError.
Fetch = Callable[[str, str], Awaitable[Any]]


class NotOurs(Exception):
    """A token of another issuer, or none at all."""


class Provider:
    """Checks tokens of one issuer."""

    #: So long a user that was found stays known.
    ttl_s = 10.0

    def __init__(self, settings: IssuerSettings, fetch: Fetch, clock: Clock) -> None:
        self._settings = settings
        self._fetch = fetch
        self._clock = clock
        self._mapper = Mapper(settings)
        self._keys: list[Key] = []
        self._fetched_at = -math.inf
        self._lock = asyncio.Lock()

    def takes(self, token: str) -> bool:
        """Whether the token says that it is of this issuer."""
        try:
            return bool(_parts(token)[1].get("iss") == self._settings.url)
        except NotOurs:
            return False

    async def user(self, token: str, audiences: Sequence[str] = ()) -> User | None:
        """Whom the token stands for; None when it is not good. The issuer's own audiences count, not `audiences`."""
        try:
            header, claims, message, signature = _parts(token)
            await self._check(str(header.get("alg")), header.get("kid"), message, signature)
            self._check_claims(claims)
            return self._mapper.user(claims)
        except (Refused, NotOurs) as error:
            log.info("A token of %s is refused: %s", self._settings.url, error)
            return None

    async def prepare(self) -> None:
        """Fetches the keys before they are needed. Raises Refused."""
        self._fetched_at = self._clock.monotonic()
        self._keys = await self._fetched()

    async def _check(self, algorithm: str, kid: Any, message: bytes, signature: bytes) -> None:
        if algorithm not in self._settings.algorithms:
            raise Refused(f"oidc: the algorithm {algorithm} is not accepted")
        for _ in range(2):
            known = [key for key in self._keys if not kid or not key.kid or key.kid == kid]
            if any(key.verifies(algorithm, message, signature) for key in known):
                return
            if not await self._renewed():
                break
        raise Refused("oidc: failed to verify the signature")

    async def _renewed(self) -> bool:
        """Fetches the keys unless that was done just now; whether there may be new ones."""
        before = self._fetched_at
        async with self._lock:
            if self._fetched_at != before:
                return True  # another request has fetched them meanwhile
            if self._clock.monotonic() - self._fetched_at < _APART_S:
                return False
            self._fetched_at = self._clock.monotonic()
            self._keys = await self._fetched() or self._keys
            return True

    async def _fetched(self) -> list[Key]:
        from k3s.apiserver.oidc.keys import keys

        settings = self._settings
        at = settings.discovery_url or f"{settings.url.rstrip('/')}/.well-known/openid-configuration"
        try:
            async with asyncio.timeout(_FETCH_S):
                document = await self._fetch(at, settings.ca_pem)
                if not isinstance(document, dict) or document.get("issuer") != settings.url:
                    raise Refused(f"{at} is of another issuer")
                place = str(document.get("jwks_uri") or "")
                if urlsplit(place).scheme != "https":
                    raise Refused(f"{at} names no jwks_uri that is https")
                return keys(await self._fetch(place, settings.ca_pem))
        except (ApiError, TimeoutError, OSError, ValueError) as error:
            log.warning("Cannot fetch the keys of %s: %s", settings.url, error)
            raise Refused(f"oidc: the keys of {settings.url} cannot be fetched") from error

    def _check_claims(self, claims: dict[str, Any]) -> None:
        now = self._clock.now()
        if not _is_time(claims.get("exp")) or now >= claims["exp"]:
            raise Refused("oidc: token is expired")
        if "nbf" in claims and (not _is_time(claims["nbf"]) or now + _LEEWAY_S < claims["nbf"]):
            raise Refused("oidc: token is not valid yet")
        audiences = claims.get("aud")
        audiences = [audiences] if isinstance(audiences, str) else audiences
        if not isinstance(audiences, list) or not set(self._settings.audiences) & {
            a for a in audiences if isinstance(a, str)
        }:
            raise Refused(f"oidc: expected audience in {list(self._settings.audiences)} got {audiences}")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what is signed, signature. Raises NotOurs."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN:
        raise NotOurs("no JSON web token")
    try:
        header, claims, signature = decode(unb64(parts[0])), decode(unb64(parts[1])), unb64(parts[2])
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise NotOurs("no JSON web token") from None
    if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header:
        raise NotOurs("no JSON web token")
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


async def fetch(url: str, ca_pem: str) -> Any:
    """See Fetch; redirects are not followed."""
    from k3s.client.https import HttpsTransport
    from k3s.client.tls import Credentials
    from k3s.client.transport import Request

    parts = urlsplit(url)
    transport = HttpsTransport(f"https://{parts.netloc}", Credentials(ca_pem=ca_pem), request_s=_FETCH_S)
    try:
        answer = await transport.send(Request("GET", parts.path, dict(parse_qsl(parts.query))))
    finally:
        await transport.close()
    if answer.status != 200:
        raise ServiceUnavailable(f"{url} answers {answer.status}")
    return decode(answer.body) if isinstance(answer.body, bytes) else answer.body
