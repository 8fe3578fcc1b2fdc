"""From the API server to nodes, pods and services: logs, exec, attach, port-forward, and the proxy subresources.

Bytes are passed on, not understood. Rules that keep this safe (each was a CVE once): a failed upgrade closes both
connections; redirects are handed to the client, never followed; credentials of the client stay here; loopback and
link-local addresses are not reached for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import httptools

from k3s.api import object as objects
from k3s.api.errors import BadRequest, InternalError, NotFound, ServiceUnavailable, not_found
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver.cache import Reader
from k3s.base.duplex import Duplex, connect, splice, status_of
from k3s.base.message import TEXT, Answer, Chunks, Request, Upgrade

_POD = builtin("v1", "Pod")
_NODE = builtin("v1", "Node")
_SERVICE = builtin("v1", "Service")
_SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")

_KUBELET_PORT = 10250
_MAX_ERROR = 64 * 1024

# Headers that belong to one connection (RFC 9110, 7.6.1) or to the client's identity: they do not go further.
_HOP_BY_HOP = "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade"
_NOT_FORWARDED = frozenset((*_HOP_BY_HOP.split(), "host", "content-length", "authorization", "expect"))
_NOT_FORWARDED_PREFIXES = ("impersonate-", "x-remote-")
_NOT_RETURNED = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "date"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes on to; `path` includes the query."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None


class Dialer(Protocol):
    """How a connection to a node is made: directly, or through the node's tunnel."""

    async def __call__(self, host: str, port: int, tls: ssl.SSLContext | None) -> Duplex:
        """A connection. Raises OSError."""


