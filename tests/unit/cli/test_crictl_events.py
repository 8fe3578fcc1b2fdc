"""`crictl events` from a runtime that tells its events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from k3s.base.clock import SystemClock
from k3s.base.grpc import GrpcCodec
from k3s.base.protobuf import Codec
from k3s.cli.crictl import node
from k3s.cli.crictl.flags import parse
from k3s.cli.crictl.session import Failed, Session
from k3s.cli.crictl.settings import Settings
from k3s.cli.crictl.verbs import VERBS
from k3s.kubelet.runtime.connection import Connection, table

_VERB = next(verb for verb in VERBS if verb.name == "events")


class Runtime:
    """Tells two events, then ends the stream; an old one refuses."""

    def __init__(self, *, old: bool = False) -> None:
        self._old = old

    def __mapping__(self) -> dict[str, Handler]:
        codec = Codec(table()["messages"], table()["enums"])

        async def events(stream: Any) -> None:
            await stream.recv_message()
            if self._old:
                raise GRPCError(Status.UNIMPLEMENTED, "unknown method")
            for kind in ("CONTAINER_CREATED_EVENT", "CONTAINER_STOPPED_EVENT"):
                await stream.send_message({"container_id": "c1", "container_event_type": kind, "created_at": 7})

        types = (codec, "GetEventsRequest"), (codec, "ContainerEventResponse")
        return {"/runtime.v1.RuntimeService/GetContainerEvents": Handler(events, Cardinality.UNARY_STREAM, *types)}


async def _events(folder: Path, words: list[str], service: Runtime) -> None:
    server = Server([service], codec=GrpcCodec())
    await server.start(path=str(folder / "runtime.sock"))
    runtime = Connection(str(folder / "runtime.sock"))
    options, _ = parse(words, _VERB.flags, {})
    try:
        await node.events(Session(runtime, runtime, options, [], Settings(), Path("/none"), SystemClock()))
    finally:
        runtime.close()
        server.close()
        await server.wait_closed()


def test_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document an event, in the format that was asked for."""
    asyncio.run(_events(tmp_path, [], Runtime()))
    first, rest = capsys.readouterr().out.split("}\n", 1)
    assert json.loads(first + "}")["containerEventType"] == "CONTAINER_CREATED_EVENT"
    assert json.loads(rest)["createdAt"] == "7"
    template = "{{.containerId}} {{.containerEventType}}"
    asyncio.run(_events(tmp_path, ["-o", "go-template", "--template", template], Runtime()))
    assert capsys.readouterr().out.splitlines()[1] == "c1 CONTAINER_STOPPED_EVENT"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "table"], 'don\'t support "table" format'),
        (["--template", "{{.}}"], 'template can\'t be used with "json" format'),
        ([], "getting container events: rpc error: code = Unimplemented desc = unknown method"),
    ],
)
def test_events_that_are_not_to_be_had(tmp_path: Path, words: list[str], told: str) -> None:
    """It is said why."""
    with pytest.raises(Failed, match=told):
        asyncio.run(_events(tmp_path, words, Runtime(old=True)))
