"""`/exec`, `/attach`, `/portforward`, `/log`, `/proxy`: passed on to nodes, pods and services."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from k3s.api.errors import BadRequest, ServiceUnavailable
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.admits import AdmissionRequest, Admits
from k3s.apiserver.call import Call
from k3s.apiserver.request import truth
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


_FLAGS = ("stdin", "stdout", "stderr", "tty")


def wishes(kind: Kind, subresource: str, query: Sequence[tuple[str, str]], rest: str) -> Object:
    """What a connection shall be, as an object for admission: PodExecOptions and the others of the core group.

    Raises BadRequest for a port that is no number.
    """
    name = kind.subresources[subresource].kind
    given: Object = {}
    if name in ("PodExecOptions", "PodAttachOptions"):
        flags: Object = {key: True for key in _FLAGS if truth(next((text for k, text in query if k == key), None))}
        container = next((text for key, text in query if key == "container"), "")
        given = {**flags, "container": container} if container else flags
        if name == "PodExecOptions":
            given["command"] = [text for key, text in query if key == "command"] or None
    elif name == "PodPortForwardOptions":
        ports = [text for key, text in query if key == "ports"]
        wrong = next((text for text in ports if not (text.isascii() and text.isdigit())), None)
        if wrong is not None:
            raise BadRequest(f'ports: "{wrong}" is no number of a port')
        given = {"ports": [int(text) for text in ports]} if ports else {}
    elif rest:
        given = {"path": rest}
    return {"kind": name, "apiVersion": kind.api_version, **given}


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
        pairs: Sequence[tuple[str, str]] = call.target.pairs
        if info.subresource != "log":
            request = AdmissionRequest(
                "CONNECT",
                call.kind,
                info.subresource,
                call.namespace,
                info.name,
                None,
                wishes(call.kind, info.subresource, pairs, info.rest),
                call.user,
                warnings=call.warnings,
                audit=call.notes,
            )
            await self._admission.validate(request)
        return await self._nodes.connect(
            call.request, call.kind, call.namespace, info.name, info.subresource, info.rest, list(pairs)
        )
