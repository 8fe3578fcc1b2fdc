"""The name server on a real socket: cluster names, upstream servers that behave and that do not, TCP, damage."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dnslib
import pytest
from tests.fakes.objects import Objects, informers

from k3s.api.kinds import builtin
from k3s.base.aio import Tasks
from k3s.base.entropy import SeededEntropy
from k3s.dns.service import Config, Dns
from k3s.dns.upstream import Upstream

Run = Callable[[Coroutine[Any, Any, Any]], Any]
SERVICE = builtin("v1", "Service")
SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
NODE = builtin("v1", "Node")
WEB = {"metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.43.0.20", "ports": []}}


class World(asyncio.DatagramProtocol):
    """An upstream name server on 127.0.0.x: UDP and TCP on one port, with answers from a zone text."""

    def __init__(self, zone: str = "", *, silent: bool = False, truncates: bool = False, rcode: int = 0) -> None:
        self.records = dnslib.RR.fromZone(zone)
        self.silent, self.truncates, self.rcode = silent, truncates, rcode
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = self.reply(data)
        if self.silent:
            return
        if self.truncates:
            reply.header.tc = 1
            reply.rr = []
        forged = dnslib.DNSRecord.parse(reply.pack())
        forged.header.id = (reply.header.id + 1) % 65536
        forged.add_answer(*dnslib.RR.fromZone(f"{reply.q.qname} 60 A 6.6.6.6"))
        self.transport.sendto(forged.pack(), addr)
        self.transport.sendto(b"not dns", addr)
        self.transport.sendto(reply.pack(), addr)

    def reply(self, data: bytes) -> dnslib.DNSRecord:
        """What the server knows about the question."""
        query = dnslib.DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        reply = query.reply()
        same = [each for each in self.records if each.rname == query.q.qname and each.rtype == query.q.qtype]
        for each in same:
            reply.add_answer(each)
        reply.header.rcode = self.rcode or (0 if same else 3)
        if not same and not self.rcode:
            reply.add_auth(*dnslib.RR.fromZone(". 60 SOA ns. me. 1 2 3 4 20"))
        return reply

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question over TCP."""
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.reply(data).pack()
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()


class Bench:
    """A running server with its objects and upstream servers."""

    def __init__(self, dns: Dns, objects: Objects, resolv_conf: Path) -> None:
        self.dns, self.objects, self.resolv_conf = dns, objects, resolv_conf

    async def ask(self, name: str, type: str = "A", *, tcp: bool = False, edns: bool = False) -> dnslib.DNSRecord:
        """The reply to one question."""
        query = dnslib.DNSRecord.question(name, type)
        if edns:
            query.add_ar(dnslib.EDNS0(udp_len=1232))
        data = await self.raw(bytes(query.pack()), tcp)
        reply = dnslib.DNSRecord.parse(data)
        assert reply.header.id == query.header.id
        return reply

    async def raw(self, data: bytes, tcp: bool = False) -> bytes:
        """The reply's bytes."""
        if tcp:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.dns.port)
            writer.write(len(data).to_bytes(2, "big") + data)
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            writer.close()
            return reply
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", self.dns.port))
            await loop.sock_sendall(client, data)
            return await asyncio.wait_for(loop.sock_recv(client, 65535), 10)


@asynccontextmanager
async def running(folder: Path, *upstreams: World) -> AsyncIterator[Bench]:
    """A name server with these upstream servers on 127.0.0.2 and so on."""
    loop = asyncio.get_running_loop()
    tasks = Tasks("test")
    objects = Objects()
    await objects.put(SERVICE, WEB)
    port = 0
    closers: list[Any] = []
    for number, each in enumerate(upstreams):
        server = await asyncio.start_server(each.stream, f"127.0.0.{number + 2}", port)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(
            lambda each=each: each, local_addr=(f"127.0.0.{number + 2}", port)
        )
        closers += [server, transport]
    resolv_conf = folder / "resolv.conf"
    names = "".join(f"nameserver 127.0.0.{number + 2}\n" for number in range(len(upstreams)))
    resolv_conf.write_text(f"nameserver 127.0.0.1 # ourselves\n{names}")
    upstream = Upstream(resolv_conf, ("127.0.0.1",), SeededEntropy(1), port)
    async with informers(objects, SERVICE, SLICE, NODE) as sources:
        dns = Dns(Config(("127.0.0.1",), port=0), upstream, *sources)
        ready = asyncio.Event()
        tasks.spawn(dns.run(ready.set), "dns")
        await ready.wait()
        try:
            yield Bench(dns, objects, resolv_conf)
        finally:
            await tasks.close()
            for each in closers:
                each.close()


def test_cluster_names_over_udp_and_tcp(run: Run, tmp_path: Path) -> None:
    """Names are there once ready, a change shows, TCP and UDP say the same."""

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            for tcp in (False, True):
                reply = await bench.ask("web.default.svc.cluster.local", tcp=tcp)
                assert [str(each.rdata) for each in reply.rr] == ["10.43.0.20"]
            changed = {**WEB, "spec": {"clusterIP": "10.43.0.21", "ports": []}}
            await bench.objects.put(SERVICE, changed)
            while str((await bench.ask("web.default.svc.cluster.local")).rr[0].rdata) != "10.43.0.21":
                pass  # each question lets the change come through
            await bench.objects.drop(SERVICE, "default/web")
            while (await bench.ask("web.default.svc.cluster.local")).header.rcode != 3:
                pass  # each question lets the change come through

    run(scenario())


