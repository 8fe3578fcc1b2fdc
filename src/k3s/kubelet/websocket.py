"""The server's side of a WebSocket on a connection whose upgrade request was read already (framing: wsproto)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.base.duplex import Duplex

# One message of a stream client; larger ones are sent in pieces by every client that we know.
_MAX_MESSAGE = 4 * 1024 * 1024


class WebSocket:
    """Messages over a connection. `receive` answers None once the client has closed."""

    def __init__(self, duplex: Duplex, headers: Mapping[str, str], target: str) -> None:
        # Only those who open a stream pay for the import.
        from wsproto import ConnectionType, WSConnection

        self._duplex = duplex
        self._connection = WSConnection(ConnectionType.SERVER)
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._connection.initiate_upgrade_connection(pairs, target)
        self._events: list[Any] = list(self._connection.events())
        self._message: bytearray | None = None
        self.closed = False

    @staticmethod
    def offered(headers: Mapping[str, str]) -> list[str]:
        """The subprotocols that a client offers, in its order."""
        return [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",") if p.strip()]

    async def accept(self, subprotocol: str) -> None:
        """Answers the upgrade request."""
        from wsproto.events import AcceptConnection

        self._events.clear()
        await self._duplex.write(self._connection.send(AcceptConnection(subprotocol=subprotocol or None)))

    async def receive(self) -> bytes | None:
        """The next message; a text message comes as its UTF-8 bytes."""
        from wsproto.utilities import RemoteProtocolError

        while not self.closed:
            for event in self._next_events():
                message = await self._handle(event)
                if message is not None:
                    return message
            if self.closed:
                break
            data = await self._duplex.read()
            try:
                self._connection.receive_data(data or None)
            except RemoteProtocolError:
                self.closed = True
        return None

    def _next_events(self) -> Any:
        while True:
            if not self._events:
                self._events = list(self._connection.events())
                if not self._events:
                    return
            yield self._events.pop(0)

    async def _handle(self, event: Any) -> bytes | None:
        from wsproto import events
        from wsproto.frame_protocol import CloseReason

        if isinstance(event, (events.BytesMessage, events.TextMessage)):
            data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            self._message = (self._message or bytearray()) + data
            if len(self._message) > _MAX_MESSAGE:
                await self.close(1009, "message too large")
                return None
            if event.message_finished:
                message, self._message = bytes(self._message), None
                return message
        elif isinstance(event, events.Ping):
            await self._duplex.write(self._connection.send(event.response()))
        elif isinstance(event, events.CloseConnection) and not self.closed:
            self.closed = True
            # A connection that broke off without a goodbye (1006) is told none either.
            if event.code != CloseReason.ABNORMAL_CLOSURE:
                await self._duplex.write(self._connection.send(event.response()))
        return None

    async def send(self, data: bytes) -> None:
        """Sends a binary message. Raises ConnectionError when the connection is gone."""
        from wsproto.events import BytesMessage

        if not self.closed:
            await self._duplex.write(self._connection.send(BytesMessage(data=data)))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Says goodbye; 1000 is the normal end, 1011 an error of ours (RFC 6455, section 7.4)."""
        from wsproto.events import CloseConnection

        if self.closed:
            return
        self.closed = True
        try:
            await self._duplex.write(self._connection.send(CloseConnection(code=code, reason=reason)))
        except ConnectionError:
            return


def choose(offered: Sequence[str], served: Sequence[str]) -> str | None:
    """The first subprotocol of the client's that is served; None when there is none."""
    return next((p for p in offered if p in served), None)
