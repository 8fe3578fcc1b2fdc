"""Node passwords: a node name belongs to the machine that joined with it first.

The password that a machine made for itself is stored as a scrypt hash in the immutable Secret
kube-system/<node>.node-password.k3s. Source: "Node password" in k3s' documentation; the text of the hash is k3s'.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac

from k3s.api.errors import AlreadyExists, Forbidden, NotFound
from k3s.api.kinds import builtin
from k3s.api.object import Object, get
from k3s.base import aio
from k3s.base.entropy import Entropy
from k3s.client.client import Client

SECRET = builtin("v1", "Secret")
NAMESPACE = "kube-system"
_VERSION, _LOG_N, _R, _P, _SIZE, _SALT = 1, 15, 8, 1, 64, 8
_KNOWN_LIMIT = 4096


def secret_name(node: str) -> str:
    """The name of the Secret that holds a node's hash."""
    return f"{node}.node-password.k3s"


def hashed(password: str, salt: bytes) -> str:
    """The hash of a password as k3s writes it; takes 0.1 s and 32 MB for a moment."""
    digest = base64.b64encode(_scrypt(password, salt, _LOG_N, _R, _P)).rstrip(b"=").decode()
    return f"${_VERSION}:{salt.hex()}:{_LOG_N}:{_R}:{_P}:{digest}"


def verifies(text: str, password: str) -> bool:
    """Whether `password` has the hash `text`; false for a text that is no hash of ours."""
    parts = text.removeprefix("$").split(":")
    if len(parts) != 6 or parts[0] != str(_VERSION):
        return False
    try:
        salt, digest = bytes.fromhex(parts[1]), base64.b64decode(parts[5] + "=" * (-len(parts[5]) % 4))
        log_n, r, p = int(parts[2]), int(parts[3]), int(parts[4])
    except (ValueError, binascii.Error):
        return False
    if not (1 <= log_n <= 20 and 1 <= r <= 32 and 1 <= p <= 4):
        return False
    return hmac.compare_digest(_scrypt(password, salt, log_n, r, p), digest)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    memory = 128 * r * (2**log_n) + (1 << 20)
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log_n, r=r, p=p, dklen=_SIZE, maxmem=memory)


class NodePasswords:
    """Checks and remembers node passwords; the first one seen for a name is the right one."""

    def __init__(self, client: Client, entropy: Entropy) -> None:
        self._client = client
        self._entropy = entropy
        # What was right already, so that a node's next request costs no scrypt: node -> (stored hash, password digest).
        self._known: dict[str, tuple[str, bytes]] = {}
        self._busy: dict[str, asyncio.Lock] = {}

    async def ensure(self, node: str, password: str) -> None:
        """Accepts the password or raises Forbidden; other errors of the API pass through."""
        lock = self._busy.setdefault(node, asyncio.Lock())
        try:
            async with lock:
                await self._ensure(node, password)
        finally:
            if not lock.locked():
                self._busy.pop(node, None)

    async def _ensure(self, node: str, password: str) -> None:
        stored = await self._stored(node)
        digest = hashlib.sha256(password.encode()).digest()
        if not stored:
            salt = self._entropy.secret(_SALT)
            stored = await aio.blocking(hashed, password, salt)
            try:
                await self._client.create(SECRET, _secret(node, stored))
            except AlreadyExists:  # another server was faster
                stored = await self._stored(node)
        known = self._known.get(node)
        if known is not None and known[0] == stored and hmac.compare_digest(known[1], digest):
            return
        if not await aio.blocking(verifies, stored, password):
            raise Forbidden(
                f"Cannot accept node {node}: another machine joined with this name; give --node-name or "
                f"--with-node-id, or delete Secret {NAMESPACE}/{secret_name(node)} if the machine was reinstalled"
            )
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[node] = (stored, digest)

    async def _stored(self, node: str) -> str:
        try:
            secret = await self._client.get(SECRET, NAMESPACE, secret_name(node))
        except NotFound:
            return ""
        return base64.b64decode(get(secret, "data", "hash", default="")).decode("ascii", "replace")


def _secret(node: str, text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(node), "namespace": NAMESPACE},
        "type": "Opaque",
        "immutable": True,
        "data": {"hash": base64.b64encode(text.encode()).decode()},
    }