class Nodes:
    """Connects requests about pods, nodes and services to where they are answered.

    `kubelet_tls` shows the API server's own certificate to kubelets.
    """

    def __init__(self, reader: Reader, kubelet_tls: ssl.SSLContext, dial: Dialer = connect) -> None:
        self._reader = reader
        self._kubelet_tls = kubelet_tls
        self._dial = dial

    async def connect(
        self,
        request: Request,
        kind: Kind,
        namespace: str,
        name: str,
        subresource: str,
        rest: str,
        query: list[tuple[str, str]],
    ) -> Answer:
        """Answers a request on a connecting subresource; `rest` is the path below `proxy`.

        Raises NotFound, BadRequest, ServiceUnavailable, InternalError.
        """
        if subresource == "proxy":
            place = self._proxy_place(kind.plural, namespace, name, rest, query)
        else:
            place = self._pod_place(namespace, name, subresource, query)
        return await self._forward(request, place)

    # -- where to

    def _pod_place(self, namespace: str, name: str, subresource: str, query: list[tuple[str, str]]) -> Place:
        pod = self._reader.get(_POD, namespace, name)
        if pod is None:
            raise not_found("", "pods", name)
        options = dict(query)
        node = pod["spec"].get("nodeName")
        if not node:
            raise BadRequest(f"pod {name} does not have a host assigned")
        here = f"{quote(namespace)}/{quote(name)}"
        if subresource == "portforward":
            ports = [("ports", value) for key, value in query if key == "ports"]
            return self._kubelet(node, f"/portForward/{here}", ports)
        container = _container(pod, options.get("container", ""))
        if subresource == "log":
            known = (
                "follow",
                "previous",
                "timestamps",
                "tailLines",
                "sinceSeconds",
                "sinceTime",
                "limitBytes",
                "stream",
            )
            asked = [(key, value) for key, value in query if key in known]
            return self._kubelet(node, f"/containerLogs/{here}/{quote(container)}", asked)
        asked = [("command", value) for key, value in query if key == "command"]
        names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
        asked += [(names[key], "1") for key, value in query if key in names and value in ("1", "true", "True")]
        return self._kubelet(node, f"/{subresource}/{here}/{quote(container)}", asked)

    def _kubelet(self, node_name: str, path: str, query: list[tuple[str, str]]) -> Place:
        node = self._reader.get(_NODE, "", node_name)
        if node is None:
            raise not_found("", "nodes", node_name)
        status = node.get("status", {})
        port = int(objects.get(status, "daemonEndpoints", "kubeletEndpoint", "Port", default=0) or _KUBELET_PORT)
        return Place(_address(node), port, _with_query(path, query), self._kubelet_tls)

    def _proxy_place(self, plural: str, namespace: str, name: str, rest: str, query: list[tuple[str, str]]) -> Place:
        path = _with_query("/" + rest.lstrip("/"), query)
        if plural == "nodes":
            place = self._kubelet(name.split(":")[0], "/", [])
            return Place(place.host, place.port, path, place.tls)
        scheme, host_name, port = _split_name(name)
        if plural == "pods":
            pod = self._reader.get(_POD, namespace, host_name)
            if pod is None:
                raise not_found("", "pods", host_name)
            host, number = str(pod.get("status", {}).get("podIP", "")), _pod_port(pod, port)
        else:
            host, number = self._endpoint(namespace, host_name, port)
        _check_address(host)
        tls = _unverified() if scheme == "https" else None
        return Place(host, number, path, tls)

    def _endpoint(self, namespace: str, name: str, port: str) -> tuple[str, int]:
        service = self._reader.get(_SERVICE, namespace, name)
        if service is None:
            raise not_found("", "services", name)
        ports = service["spec"].get("ports") or ()
        wanted = next((p for p in ports if port in ("", p.get("name"), str(p["port"]))), None)
        if wanted is None:
            raise ServiceUnavailable(f'no service port "{port}" found for service "{name}"')
        for piece in self._reader.list(_SLICE, namespace):
            if objects.labels(piece).get("kubernetes.io/service-name") != name:
                continue
            number = next(
                (p["port"] for p in piece.get("ports") or () if (p.get("name") or "") == (wanted.get("name") or "")),
                None,
            )
            for endpoint in piece.get("endpoints") or ():
                if number and endpoint.get("conditions", {}).get("ready", True):
                    return endpoint["addresses"][0], number
        raise ServiceUnavailable(f'no endpoints available for service "{name}"')

    # -- passing on

    async def _forward(self, request: Request, place: Place) -> Answer:
        try:
            backend = await self._dial(place.host, place.port, place.tls)
        except (OSError, TimeoutError) as error:
            text = f"error dialing backend: cannot reach {place.host}:{place.port}: {error}"
            raise InternalError(text) if place.tls is self._kubelet_tls else ServiceUnavailable(text) from error
        try:
            return await self._converse(request, place, backend)
        except ConnectionError as error:
            backend.close()
            raise ServiceUnavailable(f"error talking to {place.host}:{place.port}: {error}") from error
        except BaseException:
            # Whatever happens, also a cancelled request: no connection is left behind.
            backend.close()
            raise

    async def _converse(self, request: Request, place: Place, backend: Duplex) -> Answer:
        await backend.write(_head(request, place) + request.body)
        head = await backend.read_head()
        status = status_of(head)
        if status == 101:
            return Upgrade(lambda transport, rest: _join(transport, rest, head, backend), backend.close)
        body = Body(backend, head, request.method)
        if place.tls is self._kubelet_tls and status >= 400:
            await _raise_kubelet_error(body, status)
        return Chunks(status, body.pieces(), body.content_type, body.headers, backend.close)


async def _raise_kubelet_error(body: Body, status: int) -> None:
    text = b""
    async with contextlib.aclosing(body.pieces()) as pieces:
        async for piece in pieces:
            text += piece
            if len(text) > _MAX_ERROR:
                break
    message = text.decode(errors="replace").strip()
    if status == 400:
        raise BadRequest(message)
    if status == 404:
        raise NotFound(message)
    raise InternalError(f"the kubelet answered {status}: {message}")


async def _join(transport: Any, rest: bytes, head: bytes, backend: Duplex) -> None:
    try:
        client = Duplex.take_over(transport, rest)
        await client.write(head)
        await splice(client, backend)
    except ConnectionError:
        # The client went before it was answered; the one who calls closes its end.
        return
    finally:
        backend.close()


