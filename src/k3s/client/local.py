"""The transport within one process: requests go to the API server's own handler, without bytes or a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from k3s.client.answer import body_of, error_of
from k3s.client.transport import Request, Response, WatchEvent


class Handler(Protocol):
    """The API server as one identity sees it; made by the composition root.

    It checks and records like for a request from outside (law 7), and takes and gives objects, which nobody changes.
    """

    async def handle(self, request: Request) -> Response:
        """Answers a request; a failure is raised as ApiError or answered with its status."""

    def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch request; a failure is raised as ApiError."""


class LocalTransport:
    """A Transport to a handler in this process."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def send(self, request: Request) -> Response:
        """Answers a request. Raises ApiError."""
        response = await self._handler.handle(request)
        if isinstance(response.body, bytes):  # a page that is no object, such as /version: read as over the network
            response = replace(response, body=body_of(response.body, response.headers))
        if response.status >= 400:
            raise error_of(response.status, response.body, response.headers)
        return response

    def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch request. Raises ApiError."""
        return self._handler.watch(request)

    async def close(self) -> None:
        """Nothing to do: there is no connection, and a watch ends with its reader."""
