"""exec, attach and port-forward: from the client's protocol to the one that container runtimes serve streams with.

- SPDY/3.1 from the client: passed on as it is; the runtime speaks it itself.
- WebSocket, `v5.channel.k8s.io` or `v4.channel.k8s.io`: each message's first byte is the channel (0 stdin, 1 stdout,
  2 stderr, 3 error, 4 resize; 255 closes one, v5 only); translated to SPDY streams (KEP-4006).
- WebSocket, `SPDY/3.1+portforward.k8s.io`: SPDY inside of messages; unwrapped.
- WebSocket, `v4.channel.k8s.io` for ports: two channels a port, data and error.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from k3s.base.aio import Tasks
from k3s.base.duplex import Duplex, connect, splice, status_of
from k3s.kubelet.spdy import Data, Event, GoAway, ProtocolError, Reset, Session
from k3s.kubelet.websocket import WebSocket, choose

COMMAND_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
PORT_PROTOCOLS = (TUNNEL_PROTOCOL, "v4.channel.k8s.io")
_PORT_FORWARD = "portforward.k8s.io"

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_PIECE = 32 * 1024


def is_websocket(headers: Mapping[str, str]) -> bool:
    """True for a WebSocket upgrade."""
    return headers.get("upgrade", "").lower() == "websocket"


def is_spdy(headers: Mapping[str, str]) -> bool:
    """True for an upgrade to SPDY/3.1."""
    return headers.get("upgrade", "").lower() == "spdy/3.1"


async def open_backend(url: str, protocols: Sequence[str]) -> tuple[Duplex, bytes]:
    """Asks the runtime's stream server for SPDY; the connection and the head of its answer. Raises OSError."""
    parts = urlsplit(url)
    duplex = await connect(parts.hostname or "127.0.0.1", parts.port or 80)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
    lines += [f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols]
    await duplex.write(("\r\n".join([*lines, "Content-Length: 0", "", ""])).encode("latin-1"))
    try:
        return duplex, await duplex.read_head()
    except ConnectionError:
        duplex.close()
        raise


