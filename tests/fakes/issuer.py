"""An issuer of JSON web tokens: in the test's process, or as a server over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.fakes.api import Pki

from k3s.api.errors import ServiceUnavailable

URL = "https://issuer.example"
NOW = 1_800_000_000.0


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(number: int, size: int = 0) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


class Issuer:
    """Signs tokens with its keys, and has its documents; `fetched` are the URLs that were asked for."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.kid = "one"
        self.fetched: list[str] = []
        self.down = False
        self.name = self.url = URL

    async def fetch(self, url: str, ca_pem: str) -> Any:
        """See `provider.Fetch`."""
        self.fetched.append(url)
        if self.down:
            raise ServiceUnavailable("the issuer is down")
        if url == f"{self.url}/.well-known/openid-configuration":
            return {"issuer": self.name, "jwks_uri": f"{self.url}/keys"}
        assert url == f"{self.url}/keys"
        public, point = self.rsa.public_key().public_numbers(), self.ec.public_key().public_numbers()
        curve = {"kty": "EC", "crv": "P-256", "kid": "curve", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        known = {"kty": "RSA", "kid": self.kid, "use": "sig", "n": _number(public.n), "e": _number(public.e)}
        return {"keys": [{"kty": "oct", "k": "c2VjcmV0"}, known, curve, {**known, "use": "enc", "kid": "enc"}]}

    def token(self, alg: str = "RS256", kid: str = "", **claims: Any) -> str:
        """A signed token."""
        header = {"alg": alg, "kid": kid or self.kid}
        given = {"iss": self.url, "aud": "k8s", "sub": "jane", "exp": NOW + 3600, **claims}
        message = ".".join(b64(json.dumps(part).encode()) for part in (header, given))
        return f"{message}.{b64(self._sign(alg, message.encode()))}"

    def _sign(self, alg: str, message: bytes) -> bytes:
        if alg == "ES256":
            r, s = decode_dss_signature(self.ec.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        digest = hashes.SHA512() if alg.endswith("512") else hashes.SHA256()
        pad: Any = padding.PSS(padding.MGF1(digest), digest.digest_size) if alg[0] == "P" else padding.PKCS1v15()
        return self.rsa.sign(message, pad, digest)


@asynccontextmanager
async def over_tls(issuer: Issuer, pki: Pki) -> AsyncIterator[str]:
    """Serves the issuer's documents at a URL of this machine, which becomes its name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = json.dumps(await issuer.fetch(issuer.url + head.split()[1].decode(), "")).encode()
            status = b"200 OK"
        except ServiceUnavailable:
            body, status = b"{}", b"503 Service Unavailable"
        except asyncio.IncompleteReadError:
            return
        length = str(len(body)).encode()
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: " + length)
        writer.write(b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pki.issue("localhost"))
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    issuer.url = issuer.name = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer.url
    finally:
        server.close()
        await server.wait_closed()