def _head(request: Request, place: Place) -> bytes:
    lines = [f"{request.method} {place.path} HTTP/1.1", f"Host: {place.host}:{place.port}"]
    upgrade = request.headers.get("upgrade")
    lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"] if upgrade else ["Connection: close"]
    for name, value in request.headers.items():
        if name in _NOT_FORWARDED or name.startswith(_NOT_FORWARDED_PREFIXES):
            continue
        if name == "sec-websocket-protocol":
            value = _without_credentials(value)
        lines.append(f"{name}: {value}")
    if request.body:
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _without_credentials(protocols: str) -> str:
    """WebSocket clients in browsers send their token as a subprotocol: it is not for the backend."""
    offered = [p.strip() for p in protocols.split(",")]
    return ", ".join(p for p in offered if not p.startswith("base64url.bearer.authorization.k8s.io."))


class Body:
    """The body of a backend's answer, decoded from its chunks."""

    def __init__(self, backend: Duplex, head: bytes, method: str) -> None:
        self._backend = backend
        self._parts: list[bytes] = []
        self._done = False
        self._headers: list[tuple[str, str]] = []
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"the backend broke HTTP: {error}") from error
        self._done = self._done or method == "HEAD"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._done = True

    @property
    def content_type(self) -> str:
        """What the backend says that the body is."""
        return next((value for name, value in self._headers if name.lower() == "content-type"), TEXT)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that go on to the client."""
        dropped = _NOT_RETURNED | {"content-type"}
        return tuple((name, value) for name, value in self._headers if name.lower() not in dropped)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; closes the connection at its end. Raises OSError when it breaks off."""
        try:
            while True:
                parts, self._parts = self._parts, []
                for part in parts:
                    yield part
                if self._done:
                    return
                data = await self._backend.read()
                if not data:
                    return
                try:
                    self._parser.feed_data(data)
                except httptools.HttpParserError as error:
                    raise ConnectionError(f"the backend broke HTTP: {error}") from error
        finally:
            self._backend.close()


def _container(pod: Object, wanted: str) -> str:
    """The container that a request means. Raises BadRequest in upstream's words."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [c["name"] for c in spec.get("containers", ())]
    others = [c["name"] for c in (*(spec.get("initContainers") or ()), *(spec.get("ephemeralContainers") or ()))]
    if wanted:
        if wanted in main or wanted in others:
            return wanted
        raise BadRequest(f"container {wanted} is not valid for pod {name}")
    if len(main) == 1:
        return str(main[0])
    default = objects.annotations(pod).get("kubectl.kubernetes.io/default-container")
    if default in main:
        return str(default)
    listed = " ".join(main)
    text = f"a container name must be specified for pod {name}, choose one of: [{listed}]"
    inits = [c["name"] for c in spec.get("initContainers") or ()]
    raise BadRequest(f"{text} or one of the init containers: [{' '.join(inits)}]" if inits else text)


def _address(node: Object) -> str:
    """Internal address first, as k3s asks of its API server (spec 1.6)."""
    addresses: Mapping[str, str] = {
        a["type"]: a["address"] for a in reversed(node.get("status", {}).get("addresses") or ())
    }
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        if kind in addresses:
            return addresses[kind]
    raise InternalError(f"no preferred addresses found for node {objects.name(node)}")


def _check_address(host: str) -> None:
    if not host:
        raise ServiceUnavailable("no endpoint has an address yet")
    address = ipaddress.ip_address(host)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise BadRequest("address not allowed")


def _split_name(name: str) -> tuple[str, str, str]:
    """scheme, name and port of `[https:]name[:port]`."""
    parts = name.split(":")
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return "", parts[0], ""


def _pod_port(pod: Object, port: str) -> int:
    if port.isdecimal():
        return int(port)
    for container in pod["spec"].get("containers", ()):
        for each in container.get("ports") or ():
            if port in ("", each.get("name")):
                return int(each["containerPort"])
    return 80


def _with_query(path: str, query: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _unverified() -> ssl.SSLContext:
    """Pods behind `https:name:port` have certificates of nobody that we know (upstream does not verify them either)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
