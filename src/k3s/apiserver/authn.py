"""Who sent this request? Client certificates, service-account tokens, token files, k3s tokens, bootstrap tokens.

Source: the "Authenticating" page of the Kubernetes documentation; k3s' `server` and `node` users by HTTP basic.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import csv
import hashlib
import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote

from k3s.api import times
from k3s.api.errors import Unauthorized
from k3s.api.kinds import builtin
from k3s.apiserver import identity
from k3s.apiserver.identity import User
from k3s.apiserver.pending import Pending
from k3s.apiserver.rsa import unb64
from k3s.apiserver.tokens import BadToken, ForeignToken, Verifier
from k3s.apiserver.tokenuses import Remark, unheard
from k3s.base.clock import Clock
from k3s.base.message import PeerCertificate

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

log = logging.getLogger(__name__)

SECRET = builtin("v1", "Secret")
#: What may be asked without credentials; RBAC still decides.
NAMED_PATHS = frozenset({"/livez", "/readyz", "/healthz"})
# A token that nobody knew is asked about again after so long; so many answers are kept.
_REFUSED_S, _MOST_LOOKED_UP, _LEAST_KNOWN_S = 5.0, 4096, 1.0
_BOOTSTRAP_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_REMOTE_EXTRA = "x-remote-extra-"
_BOOTSTRAP_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class AudienceUser(NamedTuple):
    """A user, and the audiences that the token is good for."""

    user: User
    audiences: tuple[str, ...]


class TokenSource(Protocol):
    """Who knows tokens that this server did not make; `ttl_s` is how long an answer counts."""

    ttl_s: float

    def takes(self, token: str) -> bool:
        """Whether the token may be one of its own; free of effects."""

    async def user(self, token: str, audiences: Sequence[str]) -> User | AudienceUser | None:
        """Whom a token stands for, for one of the audiences; None for a bad one. Never fails.

        Who knows audiences says with an `AudienceUser` for which of them the token is good.
        """


class Authenticates(Protocol):
    """The question that the pipeline asks once per request."""

    def authenticate(self, headers: Mapping[str, str], peer: PeerCertificate | None, remark: Remark) -> User | None:
        """The sender; None without credentials; raises Unauthorized for bad ones, Pending for those to look up.

        Header names are lower case. `remark` is told what is to be known of the credentials.
        """

    def without_credentials(self, path: str) -> User:
        """The user of a request that brought no credentials; raises Unauthorized where that is not allowed."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an authenticator accepts.

    `authorities`: common names of the client CA (`cluster.certs.authority_names`); certificates of other authorities
    that TLS verifies are no identity. `proxies`: common names of the request-header CA: its certificates for one of
    `proxy_names` make a front proxy, whose X-Remote headers say who asks. `static`: users by token (see
    `parse_token_file`).
    `public`: the paths that anybody may ask, where anonymous requests are off.
    `bootstrap`: whether bootstrap tokens count.
    `passwords`: k3s users by name with the secrets that are good for them and their groups, for supervisor routes only.
    """

    authorities: frozenset[str] = frozenset()
    proxies: frozenset[str] = frozenset()
    proxy_names: frozenset[str] = frozenset({"system:auth-proxy"})
    static: Mapping[str, User] = field(default_factory=dict)
    passwords: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    anonymous: bool = False
    bootstrap: bool = True
    public: frozenset[str] = NAMED_PATHS


class Authenticator:
    """All ways to say who one is, in upstream's order: front proxy, certificate, then bearer token."""

    def __init__(
        self,
        credentials: Credentials,
        reader: Reader,
        clock: Clock,
        verifier: Verifier | None = None,
        sources: Sequence[TokenSource] = (),
    ) -> None:
        self._sources = sources
        self._looked_up: dict[tuple[bytes, tuple[str, ...]], tuple[User | AudienceUser | None, float]] = {}
        self.credentials = credentials
        self._reader = reader
        self._clock = clock
        self._verifier = verifier
        self._certificates: dict[PeerCertificate, User] = {}
        #: Of the users of the cluster token; see `Credentials`.
        self.passwords = credentials.passwords
        self._static = {_digest(token): user for token, user in credentials.static.items()}

    def use(self, sources: Sequence[TokenSource]) -> None:
        """Asks these sources from now on; nothing counts any more that the former ones said."""
        self._sources = sources
        self._looked_up = {}

    def authenticate(
        self, headers: Mapping[str, str], peer: PeerCertificate | None, remark: Remark = unheard
    ) -> User | None:
        """The sender of an API request; None without credentials; raises Unauthorized for bad ones."""
        if peer is not None:
            user = self._of_proxy(peer, headers) or self._of_certificate(peer)
            if user is not None:
                return user
        token = _bearer(headers.get("authorization", "")) or _of_websocket(headers)
        if not token:
            return None
        found = self.review(token, (), remark)
        if found is None:
            raise Unauthorized("Unauthorized")
        return found[0]

    def supervisor(self, headers: Mapping[str, str], peer: PeerCertificate | None) -> User | None:
        """The sender of a request to k3s' own routes, where the users of the cluster token count too."""
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self._of_basic(text.strip())
        return self.authenticate(headers, peer)

    def without_credentials(self, path: str) -> User:
        """The anonymous user; raises Unauthorized unless anonymous requests are on or the path is a public one."""
        if self.credentials.anonymous or path in self.credentials.public:
            return identity.anonymous()
        raise Unauthorized("Unauthorized")

    def review(
        self, token: str, audiences: Sequence[str] = (), remark: Remark = unheard
    ) -> tuple[User, tuple[str, ...]] | None:
        """The user of a bearer token and the audiences it is good for; None for a bad token.

        Tokens without audiences of their own are good for those of this API server. Raises Pending.
        """
        if not token:
            return None
        user = self._static.get(_digest(token)) or self._of_bootstrap(token)
        if user is not None:
            return self._for_own(user, audiences)
        if self._verifier is not None:
            try:
                session = self._verifier.verify(token, audiences, remark)
                return session.user, session.audiences
            except ForeignToken:
                pass  # somebody else may know it
            except BadToken:
                return None  # the caller says Unauthorized; upstream does not tell a client why either
        if not any(source.takes(token) for source in self._sources):
            return None
        known = self._known_elsewhere(token, audiences)
        if isinstance(known, AudienceUser):
            return known.user, known.audiences
        return None if known is None else self._for_own(known, audiences)

    def _for_own(self, user: User, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]] | None:
        own = () if self._verifier is None else self._verifier.given
        shared = tuple(audience for audience in audiences or own if audience in own)
        return None if audiences and not shared else (user, shared)

    def _known_elsewhere(self, token: str, audiences: Sequence[str]) -> User | AudienceUser | None:
        """What a source said of a token not long ago. Raises Pending when that has to be asked."""
        wanted = tuple(audiences) or (() if self._verifier is None else tuple(self._verifier.given))
        key = (_digest(token), wanted)
        known = self._looked_up.get(key)
        if known is None or known[1] <= self._clock.monotonic():
            raise Pending(self._look_up(token, key))
        return known[0]

    async def _look_up(self, token: str, key: tuple[bytes, tuple[str, ...]]) -> None:
        await asyncio.sleep(0)  # it may be begun outside of a task, where nothing can have a deadline
        found, ttl_s, known = None, _REFUSED_S, self._looked_up
        for source in self._sources:
            if source.takes(token):
                found = await source.user(token, key[1])
                ttl_s = source.ttl_s if found is not None else ttl_s
            if found is not None:
                break
        if len(known) >= _MOST_LOOKED_UP:
            known.clear()
        # The request that waits for it has to find it, however short answers are to count.
        known[key] = (found, self._clock.monotonic() + max(ttl_s, _LEAST_KNOWN_S))

    def _of_certificate(self, peer: PeerCertificate) -> User | None:
        user = self._certificates.get(peer)
        if user is None:
            if peer.issuer not in self.credentials.authorities or not peer.common_name:
                return None
            if len(peer.uids) > 1 or "" in peer.uids:
                raise Unauthorized("Unauthorized")  # nobody can tell which user it is
            groups = identity.with_authenticated(peer.organizations, peer.common_name)
            extra = {identity.CREDENTIAL_ID: (f"X509SHA256={peer.digest}",)} if peer.digest else {}
            if len(self._certificates) >= 1024:
                self._certificates.clear()
            user = User(peer.common_name, groups, "".join(peer.uids), extra)
            self._certificates[peer] = user
        return user

    def _of_proxy(self, peer: PeerCertificate, headers: Mapping[str, str]) -> User | None:
        """The user that a front proxy speaks for; None when the peer is none or names nobody."""
        credentials = self.credentials
        if peer.issuer not in credentials.proxies or peer.common_name not in credentials.proxy_names:
            return None
        name = headers.get("x-remote-user", "").partition("\n")[0]
        if not name:
            return None
        groups = tuple(group for group in headers.get("x-remote-group", "").split("\n") if group)
        extra = {
            unquote(key.removeprefix(_REMOTE_EXTRA)): tuple(value.split("\n"))
            for key, value in headers.items()
            if key.startswith(_REMOTE_EXTRA)
        }
        uid = headers.get("x-remote-uid", "").partition("\n")[0]
        return User(name, identity.with_authenticated(groups, name), uid, extra)

    def _of_basic(self, text: str) -> User:
        try:
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthorized("Unauthorized") from None
        secrets, groups = self.passwords.get(name, ((), ()))
        given = _digest(password)
        if not password or not any(hmac.compare_digest(_digest(secret), given) for secret in secrets):
            raise Unauthorized("Unauthorized")
        return identity.authenticated(name, *groups)

    def _of_bootstrap(self, token: str) -> User | None:
        """The user of a bootstrap token, kept as Secret kube-system/bootstrap-token-<id>; None for any other token."""
        match = _BOOTSTRAP_TOKEN.fullmatch(token)
        if match is None or not self.credentials.bootstrap:
            return None
        secret = self._reader.get(SECRET, "kube-system", f"bootstrap-token-{match[1]}")
        if secret is None or secret.get("type") != "bootstrap.kubernetes.io/token":
            return None
        if "deletionTimestamp" in secret["metadata"]:
            return None
        try:
            data = {key: base64.b64decode(text).decode() for key, text in (secret.get("data") or {}).items()}
            expired = "expiration" in data and times.parse(data["expiration"]) <= self._clock.now()
        except ValueError:
            return None
        same = hmac.compare_digest(_digest(data.get("token-secret", "")), _digest(match[2]))
        if not same or data.get("token-id") != match[1] or expired:
            return None
        if data.get("usage-bootstrap-authentication") != "true":
            return None
        extra = data["auth-extra-groups"].split(",") if data.get("auth-extra-groups") else []
        if not all(_BOOTSTRAP_GROUP.fullmatch(group) for group in extra):
            return None
        groups = sorted({identity.BOOTSTRAPPERS, *extra})
        return identity.authenticated(f"{identity.BOOTSTRAP_PREFIX}{match[1]}", *groups)


