"""The server's own routes beside the API: what a node needs to join.

Each answer is a status, a content type and bytes; the HTTP front sends it. Source: k3s' documented routes and files,
and the join order of its agents.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import NamedTuple, Protocol

from k3s.api import names
from k3s.api.errors import ApiError
from k3s.api.object import Object, decode, encode
from k3s.base.clock import Clock
from k3s.cluster import pki, tokens
from k3s.cluster.certs import CLIENT_CA, SERVER_CA, Certificates

PEM = "text/plain"
TEXT = "text/plain"
JSON = "application/json"

NODES = "system:nodes"
NODE_PREFIX = "system:node:"
BOOTSTRAPPERS = "system:bootstrappers:k3s:default-node-token"
# Who may ask what a joining node asks.
JOINERS = frozenset({tokens.AGENT_GROUP, tokens.SERVER_GROUP, NODES, BOOTSTRAPPERS})
_BODY_LIMIT = 64 * 1024
# What is changed by PUT.
_CHANGED = ("/v1-k3s/encrypt/config", "/v1-k3s/token")


class Identity(Protocol):
    """Who asks; None stands for nobody in particular."""

    @property
    def name(self) -> str:
        """The user name."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The user's groups."""


class Encrypts(Protocol):
    """Encryption at rest (`run.encryption`)."""

    def status(self) -> Object:
        """What `k3s secrets-encrypt status` shows."""

    async def change(self, asked: Object) -> Object:
        """Does a step; the status after it. Raises ValueError."""


class Answer(NamedTuple):
    """What the HTTP front sends."""

    status: int
    content_type: str = TEXT
    body: bytes = b""


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, TEXT, f"{text}\n".encode())


Handler = Callable[[str, Mapping[str, str], Identity, bytes], Awaitable[Answer]]


