"""The way to a runtime: CRI v1 over gRPC on a unix socket, messages as plain dicts by the table of the interface."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from importlib import resources
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from k3s.kubelet.runtime.codec import Codec
from k3s.kubelet.runtime.interface import RuntimeFailure

# What upstream waits for a verb that should be quick (runtimeRequestTimeout).
REQUEST_S = 120.0

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


@functools.cache
def table() -> dict[str, Any]:
    """The interface: `messages` (field -> number, type, label), `enums`, `services` (method -> request, answer)."""
    found: dict[str, Any] = json.loads(resources.files("k3s.kubelet").joinpath("data/cri.json").read_text())
    return found


class Connection:
    """A runtime at a unix socket, which is connected to with the first call."""

    def __init__(self, socket: str) -> None:
        self.socket = socket.removeprefix("unix://")
        self._codec = Codec(table()["messages"], table()["enums"])
        self._methods: dict[str, tuple[str, str, str]] = {
            method: (f"/runtime.v1.{service}/{method}", request, answer)
            for service, methods in table()["services"].items()
            for method, (request, answer) in methods.items()
        }
        self._channel: Channel | None = None
        self._stream_channel: Channel | None = None

    async def call(self, method: str, timeout_s: float | None = REQUEST_S, **request: Any) -> dict[str, Any]:
        """The answer of a verb to the fields of its request; None: it may take what it takes. Raises RuntimeFailure."""
        path, asked, answered = self._methods[method]
        if self._channel is None:
            self._channel = Channel(path=self.socket, codec=GrpcCodec())
        types: Any = ((self._codec, asked), (self._codec, answered))
        call: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(self._channel, path, *types)
        try:
            return await call(request, timeout=timeout_s)  # type: ignore[no-any-return]
        except GRPCError as error:
            raise RuntimeFailure(error.status.name, error.message or error.status.name) from None
        except asyncio.TimeoutError:
            raise RuntimeFailure(
                "DEADLINE_EXCEEDED", f"Cannot {method}: the runtime did not answer in {timeout_s:g} s"
            ) from None
        except (OSError, StreamTerminatedError, ProtocolError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            raise RuntimeFailure(
                "UNAVAILABLE", f"Cannot {method}: the runtime at {self.socket} is not reached: {why}"
            ) from None

    def stream(self, method: str, **request: Any) -> AsyncIterator[dict[str, Any] | None]:
        """The messages of a verb that goes on; None first, once it is asked. Raises what grpclib raises."""
        path, asked, answered = self._methods[method]
        return self.stream_of(path, ((self._codec, asked), (self._codec, answered)), request)

    async def stream_of(
        self, path: str, types: tuple[MessageType, MessageType], request: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The same for a verb of another service at this socket."""
        # A connection of its own: a long stream must not share flow control with the verbs.
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
