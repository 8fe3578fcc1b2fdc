"""Service-account tokens that are accepted: what they say, whom they stand for, and what must still exist.

Source: the "Managing Service Accounts" page of the Kubernetes documentation, KEP-1205 (bound tokens), KEP-4193 (node
and credential id), and the authentication.k8s.io/v1 TokenRequest type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from k3s.api import times
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import identity, legacytokens
from k3s.apiserver.identity import User
from k3s.apiserver.rsa import unb64
from k3s.apiserver.tokenkeys import Key
from k3s.apiserver.tokenuses import Remark, Uses, unheard
from k3s.base.clock import Clock

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

SERVICE_ACCOUNT = builtin("v1", "ServiceAccount")
POD = builtin("v1", "Pod")
NODE = builtin("v1", "Node")
SECRET = builtin("v1", "Secret")

# Clocks of servers may differ by this much; tokens of an object that is going stay good this long after its deletion
# time (the leeway of upstream's library).
_LEEWAY_S = 60
_CACHE_LIMIT = 4096
_LONGEST_TOKEN = 16384


class BadToken(Exception):
    """A token of ours that is not (or no longer) good; the message says why."""


class ForeignToken(BadToken):
    """A token that this server did not make: somebody else may know it."""


class Ref(msgspec.Struct, frozen=True):
    """An object that a token names."""

    name: str
    uid: str = ""


class Bound(msgspec.Struct, frozen=True):
    """The private claim `kubernetes.io`."""

    namespace: str
    serviceaccount: Ref
    pod: Ref | None = None
    node: Ref | None = None
    secret: Ref | None = None
    warnafter: int = 0


class Claims(msgspec.Struct, frozen=True):
    """The claims of a service-account token that are read."""

    iss: str
    sub: str
    exp: int
    aud: list[str] | str = []
    nbf: int = 0
    iat: int = 0
    jti: str = ""
    private: Bound | None = msgspec.field(name="kubernetes.io", default=None)

    @property
    def audiences(self) -> Sequence[str]:
        """`aud` as a list, as JSON web tokens allow both."""
        return [self.aud] if isinstance(self.aud, str) else self.aud


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str = ""


class _Issuer(msgspec.Struct, frozen=True):
    iss: str = ""


class Session(NamedTuple):
    """A token that was accepted: who it stands for, and for which of the wanted audiences."""

    user: User
    audiences: tuple[str, ...]
    claims: Claims | legacytokens.Claims


@dataclass(frozen=True, slots=True)
class Settings:
    """`issuer` is the first of `issuers`, all of which are accepted; `audiences` are those of this API server.

    `given` are the audiences of a token that is asked for without naming any. Tokens last `longest_s` at the most
    (0: no such limit) and some longer than asked, where `extend` is on. `jwks_uri` is where others find the keys.
    """

    issuers: tuple[str, ...]
    audiences: tuple[str, ...]
    given: tuple[str, ...]
    extend: bool = True
    longest_s: int = 0
    jwks_uri: str = ""

    @property
    def issuer(self) -> str:
        """The issuer of new tokens."""
        return self.issuers[0]


def settings(domain: str, audiences: Sequence[str] = (), issuers: Sequence[str] = ()) -> Settings:
    """The issuer is the API service's name in `domain`, unless `issuers` names others. Without `audiences`, tokens
    carry the issuers, as upstream's do, and those for the API service and for `k3s` are accepted, too, as k3s wants."""
    service = f"https://kubernetes.default.svc.{domain}"
    own = tuple(issuers) or (service,)
    return Settings(own, tuple(audiences) or tuple(dict.fromkeys((*own, service, "k3s"))), tuple(audiences) or own)


