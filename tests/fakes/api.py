"""A small API server: one handler in memory, and a TLS front for it. Enough for ConfigMaps, not for more.

It passes the contract of the transports (tests/contract/test_transport.py), which the real one has to pass as well.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k3s.api import errors, selectors
from k3s.api.errors import ApiError
from k3s.api.object import Object, decode, encode, evolve, key, labels
from k3s.client.transport import Request, Response, WatchEvent

BASE = "/api/v1/namespaces/"


class FakeApi:
    """ConfigMaps by `namespace/name`, with history from `oldest` on. Its watches can be cut, slowed and ended."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.events: list[tuple[int, WatchEvent]] = []
        self.revision = 100
        self.oldest = 0
        self.lists = 0
        self.requests: list[Request] = []
        self.refuse: list[ApiError] = []
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._ended = 0

    def apply(self, name: str, data: dict[str, str] | None = None, **tags: str) -> Object:
        """Makes or replaces a ConfigMap of namespace `default`."""
        meta: Object = {"name": name, "namespace": "default"}
        if tags:
            meta["labels"] = tags
        return self._store({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data or {}})

    def remove(self, name: str) -> Object:
        """Deletes one."""
        return self._record("DELETED", self.objects.pop(f"default/{name}"))

    def bookmark(self) -> None:
        """Tells every watcher the newest revision."""
        marker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": str(self.revision)}}
        self.events.append((self.revision, WatchEvent("BOOKMARK", marker)))
        self._wake()

    def end_watches(self) -> None:
        """Ends every watch, as a server does after its timeout."""
        self._ended += 1
        self._wake()

    async def asked(self, count: int) -> None:
        """Waits until this many requests have come."""
        while len(self.requests) < count:
            self._asked.clear()
            await self._asked.wait()

    def compact(self) -> None:
        """Forgets all history."""
        self.oldest = self.revision
        self.events.clear()

    def _store(self, obj: Object) -> Object:
        return self._record("MODIFIED" if key(obj) in self.objects else "ADDED", obj)

    def _record(self, type: str, obj: Object) -> Object:
        self.revision += 1
        obj = evolve(obj, ("metadata", "resourceVersion"), str(self.revision))
        obj = evolve(obj, ("metadata", "uid"), obj["metadata"].get("uid") or f"uid-{self.revision}")
        if type != "DELETED":
            self.objects[key(obj)] = obj
        self.events.append((self.revision, WatchEvent(type, obj)))
        self._wake()
        return obj

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def handle(self, request: Request) -> Response:
        """The verbs."""
        self.requests.append(request)
        self._asked.set()
        if self.refuse:
            raise self.refuse.pop(0)
        if request.path == "/version":
            return Response(200, {"gitVersion": "v1.36.2"}, {"content-type": "application/json"})
        if request.path == "/healthz":
            return Response(200, b"ok", {"content-type": "text/plain"})
        namespace, _, name = request.path.removeprefix(BASE).partition("/configmaps")
        name = name.removeprefix("/")
        if request.method == "GET" and not name:
            self.lists += 1
            return Response(200, self._list(request))
        if request.method == "POST":
            return Response(201, self._create(namespace, request.body))
        current = self.objects.get(f"{namespace}/{name}")
        if current is None:
            raise errors.not_found("", "configmaps", name)
        if request.method == "PUT":
            if request.body["metadata"].get("resourceVersion") not in (None, current["metadata"]["resourceVersion"]):
                raise errors.conflict("", "configmaps", name, "the object has been modified")
            return Response(200, self._store(evolve(request.body, ("metadata", "uid"), current["metadata"]["uid"])))
        if request.method == "PATCH":
            data = {**current.get("data", {}), **request.body.get("data", {})}
            return Response(200, self._store({**current, "data": data}))
        if request.method == "DELETE":
            return Response(200, self._record("DELETED", self.objects.pop(f"{namespace}/{name}")))
        return Response(200, current)

    def _create(self, namespace: str, obj: Object) -> Object:
        obj = evolve(obj, ("metadata", "namespace"), namespace)
        if key(obj) in self.objects:
            raise errors.already_exists("", "configmaps", obj["metadata"]["name"])
        return self._store(obj)

    def _list(self, request: Request) -> Object:
        chosen = selectors.parse_labels(request.query.get("labelSelector", ""))
        items = [obj for obj in self.objects.values() if chosen.matches(labels(obj))]
        bare = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in items]
        meta = {"resourceVersion": str(self.revision)}
        return {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": meta, "items": bare}

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """Events after the revision asked for, until `end_watches`."""
        self.requests.append(request)
        self._asked.set()
        if self.refuse:
            raise self.refuse.pop(0)
        after, ended = int(request.query["resourceVersion"]), self._ended
        if after < self.oldest:
            raise errors.Expired(f"too old resource version: {after} ({self.oldest})")
        position = 0
        while True:
            while position < len(self.events):
                at, event = self.events[position]
                position += 1
                if at > after or (event.type == "BOOKMARK" and at >= after):
                    yield event
            if self._ended != ended:
                return
            await self._changed.wait()


@dataclass
class Pki:
    """An authority and certificates made with it, as files."""

    folder: Path
    ca: Path = field(init=False)

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self.ca = self.folder / "ca.crt"
        cert = self._build("test-ca", self._key, authority=True)
        self.ca.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of `name` for server and client; written over those there are."""
        secret = ec.generate_private_key(ec.SECP256R1())
        cert = self._build(name, secret, authority=False)
        crt, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        crt.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            secret.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return crt, key_file

    def _build(self, name: str, secret: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName(name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(secret.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


class FakeServer:
    """The handler behind TLS. `behave` makes the next answers go wrong, one word each.

    close: the connection ends without an answer · cut: it ends in the middle of one · hang: no answer comes ·
    last: the answer is right and the connection ends after it
    """

    def __init__(self, api: FakeApi, pki: Pki) -> None:
        self.api = api
        self.pki = pki
        self.connections = 0
        self.peers: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.behave: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> FakeServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pki.issue("server"))
        context.load_verify_locations(self.pki.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Cuts every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        peer = writer.get_extra_info("peercert") or {}
        self.peers.append(dict(pair[0] for pair in peer.get("subject", ())).get("commonName", ""))
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        self.headers.append(dict(line.split(": ", 1) for line in head[1:] if line))
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        value = decode(body) if body else None
        request = Request(method, parts.path, dict(parse_qsl(parts.query)), value, headers.get("content-type", ""))
        how = self.behave.pop(0) if self.behave else ""
        if how == "close":
            return False
        if how == "hang":
            await asyncio.Event().wait()
        if "watch" in request.query:
            return await self._stream(request, writer)
        try:
            response = await self.api.handle(request)
        except ApiError as error:
            extra = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else {}
            response = Response(error.code, error.to_status(), extra)
        await self._write(writer, response, how)
        return not how

    async def _write(self, writer: asyncio.StreamWriter, response: Response, how: str) -> None:
        raw = isinstance(response.body, bytes)
        data: Any = response.body if raw else encode(response.body)
        kind = "text/plain" if raw else "application/json"
        lines = [f"HTTP/1.1 {response.status} X", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        lines += [f"{k}: {v}" for k, v in response.headers.items() if k != "content-type"]
        if how == "last":
            lines.append("Connection: close")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (data[: len(data) // 2] if how == "cut" else data))
        await writer.drain()

    async def _stream(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        events = self.api.watch(request)
        started = False
        try:
            async for event in events:
                if not started:
                    started = True
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                line = encode({"type": event.type, "object": event.object}) + b"\n"
                for piece in (line[:7], line[7:]):  # an event is no chunk and a chunk is no event
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        except ApiError as error:
            await self._write(writer, Response(error.code, error.to_status()), "")
            return True
        if not started:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True
