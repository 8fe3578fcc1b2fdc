"""One small HTTPS request at a time, for joining: before a node has any certificate there is no client to use."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from k3s.cluster.certs import client_context

_LIMIT = 1 << 20
TIMEOUT_S = 10.0


class Unreachable(OSError):
    """The server did not answer, or not in HTTP; the message names it."""


async def fetch(
    url: str, method: str, path: str, headers: Mapping[str, str], body: bytes, ca: bytes | None
) -> tuple[int, bytes]:
    """Status and body of one request to `url` (https://host:port).

    `ca` is the PEM that the server must verify against; None accepts any server, which is right only for asking for the
    CA whose hash is checked afterwards. Raises Unreachable after ten seconds or when the connection fails.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Unreachable(f"Cannot use the server URL {url!r}: it must be https://<host>:<port>")
    context = _unverified() if ca is None else client_context(ca)
    host, port = parts.hostname, parts.port or 443
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_LIMIT)
            try:
                writer.write(_request(method, path, host, port, headers, body))
                return await _answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise Unreachable(f"Cannot reach {url}: no answer within {TIMEOUT_S:.0f} s") from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise Unreachable(f"Cannot reach {url}: {error}") from error


def _request(method: str, path: str, host: str, port: int, headers: Mapping[str, str], body: bytes) -> bytes:
    shown = f"[{host}]" if ":" in host else host
    lines = [f"{method} {path} HTTP/1.1", f"Host: {shown}:{port}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header must not contain a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(status_line.split(" ", 2)[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, await _chunks(reader)
    if "content-length" in headers:
        return status, await reader.readexactly(min(int(headers["content-length"]), _LIMIT))
    return status, await reader.read(_LIMIT)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if len(body) > _LIMIT:
            raise ValueError("the answer is too long")
    return body


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
