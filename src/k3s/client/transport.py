"""The seam between the client's verbs and the server: one request, one answer, or a stream of watch events.

Two implementations (law 7): `local` hands the request to the API server's pipeline in this process, `https` sends it.
Both pass the same contract tests; the simulation wraps either in faults.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from k3s.api.object import Object


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the API. `body` is an object (or any JSON value); a transport that needs bytes encodes it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    accept: str = "application/json"


@dataclass(frozen=True, slots=True)
class Response:
    """The answer: for JSON the decoded value (never to be changed), for anything else the bytes."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class WatchEvent(NamedTuple):
    """One change: type is ADDED, MODIFIED, DELETED or BOOKMARK (ERROR is raised as an ApiError instead)."""

    type: str
    object: Object


class Transport(Protocol):
    """How requests reach the API server."""

    async def send(self, request: Request) -> Response:
        """Answers a request that is no watch.

        Raises ApiError for an answer that is a failure, OutcomeUnknown when the connection broke after sending, and
        ServiceUnavailable when the server was not reached at all.
        """

    def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch request, until the server ends it; raises like `send` (Expired: list again)."""

    async def close(self) -> None:
        """Ends every connection."""
