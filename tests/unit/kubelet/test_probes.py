"""Thresholds and times of probes, and what is asked over a real socket."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.kubelet.pods import spec

from k3s.base.clock import SystemClock
from k3s.kubelet import probes
from k3s.kubelet.prober import Prober, Target
from k3s.kubelet.probes import Schedule, Tally
from k3s.kubelet.runtime.fake import FakeRuntime


def test_thresholds():
    """Three failures in a row decide, one success decides; the same verdict is told once."""
    schedule = Schedule.of({"failureThreshold": 3})
    tally, told = Tally(), []
    for ok in (True, True, False, False, True, False, False, False, False, True):
        tally, verdict = probes.count(tally, ok, schedule)
        told.append(verdict)
    assert told == [True, None, None, None, None, None, None, False, None, True]


def test_first_delay():
    """The initial delay counts from the start of the container; adopted containers are spread."""
    schedule = Schedule.of({"initialDelaySeconds": 10, "periodSeconds": 20})
    assert probes.first_delay(schedule, "liveness", 4, 0.5, adopted=False) == 6
    assert probes.first_delay(schedule, "liveness", 99, 0.5, adopted=True) == 10
    assert probes.first_delay(schedule, "startup", 99, 0.5, adopted=True) == 0


def test_ports():
    """A port is a number or the name of one of the container's ports."""
    container = spec(ports=[{"name": "http", "containerPort": 8080}])
    assert probes.port_number("http", container) == probes.port_number(8080, container) == 8080
    with pytest.raises(ValueError, match="no port named 'x'"):
        probes.port_number("x", container)


@pytest.mark.parametrize(
    ("answer", "ok", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", True, "redirected"),
        (b"HTTP/1.1 503 No\r\n\r\n", False, "HTTP probe failed with statuscode: 503"),
        (b"nonsense\r\n", False, "malformed HTTP response 'nonsense'"),
        (b"", False, "malformed HTTP response ''"),
    ],
)
def test_http_and_tcp(run, answer, ok, text):
    """Codes from 200 to 399 are a success; the request names path, host and headers."""

    async def body() -> None:
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.read(1000))
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        prober = Prober(FakeRuntime(SystemClock()))
        target = Target(spec(), "x", "127.0.0.1")
        probe = {"httpGet": {"port": port, "path": "/live", "httpHeaders": [{"name": "X-A", "value": "1"}]}}
        assert await prober.ask(probe, target, 5) == (ok, text)
        assert asked[0].startswith(b"GET /live HTTP/1.1\r\n") and b"X-A: 1\r\n" in asked[0]
        assert (await prober.ask({"tcpSocket": {"port": port}}, target, 5)).ok
        server.close()
        refused = await prober.ask({"tcpSocket": {"port": 1}}, target, 5)
        assert not refused.ok and refused.text

    run(body())


def test_a_probe_replaces_headers_and_breaks_no_lines(run):
    """Host in any case stands once; a header that would begin another is refused as a failed probe."""

    async def body() -> None:
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.read(1000))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        prober, target = Prober(FakeRuntime(SystemClock())), Target(spec(), "x", "127.0.0.1")

        async def ask(name: str, value: str) -> bool:
            probe = {"httpGet": {"port": port, "httpHeaders": [{"name": name, "value": value}]}}
            return (await prober.ask(probe, target, 5)).ok

        assert await ask("host", "example.org")
        assert asked[0].lower().count(b"host:") == 1 and b"host: example.org\r\n" in asked[0]
        assert not await ask("X", "1\r\nEvil: 2") and not any(asked[1:])
        server.close()

    run(body())


def test_a_grpc_probe_of_something_else_fails(run):
    """A server that speaks no gRPC, or hangs up, is a failed probe and not the end of the probe."""

    async def body() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = await Prober(FakeRuntime(SystemClock())).ask(
            {"grpc": {"port": port}}, Target(spec(), "x", "127.0.0.1"), 5
        )
        assert not found.ok and found.text
        server.close()

    run(body())
