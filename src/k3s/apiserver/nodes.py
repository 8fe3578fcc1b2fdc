"""From the API server to nodes, pods and services: logs, exec, attach, port-forward, and the proxy subresources.

What is passed on, and what never is: see `forwarding`. Loopback and link-local addresses are not reached for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from k3s.api import object as objects
from k3s.api.errors import BadRequest, InternalError, NotFound, ServiceUnavailable, not_found
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver.cache import Reader
from k3s.apiserver.forwarding import Body, Dialer, Place, converse
from k3s.base.duplex import connect
from k3s.base.message import Answer, Chunks, Request, Response

_POD = builtin("v1", "Pod")
_NODE = builtin("v1", "Node")
_SERVICE = builtin("v1", "Service")
_SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")

_KUBELET_PORT = 10250
# What stands for itself in a path (RFC 3986, 3.3).
_PATH = "/:@!$&'()*+,;=~"
_MAX_ERROR = 64 * 1024


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
            if not rest and "upgrade" not in request.headers and not request.target.partition("?")[0].endswith("/"):
                return _with_slash(request)
        else:
            place = self._pod_place(namespace, name, subresource, query)
        return await self._forward(request, place)

    async def fetch(self, node: str, path: str) -> bytes:
        """A document of a node's kubelet. Raises ApiError."""
        place = self._kubelet(node, path, [])
        answer = await self._forward(Request("GET", path, {}), place)
        if not isinstance(answer, Chunks):
            raise InternalError(f"the kubelet of {node} answers {path} with another protocol")
        pieces = [piece async for piece in answer.pieces]
        return b"".join(pieces)

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
        # What was decoded for authorization is encoded again: the backend reads the same path, and nothing beside it.
        path = _with_query("/" + quote(rest.lstrip("/"), safe=_PATH), query)
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
            refused = _raise_kubelet_error if place.tls is self._kubelet_tls else None
            return await converse(request, place, backend, refused)
        except ConnectionError as error:
            backend.close()
            raise ServiceUnavailable(f"error talking to {place.host}:{place.port}: {error}") from error
        except BaseException:
            # Whatever happens, also a cancelled request: no connection is left behind.
            backend.close()
            raise


async def _raise_kubelet_error(body: Body, status: int) -> None:
    if status < 400:
        return
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


def _with_slash(request: Request) -> Response:
    """Sends to the same place with a slash at its end, from where the links of a page lead to below it."""
    path, mark, query = request.target.partition("?")
    return Response(301, b"", "", (("Location", f"{path}/{mark}{query}"),))


def _with_query(path: str, query: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _unverified() -> ssl.SSLContext:
    """Pods behind `https:name:port` have certificates of nobody that we know (upstream does not verify them either)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
