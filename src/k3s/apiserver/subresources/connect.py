"""`/exec`, `/attach`, `/portforward`, `/log`, `/proxy`: passed on to nodes, pods and services."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from k3s.api.errors import ServiceUnavailable
from k3s.api.kinds import Kind
from k3s.apiserver.admits import AdmissionRequest, Admits
from k3s.apiserver.call import Call
from k3s.apiserver.results import Result
from k3s.base.message import Answer, Request


class NodeDialer(Protocol):
    """What reaches nodes (see `apiserver.nodes`)."""

    async def connect(
        self,
        request: Request,
        kind: Kind,
        namespace: str,
        name: str,
        subresource: str,
        rest: str,
        query: list[tuple[str, str]],
    ) -> Answer:
        """Answers a request on a connecting subresource; raises ApiError."""


class Connect:
    """Hands the request over."""

    def __init__(self, nodes: NodeDialer | None, admission: Admits) -> None:
        self._nodes = nodes
        self._admission = admission

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        return self._connect(call)

    async def _connect(self, call: Call) -> Answer:
        info = call.target.info
        if self._nodes is None:
            raise ServiceUnavailable(f"Cannot reach {call.kind.plural}/{info.subresource}: this server knows no nodes")
        if info.subresource != "log":
            request = AdmissionRequest(
                "CONNECT", call.kind, info.subresource, call.namespace, info.name, None, None, call.user
            )
            await self._admission.validate(request)
        pairs: Sequence[tuple[str, str]] = call.target.pairs
        return await self._nodes.connect(
            call.request, call.kind, call.namespace, info.name, info.subresource, info.rest, list(pairs)
        )