class Verifier:
    """Accepts tokens; remembers parsed ones until they expire, and looks at the bound objects every time."""

    def __init__(
        self, reader: Reader, keys: Sequence[Key], settings: Settings, clock: Clock, uses: Uses | None = None
    ) -> None:
        self._reader = reader
        self._uses = uses
        self._keys = tuple(keys)
        self._settings = settings
        self._clock = clock
        self._known: dict[bytes, tuple[Claims | legacytokens.Claims, User]] = {}

    @property
    def given(self) -> tuple[str, ...]:
        """The audiences of tokens that are asked for without naming any."""
        return self._settings.given

    def verify(self, token: str, audiences: Sequence[str] = (), remark: Remark = unheard) -> Session:
        """Whom a token stands for; raises ForeignToken, BadToken. Without `audiences` those of the API server count.

        `remark` hears what is to be known of the token, also of one that is refused.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        if known is None:
            parsed = self._parse(token)
            known = parsed, _user(parsed)
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[digest] = known
        claims, user = known
        if isinstance(claims, legacytokens.Claims):
            return self._legacy(claims, user, token, audiences, remark)
        now = self._clock.now()
        if now > claims.exp + _LEEWAY_S:
            self._known.pop(digest, None)
            raise BadToken("service account token has expired")
        if now + _LEEWAY_S < max(claims.nbf, claims.iat):
            raise BadToken("service account token is not valid yet")
        shared = tuple(a for a in (audiences or self._settings.audiences) if a in claims.audiences)
        if not shared:
            raise BadToken(f"token audiences {list(claims.audiences)} is invalid for the target audiences")
        self._check_bound(claims, now)
        if claims.private is not None and claims.private.warnafter:
            late_s = int(now) - claims.private.warnafter
            self._count("stale" if late_s > 0 else "valid")
            if late_s > 0:
                text = f"subject: {claims.sub}, seconds after warning threshold: {late_s}"
                remark("authentication.k8s.io/stale-token", text, "")
        return Session(user, shared, claims)

    def _legacy(
        self, claims: legacytokens.Claims, user: User, token: str, audiences: Sequence[str], remark: Remark
    ) -> Session:
        remark("authentication.k8s.io/legacy-token", claims.sub, "")
        self._count("legacy")
        own = self._settings.audiences
        shared = tuple(a for a in audiences or own if a in own)
        problem = legacytokens.problem(self._reader, claims, token)
        if problem or not shared:
            raise BadToken(problem or "the token is for the API server")
        secret, use = legacytokens.use(self._reader, claims)
        remark(use.note, use.text, use.warning)
        self._count(use.counter)
        if self._uses is not None:
            self._uses.used(secret)
        if use.counter == "invalid":
            raise BadToken(f"the token in secret {claims.namespace}/{claims.secret} has been marked invalid")
        return Session(user, shared, claims)

    def _count(self, what: str) -> None:
        if self._uses is not None:
            self._uses.count(what)

    def _parse(self, token: str) -> Claims | legacytokens.Claims:
        parts = token.split(".")
        if len(parts) != 3 or len(token) > _LONGEST_TOKEN:
            raise ForeignToken("not a JSON web token")
        try:
            header = msgspec.json.decode(unb64(parts[0]), type=_Header)
            issuer = msgspec.json.decode(unb64(parts[1]), type=_Issuer).iss
            signature = unb64(parts[2])
        except (ValueError, msgspec.MsgspecError):
            raise ForeignToken("not a JSON web token") from None
        legacy = issuer == legacytokens.ISSUER
        if issuer not in self._settings.issuers and not legacy:
            raise ForeignToken(f"issued by {issuer!r}")
        message = f"{parts[0]}.{parts[1]}".encode()
        keys = [key for key in self._keys if header.kid in ("", key.kid) and key.algorithm == header.alg]
        if not any(key.verifies(message, signature) for key in keys):
            raise BadToken("invalid signature")
        try:
            if legacy:
                return msgspec.json.decode(unb64(parts[1]), type=legacytokens.Claims)
            return msgspec.json.decode(unb64(parts[1]), type=Claims)
        except msgspec.MsgspecError as error:
            raise BadToken(f"invalid claims: {error}") from None

    def _check_bound(self, claims: Claims, now: float) -> None:
        """Raises BadToken when the account, or the object that the token is bound to, is gone or is another one."""
        bound = claims.private
        assert bound is not None, "claims without the private part are refused when parsed"
        account = self._reader.get(SERVICE_ACCOUNT, bound.namespace, bound.serviceaccount.name)
        self._check(account, bound.serviceaccount, "service account", now)
        if bound.pod is not None:
            self._check(self._reader.get(POD, bound.namespace, bound.pod.name), bound.pod, "pod", now)
        elif bound.secret is not None:
            self._check(self._reader.get(SECRET, bound.namespace, bound.secret.name), bound.secret, "secret", now)
        elif bound.node is not None:
            self._check(self._reader.get(NODE, "", bound.node.name), bound.node, "node", now)

    @staticmethod
    def _check(obj: Object | None, ref: Ref, what: str, now: float) -> None:
        if obj is None or obj["metadata"].get("uid") != ref.uid:
            raise BadToken(f"service account token has been invalidated: {what} {ref.name} is gone")
        deleted = obj["metadata"].get("deletionTimestamp")
        if deleted and times.parse(deleted) < now - _LEEWAY_S:
            raise BadToken(f"service account token has been invalidated: {what} {ref.name} was deleted")


def _user(claims: Claims | legacytokens.Claims) -> User:
    """The user that a token's claims name; raises BadToken when they contradict each other."""
    if isinstance(claims, legacytokens.Claims):
        user = legacytokens.user_of(claims)
        if user is None:
            raise BadToken("sub claim does not match the service account")
        return user
    bound = claims.private
    if bound is None:
        raise BadToken("token has no kubernetes.io claim")
    name = identity.service_account_name(bound.namespace, bound.serviceaccount.name)
    if claims.sub != name:
        raise BadToken("sub claim does not match the service account")
    extra: dict[str, tuple[str, ...]] = {}
    if claims.jti:
        extra[identity.CREDENTIAL_ID] = (f"JTI={claims.jti}",)
    if bound.pod is not None:
        extra |= {identity.POD_NAME: (bound.pod.name,), identity.POD_UID: (bound.pod.uid,)}
    if bound.node is not None:
        extra[identity.NODE_NAME] = (bound.node.name,)
        if bound.node.uid:
            extra[identity.NODE_UID] = (bound.node.uid,)
    return User(name, identity.service_account_groups(bound.namespace), bound.serviceaccount.uid, extra)
