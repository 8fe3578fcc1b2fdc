"""A real API server in the test's process, with a store in memory and everything allowed to the admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from k3s.api.kinds import REGISTRY
from k3s.api.object import Object, decode, encode
from k3s.apiserver import identity
from k3s.apiserver.admission.defaults import chain
from k3s.apiserver.admission.settings import UNSAID
from k3s.apiserver.authn import Authenticator, Credentials
from k3s.apiserver.authorization.choice import authorizer
from k3s.apiserver.authorization.settings import DEFAULT
from k3s.apiserver.cache import Cache
from k3s.apiserver.conversion import computed
from k3s.apiserver.identity import User
from k3s.apiserver.server import ApiServer, ApiServerConfig
from k3s.apiserver.virtual import Reviews
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.base.metrics import Registry
from k3s.store.memory import MemoryStore

ADMIN = User("admin", (identity.MASTERS, identity.AUTHENTICATED), "admin-uid")
ALICE = User("alice", (identity.AUTHENTICATED,), "alice-uid")


def build(store: MemoryStore, **more: Any) -> ApiServer:
    """A server on a free port of the loopback address, without TLS; tokens `adm` and `ali`."""
    clock, entropy = more.pop("clock", None) or SystemClock(), SeededEntropy(1)
    registry = REGISTRY.copy()
    cache = Cache(computed(registry))
    credentials = Credentials(static={"adm": ADMIN, "ali": ALICE}, anonymous=True)
    issuer, verifier = more.pop("tokens", lambda cache: (more.pop("issuer", None), None))(cache)
    authenticator = Authenticator(credentials, cache, clock, verifier, more.pop("sources", ()))
    more.pop("made", []).append(authenticator)
    metrics = more.pop("metrics", None) or Registry()
    chief, _ = authorizer(cache, more.pop("authorization", DEFAULT), clock, metrics, "test")
    return ApiServer(
        store,
        ApiServerConfig(addresses=(("127.0.0.1", 0),), **more.pop("config", {})),
        authenticator,
        chief,
        chain(cache, chief, clock, entropy, registry, cache.convert, more.pop("admission", UNSAID)),
        clock,
        entropy,
        metrics,
        registry=registry,
        cache=cache,
        reviews=Reviews(authenticator, chief, clock),
        issuer=issuer,
        **more,
    )


@asynccontextmanager
async def serving(**more: Any) -> AsyncIterator[ApiServer]:
    """A started server, stopped at the end."""
    store = MemoryStore()
    await store.open()
    server = build(store, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await store.close()


class Caller:
    """A bare HTTP/1.1 client on one connection, so that tests see exactly what is on the wire."""

    def __init__(self, port: int, token: str = "adm") -> None:
        self.port = port
        self._token = token
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self._events: list[bytes] = []

    async def open(self) -> Caller:
        """Connects."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    def head(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """The bytes of a request."""
        lines = {"Host": "test", "Content-Length": str(len(body)), "Authorization": f"Bearer {self._token}", **headers}
        return "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in lines.items()), "", ""]).encode()

    async def send(self, method: str, path: str, body: Any = b"", **headers: str) -> None:
        """Writes a request. Header names are given with underscores."""
        if self.writer is None:
            await self.open()
        assert self.writer is not None
        data = body if isinstance(body, bytes) else encode(body)
        given = {k.replace("_", "-"): v for k, v in headers.items()}
        if data and "Content-Type" not in given:
            given["Content-Type"] = "application/json"
        self.writer.write(self.head(method, path, data, given) + data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Reads one answer, of a known length or in pieces."""
        status, headers = await self.answer_head()
        assert self.reader is not None
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return status, headers, body
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def answer_head(self) -> tuple[int, dict[str, str]]:
        """Reads status and headers."""
        assert self.reader is not None
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(first.split()[1]), {
            k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)
        }

    async def call(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, Object]:
        """Sends and reads; the body decoded."""
        await self.send(method, path, body, **headers)
        status, _, data = await self.answer()
        return status, decode(data) if data else {}

    async def event(self) -> Object:
        """The next event of a watch; empty when it has ended."""
        assert self.reader is not None
        while not self._events:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if not size:
                return {}
            self._events += data[:-2].splitlines()
        return decode(self._events.pop(0))

    def close(self) -> None:
        """Hangs up."""
        if self.writer is not None:
            self.writer.close()
