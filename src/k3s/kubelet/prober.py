"""Asking containers how they are: the drivers of probes and lifecycle hooks, and the loop of one probe."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from k3s.api.object import Object
from k3s.kubelet import probes
from k3s.kubelet.probes import Schedule, Tally
from k3s.kubelet.runtime.interface import Runtime, RuntimeFailure

# How much of an answer is shown in an event (upstream: 10 KiB of hooks; 1 KiB is enough for people).
_OUTPUT_LIMIT = 1024
_REDIRECTS = range(300, 400)


class Result(NamedTuple):
    """What one question gave: `text` says why it failed."""

    ok: bool
    text: str = ""


class Target(NamedTuple):
    """Whom to ask: the container, its id, and the address of its pod."""

    container: Object
    container_id: str
    address: str


class Prober:
    """Runs probes and hooks of all pods through one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # No certificate of a container can be checked by us: HTTPS probes only ask whether it answers.
        self._tls: ssl.SSLContext | None = None

    async def ask(self, question: Object, target: Target, timeout_s: float) -> Result:
        """Runs a probe or hook once; a failure is a Result, never an error."""
        try:
            way, arguments = probes.handler(question)
            if way == "exec":
                return await self._exec(arguments, target, timeout_s)
            if way == "sleep":
                await asyncio.sleep(float(arguments["seconds"]))
                return Result(True)
            return await asyncio.wait_for(self._network(way, arguments, target), timeout_s)
        except asyncio.TimeoutError:
            return Result(False, f"no answer within {timeout_s:g}s")
        except (OSError, ValueError) as error:
            return Result(False, str(error) or type(error).__name__)

    async def _exec(self, arguments: Any, target: Target, timeout_s: float) -> Result:
        try:
            done = await self._runtime.exec_sync(target.container_id, arguments.get("command") or [], timeout_s)
        except RuntimeFailure as failure:
            if failure.code == "DEADLINE_EXCEEDED":
                return Result(False, f"command timed out after {timeout_s:g}s")
            return Result(False, failure.message)
        return Result(done.exit_code == 0, (done.stdout + done.stderr)[:_OUTPUT_LIMIT].decode(errors="replace"))

    async def _network(self, way: str, arguments: Any, target: Target) -> Result:
        port = probes.port_number(arguments["port"], target.container)
        host = arguments.get("host") or target.address
        if way == "tcpSocket":
            _reader, writer = await asyncio.open_connection(host, port)
            writer.close()
            return Result(True)
        if way == "grpc":
            return await _grpc(target.address, port, arguments.get("service") or "")
        return await self._http(arguments, host, port)

    async def _http(self, arguments: Any, host: str, port: int) -> Result:
        secure = (arguments.get("scheme") or "HTTP") == "HTTPS"
        if secure and self._tls is None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(host, port, ssl=self._tls if secure else None)
        try:
            writer.write(_http_request(arguments, host, port))
            await writer.drain()
            status_line = (await reader.readline()).decode("latin-1")
            parts = status_line.split(" ", 2)
            if len(parts) < 2 or not parts[1].isdigit():
                return Result(False, f"malformed HTTP response {status_line.strip()!r}")
            code = int(parts[1])
            if 200 <= code < 400:
                return Result(True, "redirected" if code in _REDIRECTS else "")
            return Result(False, f"HTTP probe failed with statuscode: {code}")
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def watch(
        self,
        kind: str,
        probe: Object,
        target: Callable[[], Target],
        report: Callable[[bool, str], None],
        unhealthy: Callable[[str], None],
        first_delay_s: float,
    ) -> None:
        """Runs a probe for as long as the container lives.

        `report(ok, text)` is called for each new verdict, `unhealthy(text)` for each failure.
        """
        schedule = Schedule.of(probe)
        tally = Tally()
        await asyncio.sleep(first_delay_s)
        while True:
            result = await self.ask(probe, target(), schedule.timeout_s)
            tally, verdict = probes.count(tally, result.ok, schedule)
            if not result.ok:
                unhealthy(result.text)
            if verdict is not None:
                report(verdict, result.text)
                if kind == probes.STARTUP and verdict:
                    return
            await asyncio.sleep(schedule.period_s)


def _http_request(arguments: Any, host: str, port: int) -> bytes:
    headers = {"host": f"{host}:{port}", "user-agent": "kube-probe/1.36", "accept": "*/*", "connection": "close"}
    names = {"host": "Host", "user-agent": "User-Agent", "accept": "Accept", "connection": "Connection"}
    for header in arguments.get("httpHeaders") or ():
        # One that is given instead of ours replaces it, in whatever case it is written.
        names[header["name"].lower()] = header["name"]
        headers[header["name"].lower()] = header.get("value", "")
    path = arguments.get("path") or "/"
    lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
    lines += [f"{names[name]}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("Cannot probe: the path or a header holds a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _grpc(host: str, port: int, service: str) -> Result:
    """The gRPC health protocol: SERVING is 1."""
    from grpclib.client import Channel, UnaryUnaryMethod
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

    from k3s.base.grpc import GrpcCodec
    from k3s.base.protobuf import Codec

    codec = Codec({"Ask": {"service": [1, "string"]}, "Answer": {"status": [1, "int32"]}}, {})
    channel = Channel(host, port, codec=GrpcCodec())
    types: Any = ((codec, "Ask"), (codec, "Answer"))
    try:
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(channel, "/grpc.health.v1.Health/Check", *types)
        answer = await method({"service": service})
        code = answer["status"]
        return Result(code == 1, "" if code == 1 else f"service unhealthy (responded with {code})")
    except GRPCError as error:
        return Result(False, error.message or error.status.name)
    except (StreamTerminatedError, ProtocolError) as error:
        # Whoever listens there speaks something else, or has just gone away.
        return Result(False, str(error) or type(error).__name__)
    finally:
        channel.close()
