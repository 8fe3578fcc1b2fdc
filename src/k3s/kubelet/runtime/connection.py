"""The way to a runtime: CRI v1 over gRPC on a unix socket, messages as plain dicts by the table of the interface."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import Any

from k3s.base import grpc
from k3s.base.protobuf import Codec
from k3s.kubelet.runtime.interface import RuntimeFailure

# What upstream waits for a verb that should be quick (runtimeRequestTimeout).
REQUEST_S = 120.0


@functools.cache
def table() -> dict[str, Any]:
    """The interface: `messages` (field -> number, type, label), `enums`, `services` (method -> request, answer)."""
    found: dict[str, Any] = json.loads(resources.files("k3s.kubelet").joinpath("data/cri.json").read_text())
    return found


class Connection:
    """A runtime at a unix socket, which is connected to with the first call."""

    def __init__(self, socket: str) -> None:
        self.socket = socket.removeprefix("unix://")
        self._there = grpc.Connection(self.socket, "the runtime")
        self._codec = Codec(table()["messages"], table()["enums"])
        self._methods: dict[str, tuple[str, str, str]] = {
            method: (f"/runtime.v1.{service}/{method}", request, answer)
            for service, methods in table()["services"].items()
            for method, (request, answer) in methods.items()
        }

    async def call(self, method: str, timeout_s: float | None = REQUEST_S, **request: Any) -> dict[str, Any]:
        """The answer of a verb to the fields of its request; None: it may take what it takes. Raises RuntimeFailure."""
        path, asked, answered = self._methods[method]
        try:
            return await self._there.call(path, ((self._codec, asked), (self._codec, answered)), request, timeout_s)
        except grpc.CallFailed as failure:
            raise RuntimeFailure(failure.code, failure.message) from None

    def stream(self, method: str, **request: Any) -> AsyncIterator[dict[str, Any] | None]:
        """The messages of a verb that goes on; None first, once it is asked. Raises what grpclib raises."""
        path, asked, answered = self._methods[method]
        return self.stream_of(path, ((self._codec, asked), (self._codec, answered)), request)

    def stream_of(
        self, path: str, types: tuple[grpc.MessageType, grpc.MessageType], request: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The same for a verb of another service at this socket."""
        return self._there.stream(path, types, request)

    def close(self) -> None:
        """Ends the connections; the next call makes new ones."""
        self._there.close()