class Supervisor:
    """Answers the paths that are not the API's.

    `config` gives the document of /v1-k3s/config, `servers` the addresses of /v1-k3s/apiservers, `is_ready` whether
    the API answers; `check_password(node, password)` raises Forbidden (`passwords.NodePasswords.ensure`). `reserved`
    are the API server's own names and addresses: no node gets a serving certificate for one of them. `rotate(token)`
    exchanges the token of servers, for a random one if it is empty; it raises ValueError.
    """

    def __init__(
        self,
        certificates: Certificates,
        clock: Clock,
        *,
        config: Callable[[], Object],
        servers: Callable[[], Sequence[str]],
        is_ready: Callable[[], bool],
        check_password: Callable[[str, str], Awaitable[None]],
        reserved: Container[str] = (),
        encryption: Encrypts | None = None,
        rotate: Callable[[str], None] | None = None,
    ) -> None:
        self._certificates = certificates
        self._clock = clock
        self._config = config
        self._servers = servers
        self._is_ready = is_ready
        self._check_password = check_password
        self._reserved = reserved
        self._encryption = encryption
        self._rotate = rotate
        self._handlers: dict[str, Handler] = {
            "/v1-k3s/config": self._get_config,
            "/v1-k3s/readyz": self._get_ready,
            "/v1-k3s/apiservers": self._get_servers,
            "/v1-k3s/client-ca.crt": self._get_authority,
            "/v1-k3s/server-ca.crt": self._get_authority,
            "/v1-k3s/client-kubelet.crt": self._kubelet,
            "/v1-k3s/serving-kubelet.crt": self._kubelet,
            "/v1-k3s/client-kube-proxy.crt": self._component,
            "/v1-k3s/client-k3s-controller.crt": self._component,
            "/v1-k3s/encrypt/status": self._encryption_status,
            "/v1-k3s/encrypt/config": self._encryption_config,
            "/v1-k3s/token": self._token,
        }

    @staticmethod
    def owns(path: str) -> bool:
        """Whether a path is answered here and not by the API server."""
        return path in ("/cacerts", "/ping") or path.startswith("/v1-k3s/")

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], user: Identity | None, body: bytes
    ) -> Answer:
        """Answers one request; header names are lower case, `user` as authenticated for the supervisor routes."""
        try:
            if path == "/ping":
                return Answer(200, TEXT, b"pong")
            if path == "/cacerts":
                return Answer(200, PEM, self._certificates.read(SERVER_CA))
            handler = self._handlers.get(path)
            if handler is None:
                raise Refused(404, "not found")
            if user is None:
                raise Refused(401, "Unauthorized: show the cluster token")
            if JOINERS.isdisjoint(user.groups):
                raise Refused(403, f"Forbidden: {user.name} is neither a server nor an agent of this cluster")
            if method not in ("GET", "POST", "PUT") or (method == "POST" and not path.endswith(".crt")):
                raise Refused(405, "method not allowed")
            if (method == "PUT") is not (path in _CHANGED):
                raise Refused(405, "method not allowed")
            if len(body) > _BODY_LIMIT:
                raise Refused(413, "request too large")
            return await handler(path, headers, user, body)
        except Refused as refused:
            return refused.answer

    async def _get_config(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        return Answer(200, JSON, encode(self._config()))

    async def _get_ready(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        return Answer(200, TEXT, b"ok") if self._is_ready() else Answer(503, TEXT, b"starting\n")

    async def _get_servers(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        return Answer(200, JSON, encode(list(self._servers())))

    async def _get_authority(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        name = path.rpartition("/")[2].removesuffix(".crt")
        return Answer(200, PEM, self._certificates.read(name))

    async def _encryption_status(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        _check_server(user)
        return Answer(200, JSON, encode(self._encryption.status() if self._encryption is not None else {}))

    async def _encryption_config(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        _check_server(user)
        if self._encryption is None:
            raise Refused(400, "Secrets are not encrypted here: start the server with --secrets-encryption")
        try:
            asked = decode(body)
            return Answer(200, JSON, encode(await self._encryption.change(asked if isinstance(asked, dict) else {})))
        except ValueError as error:
            raise Refused(400, str(error)) from None

    async def _token(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        """Exchanges the cluster's token (`k3s token rotate`)."""
        _check_server(user)
        if self._rotate is None:
            raise Refused(404, "not found")
        try:
            asked = decode(body)
            new = asked.get("newToken") or "" if isinstance(asked, dict) else ""
            self._rotate(str(new))
        except ValueError as error:
            raise Refused(400, str(error)) from None
        return Answer(200, JSON, b"{}")

    async def _component(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        """The certificate of a component that has the same identity on every node.

        A request with a key of the node's own gets a certificate for it; without, the server's shared one with its key.
        """
        name = path.rpartition("/")[2].removesuffix(".crt")
        if not body:
            pair = self._certificates.read(name) + self._certificates.read(f"{name}.key")
            return Answer(200, PEM, pair)
        component = f"system:{name.removeprefix('client-')}"
        return self._signed(CLIENT_CA, pki.Subject(component, client=True), body)

    async def _kubelet(self, path: str, headers: Mapping[str, str], user: Identity, body: bytes) -> Answer:
        """The kubelet's certificates, for the machine that owns the node name."""
        node, password = headers.get("k3s-node-name", ""), headers.get("k3s-node-password", "")
        if not node or not password:
            missing = "k3s-Node-Name" if not node else "k3s-Node-Password"
            raise Refused(400, f"Cannot issue a kubelet certificate: the header {missing} is missing")
        if names.dns_subdomain(node):
            raise Refused(400, f"Cannot issue a kubelet certificate: {node!r} is no node name")
        if NODES in user.groups and user.name != f"{NODE_PREFIX}{node}":
            raise Refused(403, f"Cannot issue a certificate for node {node} to {user.name}")
        if not self._is_ready():
            raise Refused(503, "starting")
        try:
            await self._check_password(node, password)
        except ApiError as error:
            raise Refused(403 if error.code == 403 else 503, error.message) from None
        if path.endswith("/client-kubelet.crt"):
            subject = pki.Subject(f"{NODE_PREFIX}{node}", (NODES,), client=True)
            return self._signed(CLIENT_CA, subject, body)
        addresses = _addresses(headers.get("k3s-node-ip", ""))
        taken = [name for name in (node, *addresses) if name in self._reserved]
        if taken:
            raise Refused(403, f"Cannot issue a kubelet certificate for {taken[0]}: it is the API server's")
        serving = pki.Subject(node, (), (node, "localhost"), ("127.0.0.1", "::1", *addresses), server=True)
        return self._signed(SERVER_CA, serving, body)

    def _signed(self, authority_name: str, subject: pki.Subject, body: bytes) -> Answer:
        authority = self._certificates.authority(authority_name)
        if not body:
            key = pki.new_key()
            return Answer(200, PEM, pki.issue(authority, subject, key, self._clock.now()) + key)
        try:
            return Answer(200, PEM, pki.sign_request(authority, body, subject, self._clock.now()))
        except pki.BadCertificate as error:
            raise Refused(400, str(error)) from None


def _check_server(user: Identity) -> None:
    """Raises Refused for who is no server: nodes have no business with keys."""
    if tokens.SERVER_GROUP not in user.groups:
        raise Refused(403, f"Forbidden: {user.name} is no server of this cluster")


def _addresses(text: str) -> tuple[str, ...]:
    """The node's addresses of the header k3s-Node-IP."""
    found = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        try:
            address = ipaddress.ip_address(part)
        except ValueError:
            raise Refused(400, f"Cannot issue a kubelet certificate: {part!r} in k3s-Node-IP is no address") from None
        if str(address) not in ("127.0.0.1", "::1"):
            found.append(str(address))
    return tuple(dict.fromkeys(found))
