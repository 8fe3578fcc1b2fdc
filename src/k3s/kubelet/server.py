"""The kubelet's own endpoints on port 10250: logs, exec, attach, port-forward, pods, health, metrics, stats.

Nothing is anonymous but /healthz of the loopback listener: every caller shows a certificate or a token, and the API
server decides whether it may (facts: kubelet, endpoints; KEP-2862 for the subresources of nodes).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from k3s.api import times
from k3s.api.errors import ApiError, BadRequest, NotFound
from k3s.api.object import Object, encode
from k3s.base.clock import Clock
from k3s.base.duplex import Duplex
from k3s.base.http import HttpServer
from k3s.base.message import JSON, TEXT, Answer, Chunks, Request, Response, Upgrade
from k3s.kubelet import streams
from k3s.kubelet.logs import LogOptions, LogReader
from k3s.kubelet.runtime.interface import RUNNING, Container, Runtime, RuntimeFailure, Sandbox

log = logging.getLogger(__name__)

PORT = 10250
HEALTH_PORT = 10248

# First part of the path -> the subresources of nodes of which the caller needs one, in the order in which they are
# asked for; of everything else `proxy`. Only what older roles reach by `proxy` is still reached by it.
_SUBRESOURCES: Mapping[str, tuple[str, ...]] = {
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "checkpoint": ("checkpoint",),
    **{path: (path, "proxy") for path in ("pods", "healthz", "configz", "statusz")},
    "runningpods": ("pods", "proxy"),
}
# What runs a command or reaches into a pod is no reading, though a WebSocket begins with GET.
_REACHES_IN = frozenset({"exec", "attach", "portForward", "run"})
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_WAITING = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Pods(Protocol):
    """What the server asks of the kubelet."""

    def pods(self) -> list[Object]:
        """The pods of this node with their statuses."""

    def pod(self, namespace: str, name: str) -> Object | None:
        """One of them."""

    def container(self, namespace: str, name: str, container: str, *, previous: bool = False) -> Container | None:
        """The newest (or the one before it) container of that name in a pod."""

    def sandbox(self, namespace: str, name: str) -> Sandbox | None:
        """The sandbox of a pod."""

    def log_path(self, namespace: str, name: str, container: str, *, previous: bool = False) -> str | None:
        """The log file of a container's newest run (or of the one before it)."""

    def listen(self, namespace: str, name: str, tell: Callable[[], None]) -> Callable[[], None]:
        """Has `tell` called whenever a pod's state may have changed; answers how to stop that."""


Authorize = Callable[[Request, str, tuple[str, ...]], Awaitable[None]]
"""(request, verb, subresources of nodes of which one has to be allowed): raises Unauthorized or Forbidden."""


