"""The cluster's certificates on disk: made at first start, checked at every start, renewed while running.

A small state file remembers what each certificate says, keyed by the hash of its bytes, so that a start with valid
certificates only reads and hashes files and never loads the X.509 library.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from k3s.base import aio, files
from k3s.base.clock import Clock
from k3s.base.tls import UNSAID, Listening
from k3s.cluster import pki

log = logging.getLogger(__name__)

RENEW_DAYS = 120
# The sleep towards the next renewal is cut into days: a machine that was suspended does not count that time.
_LONGEST_SLEEP_S = pki.DAY_S

CLIENT_CA = "client-ca"
SERVER_CA = "server-ca"
REQUEST_HEADER_CA = "request-header-ca"
_AUTHORITIES = {CLIENT_CA: "k3s-client-ca", SERVER_CA: "k3s-server-ca", REQUEST_HEADER_CA: "k3s-request-header-ca"}

SERVING = "serving-kube-apiserver"
ADMIN = "client-admin"
SERVICE_KEY = "service.key"


def _client(name: str, *organizations: str) -> pki.Subject:
    return pki.Subject(name, organizations, client=True)


# file -> (authority, subject); the serving certificate is added with its names
_LEAVES: dict[str, tuple[str, pki.Subject]] = {
    ADMIN: (CLIENT_CA, _client("system:admin", "system:masters")),
    "client-controller": (CLIENT_CA, _client("system:kube-controller-manager")),
    "client-scheduler": (CLIENT_CA, _client("system:kube-scheduler")),
    "client-kube-apiserver": (CLIENT_CA, _client("kube-apiserver")),
    "client-kube-proxy": (CLIENT_CA, _client("system:kube-proxy")),
    "client-k3s-controller": (CLIENT_CA, _client("system:k3s-controller")),
    "client-cloud-controller": (CLIENT_CA, _client("cloud-controller-manager")),
    "client-auth-proxy": (REQUEST_HEADER_CA, _client("system:auth-proxy")),
}


class Remembered(msgspec.Struct, frozen=True):
    """What was found out about a certificate file the last time it was parsed; valid for exactly these bytes."""

    digest: str
    authority: str
    key: str
    not_after: float
    names: list[str]


@dataclass(frozen=True, slots=True)
class Renewed:
    """What `ensure` wrote: names of leaves, without suffix."""

    files: tuple[str, ...]


def serving_names(domain: str, service_ip: str, addresses: Iterable[str], sans: Iterable[str]) -> tuple[str, ...]:
    """The names that the server's certificate must cover.

    `addresses` are the machine's (advertise, node, host addresses and the host name), `sans` the user's `--tls-san`.
    """
    own = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
        "localhost",
    ]
    return tuple(dict.fromkeys([*own, "127.0.0.1", "::1", service_ip, *addresses, *sans]))


class Certificates:
    """The folder `<data-dir>/server/tls`; `names` are those of the serving certificate."""

    def __init__(self, folder: Path, clock: Clock, names: Iterable[str]) -> None:
        self.folder = folder
        self._clock = clock
        dns, ips = pki.split_names(names)
        serving = pki.Subject("kube-apiserver", (), dns, ips, server=True)
        self._leaves = {**_LEAVES, SERVING: (SERVER_CA, serving)}
        self._state: dict[str, Remembered] = {}
        self._contexts: list[ssl.SSLContext] = []
        self._listeners: list[Callable[[Renewed], None]] = []

    # Files

    def path(self, name: str) -> Path:
        """The file of a certificate (`client-admin` or `client-admin.key`) or other key (`service.key`)."""
        return self.folder / (name if name.endswith(".key") else f"{name}.crt")

    def read(self, name: str) -> bytes:
        """The content of `path(name)`; raises FileNotFoundError before `ensure`."""
        return self.path(name).read_bytes()

    def authority(self, name: str) -> pki.Authority:
        """A certificate authority with its key, to sign with."""
        return pki.Authority(self.read(name), self.read(f"{name}.key"))

    # Making and keeping

    async def ensure(self) -> Renewed:
        """Makes what is missing and renews what needs it; raises OSError, BadCertificate.

        The service-account key is made on a thread meanwhile, because RSA takes long.
        """
        files.folder(self.folder)
        os.chmod(self.folder, 0o700)
        service_key: asyncio.Future[bytes] | None = None
        async with asyncio.TaskGroup() as group:
            if not self.path(SERVICE_KEY).exists():
                service_key = group.create_task(aio.blocking(pki.new_rsa_key))
            self._state = self._load_state()
            for name, prefix in _AUTHORITIES.items():
                self._ensure_authority(name, prefix)
            renewed = self.refresh()
        if service_key is not None:
            files.write(self.path(SERVICE_KEY), service_key.result())
        return renewed

    def refresh(self) -> Renewed:
        """Renews the leaves that expire soon, lack a name, or do not verify; keys are kept where they exist."""
        written = tuple(name for name in self._leaves if self._refresh_leaf(name))
        if written:
            self._save_state()
            if SERVING in written:
                for context in self._contexts:
                    context.load_cert_chain(self.path(SERVING), self.path(f"{SERVING}.key"))
            for listener in self._listeners:
                listener(Renewed(written))
        return Renewed(written)

    def on_renewed(self, listener: Callable[[Renewed], None]) -> None:
        """Calls `listener` after leaves were rewritten, e.g. to write a kubeconfig that carries one."""
        self._listeners.append(listener)

    def next_renewal(self) -> float:
        """When the next leaf has to be renewed, in seconds since the epoch."""
        return min(entry.not_after for entry in self._state.values()) - RENEW_DAYS * pki.DAY_S

    async def renew(self, ready: Callable[[], None]) -> None:
        """Runs for ever: sleeps until the next certificate enters its window and renews it."""
        ready()
        while True:
            wait_s = self.next_renewal() - self._clock.now()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, _LONGEST_SLEEP_S))
                continue
            renewed = self.refresh()
            log.info("Certificates renewed", extra={"certificates": list(renewed.files)})
            if self.next_renewal() <= self._clock.now():  # a leaf cannot outlive its authority
                log.warning("Certificates cannot be renewed for long: an authority expires soon; replace the authority")
                await asyncio.sleep(_LONGEST_SLEEP_S)

    def _ensure_authority(self, name: str, prefix: str) -> None:
        cert, key = self.path(name), self.path(f"{name}.key")
        if cert.exists() and key.exists():
            os.chmod(key, 0o600)
            return
        if cert.exists() != key.exists():
            missing = key if cert.exists() else cert
            raise pki.BadCertificate(
                f"Cannot use the certificate authority {name}: {missing} is missing; restore it, or remove both files "
                "to have a new authority made, which every node then has to join again"
            )
        now = self._clock.now()
        made = pki.new_authority(f"{prefix}@{int(now)}", now)
        files.write(key, made.key)
        files.write(cert, made.cert, 0o644)

    def _refresh_leaf(self, name: str) -> bool:
        authority_name, subject = self._leaves[name]
        cert_path, key_path = self.path(name), self.path(f"{name}.key")
        key = key_path.read_bytes() if key_path.exists() else b""
        authority = self.read(authority_name)
        digests = Remembered("", _digest(authority), _digest(key), 0, [])
        if key and cert_path.exists():
            found = self._look(name, cert_path.read_bytes(), key, authority, digests)
            if found is not None and self._is_good(found, subject):
                return False
        if not key:
            key = pki.new_key()
            files.write(key_path, key)
        cert = pki.issue(self.authority(authority_name), subject, key, self._clock.now())
        files.write(cert_path, cert, 0o644)
        self._state[name] = self._parse(cert, msgspec.structs.replace(digests, key=_digest(key)))
        return True

    def _look(self, name: str, cert: bytes, key: bytes, authority: bytes, digests: Remembered) -> Remembered | None:
        """What the certificate says, remembered or parsed; None when it does not verify."""
        known = self._state.get(name)
        wanted = (_digest(cert), digests.authority, digests.key)
        if known is not None and (known.digest, known.authority, known.key) == wanted:
            return known
        if not pki.verifies(cert, authority, key):
            return None
        self._state[name] = self._parse(cert, digests)
        self._save_state()
        return self._state[name]

    def _is_good(self, found: Remembered, subject: pki.Subject) -> bool:
        left_s = found.not_after - self._clock.now()
        return left_s > RENEW_DAYS * pki.DAY_S and {*subject.dns, *subject.ips} <= set(found.names)

    @staticmethod
    def _parse(cert: bytes, digests: Remembered) -> Remembered:
        said = pki.facts(cert)
        return Remembered(_digest(cert), digests.authority, digests.key, said.not_after, list(said.names))

    # State

    def _load_state(self) -> dict[str, Remembered]:
        try:
            return msgspec.json.decode((self.folder / "state.json").read_bytes(), type=dict[str, Remembered])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}  # only a memory: without it every certificate is parsed once

    def _save_state(self) -> None:
        files.write(self.folder / "state.json", msgspec.json.encode(self._state))

    # TLS

    def server_context(self, listening: Listening = UNSAID) -> ssl.SSLContext:
        """TLS for the listener: client certificates asked for but not demanded; reloads on renewal."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        listening.apply(context)
        context.set_alpn_protocols(["http/1.1"])
        # Clients of this API do not resume sessions: the two tickets of each connection would be made for nobody.
        context.num_tickets = 0
        context.load_cert_chain(self.path(SERVING), self.path(f"{SERVING}.key"))
        context.load_verify_locations(self.path(CLIENT_CA))
        context.load_verify_locations(self.path(REQUEST_HEADER_CA))
        context.verify_mode = ssl.CERT_OPTIONAL
        self._contexts.append(context)
        return context


def authority_names(path: Path) -> frozenset[str]:
    """The common names of the authorities in a PEM file, for telling by whom a client's certificate was issued."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    certs: list[dict[str, Any]] = context.get_ca_certs()
    pairs = [pair for cert in certs for relative in cert["subject"] for pair in relative]
    return frozenset(value for key, value in pairs if key == "commonName")


def client_context(authority: bytes, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS for a client that trusts exactly `authority` (PEM) and, when given, shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority.decode())
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else ""