async def pass_spdy(client: Duplex, url: str, headers: Mapping[str, str]) -> None:
    """SPDY from end to end: the runtime's answer goes to the client, then bytes go both ways.

    Anything but 101 ends both connections: a failed upgrade never leaves one open (CVE-2018-1002105).
    """
    wanted = [p.strip() for p in headers.get("x-stream-protocol-version", "").split(",") if p.strip()]
    backend, head = await open_backend(url, wanted)
    await client.write(head)
    if status_of(head) != 101:
        await client.write(await backend.read())
        client.close()
        backend.close()
        return
    await splice(client, backend)


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a WebSocket and the SPDY stream that it stands for.

    `reads`: the client sends on it. `lasts`: the conversation goes on until the runtime has ended it. `greeting` is
    sent to the client first.
    """

    number: int
    headers: Mapping[str, str]
    reads: bool = False
    lasts: bool = True
    greeting: bytes = b""


def command_channels(*, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> list[Channel]:
    """The channels of exec and attach, for the streams that the client asked for."""
    channels = [Channel(_ERROR, {"streamType": "error"})]
    if stdin:
        channels.append(Channel(_STDIN, {"streamType": "stdin"}, reads=True, lasts=False))
    if stdout:
        channels.append(Channel(_STDOUT, {"streamType": "stdout"}))
    if stderr and not tty:
        channels.append(Channel(_STDERR, {"streamType": "stderr"}))
    if tty:
        channels.append(Channel(_RESIZE, {"streamType": "resize"}, reads=True, lasts=False))
    return channels


def port_channels(ports: Sequence[int]) -> list[Channel]:
    """Two channels a port, 2i for data and 2i+1 for errors; the first message of each is the port, little endian."""
    channels = []
    for index, port in enumerate(ports):
        common = {"port": str(port), "requestID": str(index)}
        greeting = struct.pack("<H", port)
        error = {"streamType": "error", **common}
        channels.append(Channel(2 * index + 1, error, lasts=False, greeting=greeting))
        channels.append(Channel(2 * index, {"streamType": "data", **common}, reads=True, greeting=greeting))
    return channels


async def serve_command(
    client: Duplex, url: str, headers: Mapping[str, str], target: str, channels: Sequence[Channel]
) -> None:
    """exec or attach for a WebSocket client."""
    websocket = WebSocket(client, headers, target)
    protocol = choose(websocket.offered(headers), COMMAND_PROTOCOLS)
    backend = await _accepted(client, websocket, url, "v4.channel.k8s.io", protocol)
    if backend is not None:
        await Bridge(websocket, backend, channels).run()
        client.close()


async def serve_ports(client: Duplex, url: str, headers: Mapping[str, str], target: str, ports: Sequence[int]) -> None:
    """port-forward for a WebSocket client."""
    websocket = WebSocket(client, headers, target)
    protocol = choose(websocket.offered(headers), PORT_PROTOCOLS)
    backend = await _accepted(client, websocket, url, _PORT_FORWARD, protocol)
    if backend is None:
        return
    if protocol == TUNNEL_PROTOCOL:
        await _tunnel(websocket, backend)
    else:
        await Bridge(websocket, backend, port_channels(ports)).run()
    client.close()


async def _accepted(
    client: Duplex, websocket: WebSocket, url: str, backend_protocol: str, protocol: str | None
) -> Duplex | None:
    """Answers the client once the runtime took the request; None when it refused (both ends are closed then)."""
    backend, head = await open_backend(url, [backend_protocol])
    if status_of(head) != 101:
        await client.write(head + await backend.read())
        client.close()
        backend.close()
        return None
    await websocket.accept(protocol or "")
    return backend


async def _tunnel(websocket: WebSocket, backend: Duplex) -> None:
    """SPDY inside of WebSocket messages, unwrapped and wrapped."""

    async def inwards() -> None:
        with contextlib.suppress(ConnectionError):
            while (message := await websocket.receive()) is not None:
                await backend.write(message)
        backend.close()

    tasks = Tasks("port-forward")
    tasks.spawn(inwards(), "inwards")
    try:
        while data := await backend.read():
            await websocket.send(data)
        await websocket.close(1000)
    except ConnectionError:
        return
    finally:
        await tasks.close()
        backend.close()


class Bridge:
    """Messages of a WebSocket on one side, SPDY streams of the runtime on the other."""

    def __init__(self, websocket: WebSocket, backend: Duplex, channels: Sequence[Channel]) -> None:
        self._websocket = websocket
        self._backend = backend
        self._session = Session(client=True)
        self._wanted = channels
        self._streams: dict[int, int] = {}  # channel -> stream
        self._channels: dict[int, int] = {}  # stream -> channel
        self._readable = {channel.number for channel in channels if channel.reads}
        self._open: set[int] = set()

    async def run(self) -> None:
        """Until the runtime ended every lasting stream and all was sent, or the client went."""
        for channel in self._wanted:
            stream, frame = self._session.open(channel.headers)
            self._streams[channel.number], self._channels[stream] = stream, channel.number
            if channel.lasts:
                self._open.add(stream)
            await self._backend.write(frame)
            if channel.greeting:
                await self._websocket.send(bytes([channel.number]) + channel.greeting)
        tasks = Tasks("stream")
        tasks.spawn(self._from_client(), "inwards")
        try:
            await self._from_runtime()
        finally:
            await tasks.close()
            self._backend.close()

    async def _from_client(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (message := await self._websocket.receive()) is not None:
                if message:
                    await self._message(message[0], message[1:])
        # The client went: the runtime learns by the end of its connection.
        self._backend.close()

    async def _message(self, channel: int, data: bytes) -> None:
        if channel == _CLOSE and data:
            stream = self._streams.get(data[0])
            if stream is not None:
                await self._backend.write(self._session.data(stream, b"", end=True))
            return
        if channel in self._readable:
            stream = self._streams[channel]
            for at in range(0, len(data), _PIECE):
                await self._backend.write(self._session.data(stream, data[at : at + _PIECE]))

    async def _from_runtime(self) -> None:
        try:
            while self._open and (data := await self._backend.read()):
                for event in self._session.receive(data):
                    await self._event(event)
                answers = self._session.answers()
                if answers:
                    await self._backend.write(answers)
        except ProtocolError as error:
            await self._websocket.close(1011, f"the container runtime broke the protocol: {error}")
        except ConnectionError:
            return
        await self._websocket.close(1000)

    async def _event(self, event: Event) -> None:
        if isinstance(event, Data):
            channel = self._channels.get(event.stream)
            if channel is not None and event.data:
                await self._websocket.send(bytes([channel]) + event.data)
            if event.end:
                self._open.discard(event.stream)
        elif isinstance(event, Reset):
            self._open.discard(event.stream)
        elif isinstance(event, GoAway):
            self._open.clear()