def test_other_names_come_from_upstream(run: Run, tmp_path: Path) -> None:
    """Asked once, then known for a while, positive and negative; forged replies do not count."""

    async def scenario() -> None:
        world = World("example.org. 600 A 198.51.100.7")
        async with running(tmp_path, world) as bench:
            for name in ("example.org", "EXAMPLE.org"):
                reply = await bench.ask(name, edns=True)
                assert [str(each.rdata) for each in reply.rr] == ["198.51.100.7"]
                assert reply.rr[0].ttl <= 30 and str(reply.q.qname) == f"{name}."
            for _ in range(2):
                assert (await bench.ask("no.example.org")).header.rcode == 3
            assert world.asked == ["example.org.", "no.example.org."]

    run(scenario())


def test_many_clients_with_one_question(run: Run, tmp_path: Path) -> None:
    """Who asks the same at the same time waits together."""

    async def scenario() -> None:
        world = World("example.org. 600 A 198.51.100.7")
        async with running(tmp_path, world) as bench:
            replies = await asyncio.gather(*(bench.ask("example.org") for _ in range(20)))
            assert all(len(each.rr) == 1 for each in replies)
            assert world.asked == ["example.org."]

    run(scenario())


@pytest.mark.slow
def test_a_silent_server_costs_little(run: Run, tmp_path: Path) -> None:
    """The next server is asked as well, and from then on first."""

    async def scenario() -> None:
        silent, good = World(silent=True), World("a.example. 600 A 198.51.100.7\nb.example. 600 A 198.51.100.8")
        async with running(tmp_path, silent, good) as bench:
            assert len((await bench.ask("a.example")).rr) == 1
            assert len((await bench.ask("b.example")).rr) == 1
            assert (silent.asked, good.asked) == (["a.example."], ["a.example.", "b.example."])

    run(scenario())


def test_a_failing_server_is_passed_over(run: Run, tmp_path: Path) -> None:
    """SERVFAIL of one server is not the last word; SERVFAIL of all is the answer, told once in the log."""

    async def scenario() -> None:
        bad, good = World(rcode=2), World("a.example. 600 A 198.51.100.7")
        async with running(tmp_path, bad, good) as bench:
            assert len((await bench.ask("a.example")).rr) == 1
            good.rcode = 5
            assert (await bench.ask("b.example")).header.rcode == 2

    run(scenario())


def test_without_upstream(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only our own address in resolv.conf: SERVFAIL at once and a reason; a file that changes is read again."""

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            assert (await bench.ask("example.org")).header.rcode == 2
            assert "resolv.conf names no name server" in caplog.records[-1].reason  # type: ignore[attr-defined]
            bench.resolv_conf.unlink()
            assert (await bench.ask("example.org")).header.rcode == 2

    run(scenario())


def test_a_truncated_reply_is_fetched_over_tcp(run: Run, tmp_path: Path) -> None:
    """What upstream could not say over UDP is asked again over TCP, and fits or is cut for our client."""

    async def scenario() -> None:
        many = "\n".join(f"many.example. 600 A 198.51.100.{number}" for number in range(60))
        async with running(tmp_path, World(many, truncates=True)) as bench:
            assert len((await bench.ask("many.example", tcp=True)).rr) == 60
            assert len((await bench.ask("many.example", edns=True)).rr) == 60
            short = await bench.ask("many.example")
            assert (short.header.tc, len(short.rr)) == (1, 0)

    run(scenario())


def test_external_names_are_followed(run: Run, tmp_path: Path) -> None:
    """A service that is an alias answers with the alias and what upstream says of its target."""

    async def scenario() -> None:
        spec = {"type": "ExternalName", "externalName": "example.org"}
        async with running(tmp_path, World("example.org. 600 A 198.51.100.7")) as bench:
            await bench.objects.put(SERVICE, {"metadata": {"namespace": "default", "name": "far"}, "spec": spec})
            reply = await bench.ask("far.default.svc.cluster.local")
            while not reply.rr:
                reply = await bench.ask("far.default.svc.cluster.local")
            assert [str(each.rdata) for each in reply.rr] == ["example.org.", "198.51.100.7"]
            assert [str(each.rname) for each in reply.rr] == ["far.default.svc.cluster.local.", "example.org."]

    run(scenario())


def test_damaged_messages(run: Run, tmp_path: Path) -> None:
    """FORMERR for what can be told so; silence for replies, which must never be answered."""

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            data = await bench.raw(b"\x12\x34\x01\0\0\x02\0\0\0\0\0\0")
            assert (data[:2], data[3] & 0xF) == (b"\x12\x34", 1)
            sent: list[bytes] = []
            bench.dns.respond(data, sent.append)
            bench.dns.respond(b"short", sent.append)
            assert sent == []

    run(scenario())


@pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed")
def test_dig(run: Run, tmp_path: Path) -> None:
    """The usual tool gets a clean answer."""

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            process = await asyncio.create_subprocess_exec(
                *("dig", "@127.0.0.1", "-p", str(bench.dns.port), "+noall", "+answer", "+comments"),
                "web.default.svc.cluster.local",
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
            assert b"status: NOERROR" in output and b"10.43.0.20" in output
            # It warns of every name that ends so.
            warnings = [line for line in output.splitlines() if b"WARNING" in line]
            assert warnings in ([], [b";; WARNING: .local is reserved for Multicast DNS"]), warnings

    run(scenario())
