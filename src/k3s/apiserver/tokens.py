"""Service-account tokens: JSON web tokens that this server signs and accepts, bound to objects that must still exist.

Source: the "Managing Service Accounts" page of the Kubernetes documentation, KEP-1205 (bound tokens), KEP-4193 (node
and credential id), and the authentication.k8s.io/v1 TokenRequest type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from k3s.api import times
from k3s.api.errors import BadRequest, conflict, invalid, not_found
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object, encode, evolve, get
from k3s.apiserver import identity, legacytokens
from k3s.apiserver.identity import User
from k3s.apiserver.rsa import PublicKey, Signer, b64, unb64
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

SERVICE_ACCOUNT = builtin("v1", "ServiceAccount")
POD = builtin("v1", "Pod")
NODE = builtin("v1", "Node")
SECRET = builtin("v1", "Secret")
_BOUND = {"pod": POD, "node": NODE, "secret": SECRET}

DEFAULT_S = 3600
SHORTEST_S = 600
LONGEST_S = 1 << 32
# The lifetime that the ServiceAccount admission asks for. Such tokens are accepted for a year, for clients that read
# their file only once; from the first hour on they are due for renewal (`warnafter`).
PROJECTED_S = 3607
EXTENDED_S = 365 * 24 * 3600
# Tokens of an object that is going stay good this long after its deletion time.
_DELETION_LEEWAY_S = 60
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

    `given` are the audiences of a token that is asked for without naming any.
    """

    issuers: tuple[str, ...]
    audiences: tuple[str, ...]
    given: tuple[str, ...]
    extend: bool = True

    @property
    def issuer(self) -> str:
        """The issuer of new tokens."""
        return self.issuers[0]


def settings(domain: str, audiences: Sequence[str] = ()) -> Settings:
    """The issuer is the API service's name in `domain`. Without `audiences`, tokens carry the issuer, as upstream's do,
    and those for `k3s` are accepted, too: that is what k3s tells its server."""
    own = (f"https://kubernetes.default.svc.{domain}",)
    return Settings(own, tuple(audiences) or (*own, "k3s"), tuple(audiences) or own)


class Verifier:
    """Accepts tokens; remembers parsed ones until they expire, and looks at the bound objects every time."""

    def __init__(self, reader: Reader, keys: Sequence[PublicKey], settings: Settings, clock: Clock) -> None:
        self._reader = reader
        self._keys = tuple(keys)
        self._settings = settings
        self._clock = clock
        self._known: dict[bytes, tuple[Claims | legacytokens.Claims, User]] = {}

    @property
    def given(self) -> tuple[str, ...]:
        """The audiences of tokens that are asked for without naming any."""
        return self._settings.given

    def verify(self, token: str, audiences: Sequence[str] = ()) -> Session:
        """Whom a token stands for; raises ForeignToken, BadToken. Without `audiences` those of the API server count."""
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
            return self._legacy(claims, user, token, audiences)
        now = self._clock.now()
        if now >= claims.exp:
            self._known.pop(digest, None)
            raise BadToken("service account token has expired")
        if now < claims.nbf:
            raise BadToken("service account token is not valid yet")
        shared = tuple(a for a in (audiences or self._settings.audiences) if a in claims.audiences)
        if not shared:
            raise BadToken(f"token audiences {list(claims.audiences)} is invalid for the target audiences")
        self._check_bound(claims, now)
        return Session(user, shared, claims)

    def _legacy(self, claims: legacytokens.Claims, user: User, token: str, audiences: Sequence[str]) -> Session:
        own = self._settings.audiences
        shared = tuple(a for a in audiences or own if a in own)
        problem = legacytokens.problem(self._reader, claims, token)
        if problem or not shared:
            raise BadToken(problem or "the token is for the API server")
        return Session(user, shared, claims)

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
        keys = [key for key in self._keys if not header.kid or key.kid == header.kid]
        if header.alg != "RS256" or not any(key.verifies(message, signature) for key in keys):
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
        if deleted and times.parse(deleted) < now - _DELETION_LEEWAY_S:
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


JWKS_PATH = "/openid/v1/jwks"


