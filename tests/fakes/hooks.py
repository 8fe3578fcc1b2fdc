"""An HTTPS server on the loopback address that answers reviews, and an API server beside it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.fakes.api import Pki
from tests.fakes.server import Caller, serving

from k3s.api.object import Object

Answers = Callable[[str, Object], Object | Awaitable[Object]]


class Hooks:
    """An HTTPS server that answers reviews by `answers(path, request)`; a dict with `body` is sent as it is."""

    def __init__(self, folder: Path, answers: Answers) -> None:
        self.pki = Pki(folder)
        self.answers = answers
        self.asked: list[tuple[str, Object]] = []
        self.port = 0

    async def __aenter__(self) -> Hooks:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pki.issue("hook.default.svc"))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = next(int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length"))
                review = json.loads(await reader.readexactly(size))
                path = head.split(" ")[1].partition("?")[0]
                self.asked.append((path, review["request"]))
                said = self.answers(path, review["request"])
                said = await said if isinstance(said, Awaitable) else said
                if said.get("wait"):
                    await asyncio.sleep(said["wait"])
                response = {"uid": review["request"]["uid"], "allowed": True, **said}
                body = {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
                data = json.dumps(said.get("body", body)).encode()
                status = said.get("http", "200 OK")
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def client_config(self, path: str) -> Object:
        """How the API server finds a path of this server."""
        bundle = base64.b64encode(self.pki.ca.read_bytes()).decode()
        return {"url": f"https://localhost:{self.port}{path}", "caBundle": bundle}

    def configuration(self, kind: str, *hooks: Object, rule: Object | None = None) -> Object:
        """A webhook configuration; each hook gets what it lacks."""
        rule = {
            "operations": ["CREATE", "UPDATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["configmaps"],
            **(rule or {}),
        }
        whole = []
        for number, hook in enumerate(hooks):
            path = hook.get("path", f"/{number}")
            url = self.client_config(path)
            given = {k: v for k, v in hook.items() if k != "path"}
            config = {**url, **given.pop("clientConfig", {})}
            config = {k: v for k, v in config.items() if v is not None}
            whole.append(
                {
                    "name": f"h{number}.example.com",
                    "rules": [rule],
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                    **given,
                    "clientConfig": config,
                }
            )
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": kind.lower()},
            "webhooks": whole,
        }


def played(run: Any, folder: Path, answers: Answers, steps: Callable[[Hooks, Caller], Any], **more: Any) -> Hooks:
    """Runs steps against a server with these hooks."""
    found: list[Hooks] = []

    async def body() -> None:
        async with Hooks(folder, answers) as hooks, serving(**more) as server:
            found.append(hooks)
            caller = Caller(server.ports[0])
            await steps(hooks, caller)
            caller.close()

    run(body())
    return found[0]
