"""A small API server of another group, wardle.example.com/v1: what an aggregated API server has to be, and no more."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.api import Pki
from tests.fakes.server import Caller, serving

from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.aggregation.aggregator import Others
from k3s.apiserver.server import ApiServer
from k3s.client.tls import Credentials

API_SERVICE = builtin("apiregistration.k8s.io/v1", "APIService")
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
GROUP, VERSION = "wardle.example.com", "v1"
BASE = f"/apis/{GROUP}/{VERSION}"
NAME = f"{VERSION}.{GROUP}"
_FLUNDERS = {
    "name": "flunders",
    "singularName": "flunder",
    "namespaced": True,
    "kind": "Flunder",
    "verbs": ["get", "list"],
    "shortNames": ["fl"],
}
_TALK = {"name": "flunders/talk", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]}


class Aggregated:
    """Serves over TLS to whoever shows a certificate of its own authority; `heads` are the requests that came."""

    def __init__(self, folder: Path) -> None:
        self.pki = Pki(folder)
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.healthy = True
        self.port = 0

    async def __aenter__(self) -> Aggregated:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pki.issue("wardle.default.svc"))
        context.load_verify_locations(self.pki.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def service(self) -> Object:
        """A Service that leads to it."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "wardle", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }

    def api_service(self, **more: Any) -> Object:
        """The APIService that says so."""
        spec = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 2000,
            "versionPriority": 10,
            "service": {"namespace": "default", "name": "wardle", "port": self.port},
            "caBundle": base64.b64encode(self.pki.ca.read_bytes()).decode(),
        }
        spec = {key: value for key, value in (spec | more).items() if value is not None}
        meta = {"name": NAME}
        return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": meta, "spec": spec}

    def asked(self, part: str) -> list[str]:
        """The requests in whose first line `part` is."""
        return [head for head in self.heads if part in head.partition("\r\n")[0]]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            size = [x.split(":")[1] for x in head.lower().split("\r\n") if x.startswith("content-length")]
            self.bodies.append(await reader.readexactly(int(size[0])) if size else b"")
            path = head.split(" ")[1].partition("?")[0]
            if path.endswith("/talk"):
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
                while line := await reader.readline():
                    writer.write(b"you said " + line)
                return
            if path.endswith("/elsewhere"):
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n")
                return
            status, body = self._answer(path)
            data = json.dumps(body).encode()
            kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}"
            writer.write(f"HTTP/1.1 {status} X\r\n{kind}\r\n\r\n".encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str) -> tuple[int, Object]:
        if not self.healthy:
            return 500, {"kind": "Status", "apiVersion": "v1", "message": "not well", "code": 500}
        if path == BASE:
            return 200, {
                "kind": "APIResourceList",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [_FLUNDERS, _TALK],
            }
        if path == "/openapi/v3":
            name = BASE.lstrip("/")
            return 200, {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash=ABC"}}}
        if path == f"/openapi/v3{BASE}":
            return 200, {"openapi": "3.0.0", "paths": {}, "components": {"schemas": {"Flunder": {"type": "object"}}}}
        if path == "/openapi/v2":
            return 200, {"swagger": "2.0", "paths": {f"{BASE}/flunders": {}}, "definitions": {"Flunder": {}}}
        if path.startswith(BASE):
            return 200, {"kind": "FlunderList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": []}
        return 404, {"kind": "Status", "apiVersion": "v1", "message": "no such thing", "code": 404}


@asynccontextmanager
async def beside(folder: Path, **api_service: Any) -> Any:
    """The other server, ours, and a caller; the APIService has been checked once."""
    async with Aggregated(folder) as other:
        cert, key = other.pki.issue("front-proxy")
        others = Others(Credentials(cert_file=str(cert), key_file=str(key)))
        async with serving(others=others) as server:
            caller = Caller(server.ports[0])
            assert (await caller.call("POST", "/api/v1/namespaces/default/services", other.service()))[0] == 201
            assert (await caller.call("POST", SERVICES, other.api_service(**api_service)))[0] == 201
            await condition(server, lambda found: found is not None)
            yield other, server, caller
            caller.close()


async def condition(server: ApiServer, wanted: Callable[[Object | None], bool], name: str = NAME) -> Object | None:
    """The condition Available of an APIService, as soon as it is as wanted."""
    async with asyncio.timeout(10):
        while True:
            obj = server.cache.get(API_SERVICE, "", name)
            found = next(iter(((obj or {}).get("status") or {}).get("conditions") or ()), None)
            if wanted(found):
                return found
            await server.cache.reached(server.cache.revision + 1)
