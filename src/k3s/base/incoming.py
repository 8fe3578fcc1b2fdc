"""What comes in on a connection: from the parser's pieces to requests that wait to be answered, within limits.

Limits are those of the upstream server and of Go's HTTP under it: what a client may send in a head and in a body.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

import httptools

from k3s.base.message import IDENTITY_HEADERS, TEXT, PeerCertificate, Request, Response

MAX_BODY = 3 * 1024 * 1024
# What may wait of one client: requests, and bytes of their bodies.
AHEAD = 32
AHEAD_BYTES = MAX_BODY
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: Where the client is: between two requests, in a head, in a body.
BETWEEN, IN_HEAD, IN_BODY = range(3)


class Incoming(asyncio.Protocol):
    """The receiving half of a connection. The other half answers what waits when it is told to `_advance`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._peer: PeerCertificate | None = None
        self._source_address = ""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._repeated: dict[str, list[str]] = {}
        self._header_bytes = 0
        self._body: bytearray | bytes = b""
        self._too_large = self._too_late = False
        self._waiting: deque[tuple[Request | Response, bool]] = deque()
        self._ahead = 0
        self._held = False
        self._state = BETWEEN
        self._count = 0
        self._ignoring = False
        self._old = False
        self._busy = False

    def _advance(self) -> None:
        """Works on what waits."""
        raise NotImplementedError

    def on_message_begin(self) -> None:
        """A request begins."""
        self._state = IN_HEAD
        self._url = b""
        self._headers = {}
        if self._repeated:
            self._repeated = {}
        self._header_bytes = 0
        self._body = b""
        self._too_large = self._too_late = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._headers
        if key not in headers:
            headers[key] = text
        else:
            self._repeated.setdefault(key, [headers[key]]).append(text)

    def on_headers_complete(self) -> None:
        """All headers are there: those who wait for leave to send the body get it."""
        self._state = IN_BODY
        headers = self._headers
        for name, values in self._repeated.items():
            headers[name] = ("\n" if name.startswith(IDENTITY_HEADERS) else ",").join(values)
        version = self._parser.get_http_version()
        if version != "1.1":
            self._old = True
            if version != "1.0":
                self._refuse(505, "505 HTTP Version Not Supported: unsupported protocol version")
        if b"%" in self._url and _BAD_ESCAPE.search(self._url.partition(b"?")[0]):
            self._refuse(400, "400 Bad Request")
        host = headers.get("host")
        if host is None and not self._old:
            self._refuse(400, "400 Bad Request: missing required Host header")
        elif host is not None and "," in host:
            self._refuse(400, "400 Bad Request: too many Host headers")
        length = headers.get("content-length")
        if length is not None and int(length) > MAX_BODY:
            self._too_large = True
            self._cut()
        elif "expect" in headers and not self._ignoring:
            self._expected(headers["expect"])

    def _expected(self, what: str) -> None:
        if what.lower() != "100-continue":
            self._refuse(417, "")
        elif not self._old and self._transport is not None and not self._busy and not self._waiting:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._ignoring:
            return
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data
        if len(self._body) > MAX_BODY:
            self._too_large = True
            self._cut()

    def _cut(self) -> None:
        """Answers without waiting for the rest: there may be a better reason to refuse than the body."""
        if not self._ignoring:
            self._body = b""
            self.on_message_complete()
            self._ignoring = True
            self._advance()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._ignoring:
            return
        self._state = BETWEEN
        self._count += 1
        parser = self._parser
        request = Request(
            parser.get_method().decode("latin-1"),
            self._url.decode("latin-1"),
            self._headers,
            bytes(self._body),
            self._peer,
            too_large=self._too_large,
            late=self._too_late,
        )
        request.source = self._source_address
        # After a request to upgrade, what follows is no HTTP: an answer that declines it is the last one.
        cut = self._too_large or self._too_late
        again = parser.should_keep_alive() and not cut and not parser.should_upgrade() and not self._old
        self._ignoring = self._old
        self._waiting.append((request, again))
        self._ahead += len(request.body)
        if (len(self._waiting) >= AHEAD or self._ahead > AHEAD_BYTES) and self._transport is not None:
            self._held = True
            self._transport.pause_reading()
        if not parser.should_upgrade() and not cut:
            self._advance()

    def _refuse(self, status: int, text: str) -> None:
        """Answers, after what came before, what is no request to work on; nothing more is read."""
        if not self._ignoring:
            self._ignoring = True
            self._state = BETWEEN
            self._waiting.append((Response(status, text.encode(), TEXT), False))
            self._advance()
