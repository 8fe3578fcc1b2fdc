"""An authorizer elsewhere: an HTTPS server on the loopback address that answers SubjectAccessReviews."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path

from tests.fakes.api import Pki

from k3s.api.object import Object
from k3s.client.kubeconfig import Kubeconfig, render

Answers = Callable[[Object], Object]


class Authority:
    """Answers by `answers(spec)`, a status; `asked` are the reviews that came; `down` refuses every request.

    `http` is the status of every other answer, and may hold header lines.
    """

    def __init__(self, folder: Path, answers: Answers) -> None:
        self.pki = Pki(folder)
        self.folder = folder
        self.answers = answers
        self.asked: list[Object] = []
        self.down = False
        self.http = "200 OK"
        self.port = 0

    async def __aenter__(self) -> Authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pki.issue("localhost"))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def kubeconfig(self) -> str:
        """The file of the kubeconfig that leads here."""
        path = self.folder / "authority.kubeconfig"
        path.write_text(render(Kubeconfig(f"https://localhost:{self.port}/authorize", self.pki.ca.read_text())))
        return str(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = next(int(x.split(":")[1]) for x in head.split("\r\n") if x.startswith("content-length"))
                review = json.loads(await reader.readexactly(size))
                assert head.startswith("post /authorize ")
                self.asked.append(review)
                data = json.dumps({**review, "status": self.answers(review["spec"])}).encode()
                http, kind = self.http, "application/json"
                if self.down:
                    http, kind, data = "403 Forbidden", "text/plain", b"the authority is closed"
                lines = f"HTTP/1.1 {http}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(lines.encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
