"""One group version that another server has: asked for what it serves, and handed the requests of users.

The other server learns who asks from the X-Remote headers, which it believes because of the front proxy's certificate;
such headers of the client itself, and its credentials, stay here (see `forwarding`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from k3s.api.errors import BadRequest, InternalError, ServiceUnavailable
from k3s.api.object import Object, decode, encode, get
from k3s.apiserver import services
from k3s.apiserver.forwarding import Body, Place, converse
from k3s.apiserver.identity import MASTERS, User
from k3s.base.duplex import Duplex
from k3s.base.message import JSON, TEXT, Answer, Chunks, Header, Request, Response
from k3s.client import answer, transport
from k3s.client.tls import Credentials, TlsContext

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

#: Serves a group version in this process, asked like a server of its own.
Backend = Callable[[Request, User], Awaitable[Response]]
#: Connects to a host and port whose certificate is of the name that comes last. Raises OSError.
Dial = Callable[[str, int, ssl.SSLContext, str], Awaitable[Duplex]]

_ITSELF = User("system:kube-aggregator", (MASTERS,))
_CHECK_S = 5.0
_MOST_BYTES = 16 << 20
_UNAVAILABLE = Response(503, b"service unavailable\n", TEXT)
_REDIRECTS = "the backend attempted to redirect this request, which is not permitted"


class NoAnswer(Exception):
    """The other server did not say what it serves; the text is upstream's."""


class Redirected(Exception):
    """The other server wants the client to go elsewhere, with what it takes for its own answer."""


class Remote:
    """The server behind an APIService. `front_proxy` are the certificate and key that it knows us by."""

    def __init__(
        self, obj: Object, reader: Reader, front_proxy: Credentials, dial: Dial, backend: Backend | None
    ) -> None:
        spec = obj["spec"]
        self.name: str = obj["metadata"]["name"]
        self.spec = spec
        self.group: str = spec.get("group", "")
        self.version: str = spec["version"]
        self.path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        self.available = False
        #: What it serves, as an APIResourceList has it; None when nobody knows yet.
        self.resources: list[Object] | None = None
        #: The hash of its OpenAPI v3 document, empty without one; its OpenAPI v2 document, None without one.
        self.third = ""
        self.second: Object | None = None
        self.backend = backend
        self.wake = asyncio.Event()
        self._reader = reader
        self._dial = dial
        self._tls = _trust(spec, front_proxy)

    @property
    def reference(self) -> Object:
        """The Service that leads to it."""
        found: Object = self.spec["service"]
        return found

    async def forward(self, request: Request, user: User) -> Answer:
        """Answers a request of a user."""
        if not self.available:
            return _UNAVAILABLE
        if self.backend is not None:
            return await self.backend(request, user)
        try:
            return await self._send(request, user)
        except services.NoAddress:
            return _UNAVAILABLE
        except Redirected:
            return Response(502, f"{_REDIRECTS}\n".encode(), TEXT)
        except (OSError, TimeoutError, ServiceUnavailable) as error:
            return Response(503, f"error trying to reach service: {error}\n".encode(), TEXT)

    async def local(self, request: Request, user: User) -> transport.Response:
        """Answers a request of a component of this process. Raises ApiError."""
        headers = {**request.headers, "accept": JSON}
        body = encode(request.value) if request.value is not None else b""
        found = await self.forward(Request(request.method, request.target, headers, body), user)
        if not isinstance(found, Response | Chunks):
            raise InternalError(f"{request.method} {request.target} is a stream; use HTTPS")
        about = {"content-type": found.content_type}
        value = answer.body_of(await body_of(found), about)
        if found.status >= 400:
            raise answer.error_of(found.status, value, about)
        return transport.Response(found.status, value, about)

    async def ask(self) -> bool:
        """Has the other server say what it serves; whether that is news. Raises NoAnswer."""
        found = _json(await self._document(self.path))
        listed = found.get("resources") if isinstance(found, dict) else None
        resources = [row for row in listed or () if isinstance(row, dict) and row.get("name")]
        third = await self._third()
        if self.resources is not None and (resources, third) == (self.resources, self.third):
            return False
        try:
            second = _json(await self._document("/openapi/v2"))
        except NoAnswer:
            second = None
        self.second = second if isinstance(second, dict) else None
        self.resources, self.third = resources, third
        return True

    async def _third(self) -> str:
        try:
            index = _json(await self._document("/openapi/v3"))
        except NoAnswer:
            return ""
        url = get(index, "paths", self.path.lstrip("/"), "serverRelativeURL", default="")
        return str(url).partition("hash=")[2]

    async def _document(self, path: str) -> bytes:
        """A document of the other server. Raises NoAnswer."""
        shown = path
        try:
            async with asyncio.timeout(_CHECK_S):
                request = Request("GET", path, {"accept": JSON})
                if self.backend is not None:
                    found: Answer = await self.backend(request, _ITSELF)
                else:
                    host, port = services.address(self._reader, self.reference)
                    shown = f"https://{f'[{host}]' if ':' in host else host}:{port}{path}"
                    found = await self._send(request, _ITSELF)
                if not isinstance(found, Response | Chunks):
                    raise EOFError("it wants to speak another protocol")
                body = await body_of(found)
                if not 200 <= found.status < 300:
                    raise EOFError(f"bad status from {shown}: {found.status}")
                return body
        except services.NoAddress as error:
            raise NoAnswer(str(error)) from None
        except Redirected:
            raise NoAnswer(f"failing or missing response from {shown}: {_REDIRECTS}") from None
        except TimeoutError:
            raise NoAnswer(f"failing or missing response from {shown}: context deadline exceeded") from None
        except (OSError, ServiceUnavailable, EOFError) as error:
            raise NoAnswer(f"failing or missing response from {shown}: {error}") from error

    async def _send(self, request: Request, user: User) -> Answer:
        """Raises NoAddress, Redirected, OSError, ServiceUnavailable."""
        host, port = services.address(self._reader, self.reference)
        name = f"{self.reference.get('name', '')}.{self.reference.get('namespace', '')}.svc"
        tls = self._tls.current()
        more = identity_headers(user)
        backend = await self._dial(host, port, tls, name)
        try:
            return await converse(request, Place(host, port, request.target, tls), backend, _no_redirects, more)
        except BaseException:
            backend.close()
            raise


