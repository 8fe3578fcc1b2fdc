"""Calls over gRPC to a program at a unix socket, with messages as plain dicts (see `base.protobuf`).

The library is grpclib; it is imported by whoever imports this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from k3s.base.protobuf import Codec

# A message's codec and its name there: grpclib hands the pair through to the codec unread.
MessageType = tuple[Codec, str]


class GrpcCodec(CodecBase):
    """Tells grpclib how messages become bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        codec, name = message_type
        return bytes(codec.encode(name, message))

    def decode(self, data: bytes, message_type: Any) -> Any:
        codec, name = message_type
        return codec.decode(name, data)


class CallFailed(Exception):
    """A call had no answer; `code` is the name of the gRPC status, such as NOT_FOUND or UNAVAILABLE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Connection:
    """A program at a unix socket, which is connected to with the first call; `who` names it in errors."""

    def __init__(self, socket: str, who: str) -> None:
        self.socket = socket
        self._who = who
        self._channel: Channel | None = None
        self._stream_channel: Channel | None = None

    async def call(
        self, path: str, types: tuple[MessageType, MessageType], request: Mapping[str, Any], timeout_s: float | None
    ) -> dict[str, Any]:
        """The answer of a method (`/package.Service/Method`); None: it may take what it takes. Raises CallFailed."""
        if self._channel is None:
            self._channel = Channel(path=self.socket, codec=GrpcCodec())
        asked, answered = types
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(self._channel, path, asked, answered)  # type: ignore[arg-type]
        what = path.rpartition("/")[2]
        try:
            return await method(request, timeout=timeout_s)  # type: ignore[no-any-return]
        except GRPCError as error:
            raise CallFailed(error.status.name, error.message or error.status.name) from None
        except asyncio.TimeoutError:
            text = f"Cannot {what}: {self._who} did not answer in {timeout_s:g} s"
            raise CallFailed("DEADLINE_EXCEEDED", text) from None
        except (OSError, StreamTerminatedError, ProtocolError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            text = f"Cannot {what}: {self._who} at {self.socket} is not reached: {why}"
            raise CallFailed("UNAVAILABLE", text) from None

    async def stream(
        self, path: str, types: tuple[MessageType, MessageType], request: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The messages of a method that goes on; None first, once it is asked. Raises what grpclib raises."""
        # A connection of its own: a long stream must not share flow control with the calls.
        if self._stream_channel is None:
            self._stream_channel = Channel(path=self.socket, codec=GrpcCodec())
        asked, answered = types
        method: UnaryStreamMethod[Any, Any] = UnaryStreamMethod(self._stream_channel, path, asked, answered)  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(method.open())
            await stream.send_message(request, end=True)
            yield None
            async for message in stream:
                yield message

    def close(self) -> None:
        """Ends the connections; the next call makes new ones."""
        for channel in (self._channel, self._stream_channel):
            if channel is not None:
                channel.close()
        self._channel = self._stream_channel = None