def _health(request: Request) -> Answer:
    """What anybody on this machine may ask."""
    if request.target.partition("?")[0] == "/healthz":
        return Response(200, b"ok", TEXT)
    return Response(404, b"404 page not found\n", TEXT)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, taken apart."""

    request: Request
    parts: tuple[str, ...]
    query: list[tuple[str, str]]

    def value(self, name: str) -> str:
        """The first value of a query parameter, or the empty string."""
        return next((v for k, v in self.query if k == name), "")

    def switch(self, *names: str) -> bool:
        """True when one of the parameters is set to 1 or true."""
        return any(self.value(name) in ("1", "true") for name in names)


class KubeletServer:
    """Serves the endpoints; `documents` are further paths whose text or JSON is made when asked for."""

    def __init__(
        self,
        pods: Pods,
        runtime: Runtime,
        authorize: Authorize,
        clock: Clock,
        documents: Mapping[str, Callable[[], Awaitable[tuple[str, bytes]]]],
    ) -> None:
        self._pods = pods
        self._runtime = runtime
        self._authorize = authorize
        self._clock = clock
        self._documents = documents
        self._http = HttpServer(self._start, clock)
        self.port = 0

    async def run(
        self,
        ready: Callable[[], None],
        host: str,
        tls: ssl.SSLContext,
        port: int = PORT,
        health_port: int = HEALTH_PORT,
    ) -> None:
        """Listens until cancelled; /healthz also on loopback, in the clear. Raises OSError when a port is taken."""
        health = HttpServer(_health, self._clock)
        try:
            self.port = await self._http.listen(host, port, tls)
            await health.listen("127.0.0.1", health_port, None)
            ready()
            await asyncio.Event().wait()
        finally:
            await health.stop(0.0)
            await self._http.stop(1.0)

    def _start(self, request: Request) -> Awaitable[Answer]:
        return self._answer(request)

    async def _answer(self, request: Request) -> Answer:
        """The request boundary: whatever fails becomes an answer."""
        target = urlsplit(request.target)
        parts = tuple(unquote(part) for part in target.path.split("/") if part)
        call = Call(request, parts, parse_qsl(target.query, keep_blank_values=True))
        try:
            first = parts[0] if parts else ""
            verb = "create" if first in _REACHES_IN else _VERBS.get(request.method, request.method.lower())
            await self._authorize(request, verb, _SUBRESOURCES.get(first, ("proxy",)))
            return await self._dispatch(call)
        except ApiError as error:
            return Response(error.code, error.message.encode() + b"\n", TEXT)
        except FileNotFoundError as error:
            return Response(404, f"there is no log: {error}\n".encode(), TEXT)
        except RuntimeFailure as error:
            return Response(404 if error.gone else 500, f"{error.message}\n".encode(), TEXT)
        except (OSError, ConnectionError) as error:
            return Response(502, f"cannot reach the container runtime: {error}\n".encode(), TEXT)

    async def _dispatch(self, call: Call) -> Answer:
        path = "/" + "/".join(call.parts)
        document = self._documents.get(path)
        if document is not None:
            content_type, body = await document()
            return Response(200, body, content_type)
        if path == "/healthz":
            return Response(200, b"ok", TEXT)
        if path in ("/pods", "/runningpods"):
            listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods.pods()}
            return Response(200, encode(listed), JSON)
        handlers = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
        }
        handler = handlers.get(call.parts[0]) if len(call.parts) >= 3 else None
        if handler is None:
            raise NotFound("404 page not found")
        return await handler(call)

    # -- logs

    async def _logs(self, call: Call) -> Answer:
        where, previous = self._container(call), call.switch("previous")
        found = self._pods.container(*where, previous=previous)
        path = self._pods.log_path(*where, previous=previous)
        if found is None or path is None or not Path(path).exists():
            raise BadRequest(self._no_log(where, previous))
        followed = found.id

        def ended() -> bool:
            now = self._pods.container(*where)
            return now is None or now.id != followed or now.state != RUNNING

        def listen(tell: Callable[[], None]) -> Callable[[], None]:
            return self._pods.listen(where[0], where[1], tell)

        return Chunks(200, LogReader(Path(path), self._log_options(call), ended, listen).pieces())

    def _no_log(self, where: tuple[str, str, str], previous: bool) -> str:
        """Why there is no log, in upstream's words."""
        namespace, name, container = where
        what = f'container "{container}" in pod "{name}"'
        if previous:
            return f"previous terminated {what} not found"
        status = (self._pods.pod(namespace, name) or {}).get("status", {})
        listed = [s for part in _STATUSES for s in status.get(part) or () if s["name"] == container]
        waiting = listed[0].get("state", {}).get("waiting") if listed else None
        if waiting is None:
            return f"{what} is not available"
        reason = waiting.get("reason", "")
        return f"{what} is waiting to start: {_WAITING.get(reason, reason)}"

    def _log_options(self, call: Call) -> LogOptions:
        since = 0.0
        if call.value("sinceTime"):
            since = times.parse(call.value("sinceTime"))
        elif call.value("sinceSeconds"):
            since = self._clock.now() - int(call.value("sinceSeconds"))
        stream = {"Stdout": "stdout", "Stderr": "stderr"}.get(call.value("stream"), "")
        tail = call.value("tailLines")
        return LogOptions(
            tail=int(tail) if tail else -1,
            since=since,
            timestamps=call.switch("timestamps"),
            follow=call.switch("follow"),
            limit=int(call.value("limitBytes") or 0),
            stream=stream,
        )

    # -- streams

    async def _exec(self, call: Call) -> Answer:
        container_id = self._running(call)
        command = [value for name, value in call.query if name == "command"]
        if not command:
            raise BadRequest("you must specify at least 1 command: the query parameter command is missing")
        wanted = self._wanted(call)
        url = await self._runtime.exec_url({"container_id": container_id, "cmd": command, **wanted})
        return self._command(call, url, wanted)

    async def _attach(self, call: Call) -> Answer:
        wanted = self._wanted(call)
        url = await self._runtime.attach_url({"container_id": self._running(call), **wanted})
        return self._command(call, url, wanted)

    def _wanted(self, call: Call) -> dict[str, bool]:
        tty = call.switch("tty")
        stdin, stdout = call.switch("input", "stdin"), call.switch("output", "stdout")
        stderr = call.switch("error", "stderr") and not tty
        if not (stdin or stdout or stderr):
            raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
        return {"tty": tty, "stdin": stdin, "stdout": stdout, "stderr": stderr}

    def _command(self, call: Call, url: str, wanted: Mapping[str, bool]) -> Answer:
        request = call.request
        if streams.is_websocket(request.headers):
            channels = streams.command_channels(**wanted)
            return Upgrade(
                lambda transport, rest: streams.serve_command(
                    Duplex.take_over(transport, rest), url, request.headers, request.target, channels
                )
            )
        return self._spdy(request, url)

    def _spdy(self, request: Request, url: str) -> Answer:
        if not streams.is_spdy(request.headers):
            raise BadRequest("unable to upgrade: the request must upgrade to SPDY/3.1 or websocket")
        return Upgrade(
            lambda transport, rest: streams.pass_spdy(Duplex.take_over(transport, rest), url, request.headers)
        )

    async def _port_forward(self, call: Call) -> Answer:
        request = call.request
        self._pod(call)
        sandbox = self._pods.sandbox(call.parts[1], call.parts[2])
        if sandbox is None:
            raise NotFound(f"pod {call.parts[1]}/{call.parts[2]} has no sandbox yet")
        ports = [int(p) for name, value in call.query if name in ("ports", "port") for p in value.split(",") if p]
        url = await self._runtime.port_forward_url({"pod_sandbox_id": sandbox.id, "port": ports})
        if streams.is_websocket(request.headers):
            return Upgrade(
                lambda transport, rest: streams.serve_ports(
                    Duplex.take_over(transport, rest), url, request.headers, request.target, ports
                )
            )
        return self._spdy(request, url)

    # -- finding

    def _pod(self, call: Call) -> Object:
        pod = self._pods.pod(call.parts[1], call.parts[2])
        if pod is None:
            raise NotFound(f"pod {call.parts[1]}/{call.parts[2]} is not on this node")
        return pod

    def _container(self, call: Call) -> tuple[str, str, str]:
        if len(call.parts) < 4:
            raise BadRequest("the path names no container")
        self._pod(call)
        return call.parts[1], call.parts[2], call.parts[3]

    def _running(self, call: Call) -> str:
        where = self._container(call)
        found = self._pods.container(*where)
        if found is None or found.state != RUNNING:
            raise NotFound(f'container "{where[2]}" of pod {where[0]}/{where[1]} is not running')
        return found.id