class Issuer:
    """Signs tokens for service accounts."""

    def __init__(self, reader: Reader, signer: Signer, settings: Settings, clock: Clock, entropy: Entropy) -> None:
        self._reader = reader
        self._signer = signer
        self._settings = settings
        self._clock = clock
        self._entropy = entropy

    def issue(
        self,
        account: Object,
        audiences: Sequence[str],
        lifetime_s: int,
        bound: Mapping[str, Object] | None = None,
        warn_after_s: int = 0,
    ) -> str:
        """A signed token for a ServiceAccount; `bound` has the objects by claim: pod, node, secret."""
        now = int(self._clock.now())
        meta = account["metadata"]
        private: Object = {"namespace": meta["namespace"], "serviceaccount": _ref(account)}
        private |= {claim: _ref(obj) for claim, obj in sorted((bound or {}).items())}
        if warn_after_s:
            private["warnafter"] = now + warn_after_s
        claims = {
            "aud": list(audiences),
            "exp": now + lifetime_s,
            "iat": now,
            "iss": self._settings.issuer,
            "jti": self._entropy.uid(),
            "kubernetes.io": private,
            "nbf": now,
            "sub": identity.service_account_name(meta["namespace"], meta["name"]),
        }
        return self._signed(claims)

    def legacy(self, account: Object, secret: Object) -> str:
        """The token without an end that a Secret holds for a ServiceAccount."""
        return self._signed(legacytokens.claims_for(account, secret))

    def _signed(self, claims: Object) -> str:
        header = {"alg": "RS256", "kid": self._signer.public.kid}
        message = f"{b64(encode(header))}.{b64(encode(claims))}"
        return f"{message}.{b64(self._signer.sign(message.encode()))}"

    def published(self, jwks_uri: str) -> Mapping[str, tuple[str, Object]]:
        """What others need to check the tokens, by path: content type and document."""
        return {
            "/.well-known/openid-configuration": ("application/json", discovery(self._settings.issuer, jwks_uri)),
            JWKS_PATH: ("application/jwk-set+json", jwks([self._signer.public])),
        }

    def request(self, namespace: str, name: str, body: Object) -> Object:
        """Answers a TokenRequest for a service account; raises NotFound, BadRequest, Conflict, Invalid."""
        account = self._reader.get(SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        spec = body.get("spec") or {}
        lifetime_s = int(spec.get("expirationSeconds") or DEFAULT_S)
        _check_lifetime(lifetime_s)
        audiences = spec.get("audiences") or list(self._settings.given)
        ref = spec.get("boundObjectRef")
        bound = self._bound(namespace, name, ref) if ref else {}
        warn_after_s, signed_s = 0, lifetime_s
        own = set(audiences) <= set(self._settings.audiences)
        if self._settings.extend and lifetime_s == PROJECTED_S and "pod" in bound and own:
            warn_after_s, signed_s = lifetime_s, EXTENDED_S
        token = self.issue(account, audiences, signed_s, bound, warn_after_s)
        now = self._clock.now()
        answer = evolve(body, ("spec",), {**spec, "audiences": audiences, "expirationSeconds": lifetime_s})
        answer["spec"].setdefault("boundObjectRef", None)
        meta = {
            "uid": self._entropy.uid(),
            "creationTimestamp": times.format(now),
            "name": name,
            "namespace": namespace,
        }
        answer |= {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta}
        answer["status"] = {"token": token, "expirationTimestamp": times.format(now + lifetime_s)}
        return answer

    def _bound(self, namespace: str, account: str, ref: Object) -> dict[str, Object]:
        group, _, version = str(ref.get("apiVersion", "")).rpartition("/")
        kind, name = str(ref.get("kind", "")), str(ref.get("name", ""))
        claim = kind.lower()
        if (group, version) != ("", "v1") or claim not in _BOUND or _BOUND[claim].kind != kind:
            raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        obj = self._find(_BOUND[claim], "" if claim == "node" else namespace, name)
        bound = {claim: obj}
        if claim == "pod":
            if get(obj, "spec", "serviceAccountName") != account:
                why = "to pod running with different serviceaccount name."
                raise BadRequest(f'cannot bind token for serviceaccount "{account}" {why}')
            node_name = get(obj, "spec", "nodeName", default="")
            if node_name:
                bound["node"] = self._reader.get(NODE, "", node_name) or {"metadata": {"name": node_name}}
        if ref.get("uid") and ref["uid"] != obj["metadata"].get("uid"):
            raise conflict(
                group,
                kind,
                name,
                f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated",
            )
        return bound

    def _find(self, kind: Kind, namespace: str, name: str) -> Object:
        obj = self._reader.get(kind, namespace, name)
        if obj is None:
            raise not_found(kind.group, kind.plural, name)
        return obj


def _check_lifetime(lifetime_s: int) -> None:
    if SHORTEST_S <= lifetime_s <= LONGEST_S:
        return
    why = "less than 10 minutes" if lifetime_s < SHORTEST_S else "larger than 2^32 seconds"
    message = f"Invalid value: {lifetime_s}: may not specify a duration {why}"
    cause = {"reason": "FieldValueInvalid", "message": message, "field": "spec.expirationSeconds"}
    raise invalid("authentication.k8s.io", "TokenRequest", "", [cause])


def _ref(obj: Object) -> Object:
    meta = obj["metadata"]
    return {"name": meta["name"], "uid": meta["uid"]} if meta.get("uid") else {"name": meta["name"]}


def discovery(issuer: str, jwks_uri: str) -> Object:
    """The document at /.well-known/openid-configuration."""
    return {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


def jwks(keys: Sequence[PublicKey]) -> Object:
    """The document at /openid/v1/jwks."""
    return {"keys": [key.jwk() for key in keys]}