async def body_of(found: Response | Chunks) -> bytes:
    """The whole body of an answer. Raises EOFError when it is too long, OSError when it breaks off."""
    if isinstance(found, Response):
        return bytes(found.body)
    data = bytearray()
    pieces: AsyncIterator[bytes] = found.pieces
    async for piece in pieces:
        data += piece
        if len(data) > _MOST_BYTES:
            raise EOFError(f"the answer is longer than {_MOST_BYTES} bytes")
    return bytes(data)


def identity_headers(user: User) -> list[Header]:
    """What tells the other server who asks. Raises BadRequest for a name that no header can hold."""
    headers = [("X-Remote-User", user.name)]
    headers += [("X-Remote-Uid", user.uid)] if user.uid else []
    headers += [("X-Remote-Group", group) for group in user.groups]
    for key, values in user.extra.items():
        # Header names know no capitals: what is none of their letters is escaped.
        escaped = quote(key, safe="!#$&'*+-.^_`|~")
        headers += [(f"X-Remote-Extra-{escaped}", value) for value in values]
    for _, value in headers:
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise BadRequest("a name of the user has characters that cannot be passed on")
    return [(name, value.encode().decode("latin-1")) for name, value in headers]


async def _no_redirects(body: Body, status: int) -> None:
    if status < 400:
        raise Redirected


def _trust(spec: Object, front_proxy: Credentials) -> TlsContext:
    try:
        bundle = base64.b64decode(spec.get("caBundle") or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        bundle = ""
    verify = not spec.get("insecureSkipTLSVerify")
    return TlsContext(replace(front_proxy, ca_pem=bundle, verify=verify))


def _json(body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
