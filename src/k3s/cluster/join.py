"""The agent's side of joining: from a URL and a token to certificates under `<data-dir>/agent`.

Private keys are made here and never leave the machine. Certificates that are still good are kept, so that a restart
neither asks the server for new ones nor loads the X.509 library. Source: the join order of k3s' agents.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from k3s.api.object import Object, decode
from k3s.base import files
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.cluster import pki, tokens
from k3s.cluster.certs import RENEW_DAYS, Remembered
from k3s.cluster.tokens import Token

log = logging.getLogger(__name__)

Fetch = Callable[[str, str, str, Mapping[str, str], bytes, bytes | None], Awaitable[tuple[int, bytes]]]

RETRY_S = 2.0
_CERTIFICATES = ("client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller")


class JoinError(Exception):
    """The server does not let this node in; trying again does not help until somebody changes something."""


class NotYet(Exception):
    """The server is not (yet) able to answer; trying again helps."""


@dataclass(frozen=True, slots=True)
class Node:
    """What the joining machine says about itself. `password` as in /etc/rancher/node/password."""

    name: str
    password: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentCredentials:
    """What a node has after joining: the server's configuration and files in `folder`."""

    url: str
    folder: Path
    config: Object

    @property
    def server_ca(self) -> Path:
        """What the API server verifies against."""
        return self.folder / "server-ca.crt"

    @property
    def client_ca(self) -> Path:
        """What clients of this node's kubelet verify against."""
        return self.folder / "client-ca.crt"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Certificate and key: client-kubelet, serving-kubelet, client-kube-proxy, client-k3s-controller."""
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


class Joiner:
    """Joins one node to the cluster at `url`; `folder` is `<data-dir>/agent`."""

    def __init__(self, url: str, token: str, node: Node, folder: Path, clock: Clock, fetch: Fetch) -> None:
        self._url = url.rstrip("/")
        self._token: Token = tokens.parse(token)
        self._node = node
        self._folder = folder
        self._clock = clock
        self._fetch = fetch

    async def join(self) -> AgentCredentials:
        """Joins, trying again every two seconds while the server is not there; raises JoinError."""
        said = ""
        while True:
            try:
                return await self.attempt()
            except (NotYet, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    log.info("Waiting for the server", extra={"server": self._url, "reason": said})
                await asyncio.sleep(RETRY_S)

    async def renew(self, ready: Callable[[], None], renewed: Callable[[AgentCredentials], None]) -> None:
        """Runs for ever after `join`: asks for new certificates when the next one is due and hands them over."""
        ready()
        while True:
            due = min(known.not_after for known in self._load_state().values()) - RENEW_DAYS * pki.DAY_S
            wait_s = due - self._clock.now()
            if wait_s > 0:  # in days, because a suspended machine does not count its sleep
                await asyncio.sleep(min(wait_s, pki.DAY_S))
                continue
            renewed(await self.join())
            log.info("Certificates renewed", extra={"node": self._node.name})
            if due >= min(known.not_after for known in self._load_state().values()) - RENEW_DAYS * pki.DAY_S:
                await asyncio.sleep(pki.DAY_S)  # the server's authority itself ends soon

    async def attempt(self) -> AgentCredentials:
        """Joins once; raises JoinError, NotYet, OSError (unreachable)."""
        files.folder(self._folder)
        ca = await self._authority()
        config: Object = decode(await self._get("/v1-k3s/config", ca))
        for name in ("client-ca", "server-ca"):
            pem = await self._get(f"/v1-k3s/{name}.crt", ca)
            files.write_changed(self._folder / f"{name}.crt", pem, 0o600)
        await self._certificates(ca)
        return AgentCredentials(self._url, self._folder, config)

    async def _authority(self) -> bytes:
        """The server's CA, believed because of the token's hash, or because it is the one known from before."""
        status, ca = await self._fetch(self._url, "GET", "/cacerts", {}, b"", None)
        if status != 200:
            raise NotYet(f"the server answers {status} for /cacerts")
        if self._token.ca_hash:
            if not hmac.compare_digest(tokens.ca_hash(ca), self._token.ca_hash):
                raise JoinError(
                    f"Cannot trust {self._url}: its certificate authority is not the one in the token; "
                    "check the URL, or copy the token from the server again"
                )
            return ca
        known = self._folder / "server-ca.crt"
        if known.exists() and known.read_bytes() != ca:
            raise JoinError(
                f"Cannot trust {self._url}: its certificate authority differs from {known}; "
                "if the cluster was made anew, remove that file or use the full token (K10…)"
            )
        return ca

    async def _certificates(self, ca: bytes) -> None:
        state = self._load_state()
        for name in _CERTIFICATES:
            cert_path, key_path = self._folder / f"{name}.crt", self._folder / f"{name}.key"
            if key_path.exists() and cert_path.exists() and self._is_good(state.get(name), name, ca):
                continue
            key = key_path.read_bytes() if key_path.exists() else pki.new_key()
            request = pki.new_request(key, pki.Subject(self._node.name))
            cert = await self._get(f"/v1-k3s/{name}.crt", ca, self._node_headers(name), request)
            if not pki.verifies(cert, (self._folder / f"{_authority_of(name)}.crt").read_bytes(), key):
                raise NotYet(f"the server's answer for {name} is no certificate for our key")
            files.write_changed(key_path, key)
            files.write(cert_path, cert)
            said = pki.facts(cert)
            state[name] = Remembered(_digest(cert), self._origin(ca), _digest(key), said.not_after, list(said.names))
            files.write(self._folder / "state.json", msgspec.json.encode(state))

    def _is_good(self, known: Remembered | None, name: str, ca: bytes) -> bool:
        """Whether a certificate on disk can stay: unchanged, of this cluster and node, and not due for renewal."""
        if known is None or known.authority != self._origin(ca):
            return False
        cert, key = ((self._folder / f"{name}{end}").read_bytes() for end in (".crt", ".key"))
        fresh = known.not_after - self._clock.now() > RENEW_DAYS * pki.DAY_S
        covered = name != "serving-kubelet" or set(self._node.addresses) <= set(known.names)
        return fresh and covered and (known.digest, known.key) == (_digest(cert), _digest(key))

    def _origin(self, ca: bytes) -> str:
        """What a certificate depends on besides its own content: the authorities and the node's name."""
        client_ca = (self._folder / "client-ca.crt").read_bytes()
        return _digest(b"\n".join((ca, client_ca, self._node.name.encode())))

    def _load_state(self) -> dict[str, Remembered]:
        try:
            return msgspec.json.decode((self._folder / "state.json").read_bytes(), type=dict[str, Remembered])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}  # only a memory: without it certificates are asked for again

    def _node_headers(self, name: str) -> dict[str, str]:
        headers = {"k3s-Node-Name": self._node.name, "k3s-Node-Password": self._node.password}
        if name == "serving-kubelet" and self._node.addresses:
            headers["k3s-Node-IP"] = ",".join(self._node.addresses)
        return headers

    async def _get(self, path: str, ca: bytes, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        method = "POST" if body else "GET"
        all_headers = {"Authorization": self._authorization(), **(headers or {})}
        status, answer = await self._fetch(self._url, method, path, all_headers, body, ca)
        if status == 200:
            return answer
        text = answer.decode("utf-8", "replace").strip()
        if status == 401:
            raise JoinError(f"Cannot join {self._url}: the server does not know this token; check --token")
        if status in (400, 403):
            raise JoinError(f"Cannot join {self._url}: {text}")
        raise NotYet(f"the server answers {status} for {path}: {text}")

    def _authorization(self) -> str:
        if self._token.is_bootstrap:
            return f"Bearer {self._token.secret}"
        # An agent is always the user `node`, whatever user the token was written for: only its secret counts.
        pair = f"{tokens.AGENT_USER}:{self._token.secret}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _authority_of(name: str) -> str:
    return "server-ca" if name.startswith("serving") else "client-ca"


def node_password(folder: Path, entropy: Entropy) -> str:
    """The machine's own password in `folder` (/etc/rancher/node), made at the first call."""
    path = folder / "password"
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if not known:
        known = entropy.secret(16).hex()
        files.write(_open_to_all(folder) / "password", known + "\n")
    return known


def _open_to_all(folder: Path) -> Path:
    """Makes the folder so that it may be entered: beside it is the kubeconfig, which others may have been let read."""
    return files.folder(folder, 0o755)


def node_id(folder: Path, entropy: Entropy) -> str:
    """The eight digits that --with-node-id adds to the node's name, made at the first call."""
    path = folder / "id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = entropy.secret(4).hex()
        files.write(_open_to_all(folder) / "id", made + "\n", 0o644)
        return made


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
