"""`crictl port-forward`: local ports that lead into a pod, a pair of streams a connection."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Sequence

from k3s.base.duplex import Duplex
from k3s.cli.crictl.flags import UsageError
from k3s.cli.crictl.session import Failed, Session
from k3s.cli.crictl.streams import connected
from k3s.kubelet import spdy

_PROTOCOL = "portforward.k8s.io"
_PIECE = 32 * 1024
_HOSTS = ("127.0.0.1", "::1")


def pairs(words: Sequence[str]) -> list[tuple[int, int]]:
    """Local and remote port of each `[LOCAL:]REMOTE`; 0 for any local one. Raises UsageError."""
    made = []
    for word in words:
        local, colon, remote = word.rpartition(":")
        numbers = (local or ("0" if colon else remote)), remote
        if not all(number.isdigit() and int(number) < 1 << 16 for number in numbers) or remote == "0":
            raise UsageError(f'invalid port format "{word}": use [LOCAL_PORT:]REMOTE_PORT')
        made.append((int(numbers[0]), int(numbers[1])))
    return made


async def port_forward(session: Session) -> None:
    """Forwards until it is interrupted or the pod's side ends."""
    if session.options.text("transport") != "spdy":
        raise UsageError(f"unknown transport: {session.options.text('transport')}: this crictl has spdy")
    pod, *wanted = session.words
    ports = pairs(wanted)
    answer = await session.ask("PortForward", pod_sandbox_id=pod, port=[remote for _, remote in ports])
    forwarding = Forwarding(await connected(answer["url"], _PROTOCOL))
    servers = []
    try:
        for local, remote in ports:
            servers += await _listen(forwarding, local, remote)
        await forwarding.run()
    finally:
        for server in servers:
            server.close()
        await forwarding.close()
    raise Failed("lost connection to pod")


async def _listen(forwarding: Forwarding, local: int, remote: int) -> list[asyncio.Server]:
    """Listens on both loopback addresses; one of them is enough."""
    servers: list[asyncio.Server] = []
    for host in _HOSTS:
        try:
            server = await asyncio.start_server(forwarding.accept(remote), host, local)
        except OSError as error:
            why = str(error)
            continue
        servers.append(server)
        local = server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(f"Forwarding from {shown}:{local} -> {remote}", flush=True)
    if not servers:
        raise Failed(f"unable to listen on port {local}: {why}")
    return servers


class Forwarding:
    """The SPDY connection that all forwarded connections share."""

    def __init__(self, backend: Duplex) -> None:
        self._backend = backend
        self._session = spdy.Session(client=True)
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._errors: dict[int, int] = {}  # stream of errors -> port
        self._requests = 0

    def accept(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        """What is done with a connection for a port of the pod."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            print(f"Handling connection for {port}", flush=True)
            common = {"port": str(port), "requestID": str(self._requests)}
            self._requests += 1
            with contextlib.suppress(ConnectionError):
                error, frame = self._session.open({"streamType": "error", **common})
                # Nothing is ever sent to the stream of errors.
                await self._backend.write(frame + self._session.data(error, b"", end=True))
                self._errors[error] = port
                stream, frame = self._session.open({"streamType": "data", **common})
                self._writers[stream] = writer
                await self._backend.write(frame)
                while data := await reader.read(_PIECE):
                    await self._backend.write(self._session.data(stream, data))
                await self._backend.write(self._session.data(stream, b"", end=True))

        return serve

    async def run(self) -> None:
        """Until the runtime ends the connection."""
        while data := await self._backend.read():
            for event in self._session.receive(data):
                if isinstance(event, spdy.GoAway):
                    return
                if isinstance(event, spdy.Data):
                    await self._data(event)
                elif isinstance(event, spdy.Reset):
                    self._end(event.stream)
            if answers := self._session.answers():
                await self._backend.write(answers)

    async def _data(self, event: spdy.Data) -> None:
        if event.stream in self._errors:
            if event.data:
                what = event.data.decode(errors="replace").strip()
                print(f"an error occurred forwarding {self._errors[event.stream]}: {what}", file=sys.stderr)
            return
        writer = self._writers.get(event.stream)
        if writer is not None and event.data:
            with contextlib.suppress(ConnectionError):
                writer.write(event.data)
                await writer.drain()
        if event.end:
            self._end(event.stream)

    def _end(self, stream: int) -> None:
        if (writer := self._writers.pop(stream, None)) is not None:
            writer.close()

    async def close(self) -> None:
        """Ends all connections."""
        for writer in self._writers.values():
            writer.close()
        self._backend.close()