def parse_token_file(text: str) -> dict[str, User]:
    """The users of a `token-auth-file`: lines `token,user,uid` and optionally a quoted list of groups.

    Raises ValueError naming the line.
    """
    users: dict[str, User] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), 1):
        if not row or (len(row) < 3 and row[0].startswith("#")):
            continue
        if len(row) < 3:
            raise ValueError(f"Cannot read line {number} of the token file: it needs token, user name and user uid")
        if not row[0]:
            log.warning("Line %d of the token file has no token: it is passed over", number)
            continue
        if row[0] in users:
            log.warning("Line %d of the token file has a token that stands there already: this line counts", number)
        groups = tuple(row[3].split(",")) if len(row) > 3 and row[3] else ()
        users[row[0]] = User(row[1], identity.with_authenticated(groups, row[1]), row[2])
    return users


def _bearer(authorization: str) -> str:
    """The token of an Authorization header: its second word, as upstream reads it; empty when there is none."""
    words = authorization.strip().split(" ", 2)
    return words[1] if len(words) > 1 and words[0].lower() == "bearer" else ""


_PROTOCOL = "base64url.bearer.authorization.k8s.io."


def _of_websocket(headers: Mapping[str, str]) -> str:
    """The token that a browser sends as a subprotocol, since it may set no headers; empty when there is none.

    Raises Unauthorized for one that cannot be read, for several, and when no other protocol is offered (upstream's
    websocket bearer tokens): there would be none to answer with.
    """
    offered = headers.get("sec-websocket-protocol", "")
    if _PROTOCOL not in offered or headers.get("upgrade", "").lower() != "websocket":
        return ""
    protocols = [protocol.strip() for protocol in offered.split(",")]
    found = [protocol.removeprefix(_PROTOCOL) for protocol in protocols if protocol.startswith(_PROTOCOL)]
    try:
        token = unb64(found[0]).decode() if len(found) == 1 and len(protocols) > 1 else ""
    except ValueError:
        token = ""
    if not token:
        raise Unauthorized("Unauthorized")
    return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
