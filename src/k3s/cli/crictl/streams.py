"""`crictl exec`, `attach` and `port-forward`: SPDY to the runtime's stream server, without an API server between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from k3s.base.aio import Tasks
from k3s.base.duplex import Duplex, status_of
from k3s.cli.crictl import containers, terminal
from k3s.cli.crictl.flags import UsageError
from k3s.cli.crictl.session import Failed, Session, each, reason
from k3s.kubelet import spdy
from k3s.kubelet.runtime.interface import RuntimeFailure
from k3s.kubelet.streams import open_backend

_COMMAND_PROTOCOL = "v4.channel.k8s.io"
_CHOOSING = ("name", "pod", "image", "state", "label", "latest", "last")


async def connected(url: str, protocol: str) -> Duplex:
    """The upgraded connection. Raises Failed."""
    try:
        backend, head = await open_backend(url, [protocol])
    except OSError as error:
        raise Failed(f"unable to upgrade connection: {error}") from None
    if status_of(head) != 101:
        body = await backend.read()
        backend.close()
        raise Failed(f"unable to upgrade connection: {body.decode(errors='replace').strip()}")
    return backend


def exit_code(status: bytes) -> tuple[int, str]:
    """How a command ended, by the Status that closes its error stream: its code, and what to say."""
    try:
        value: dict[str, Any] = json.loads(status or b'{"status": "Success"}')
    except ValueError:
        return 1, status.decode(errors="replace")
    if value.get("status") == "Success":
        return 0, ""
    causes = (value.get("details") or {}).get("causes") or ()
    codes = [cause.get("message", "") for cause in causes if cause.get("reason") == "ExitCode"]
    if value.get("reason") == "NonZeroExitCode" and codes and codes[0].isdigit():
        return int(codes[0]), f"command terminated with exit code {codes[0]}"
    return 1, str(value.get("message") or value.get("reason") or "the stream failed")


class Conversation:
    """One command's streams, from this process's own files to the runtime's SPDY streams."""

    def __init__(self, backend: Duplex, *, stdin: bool, tty: bool) -> None:
        self._backend = backend
        self._session = spdy.Session(client=True)
        self._stdin, self._tty = stdin, tty
        self._streams: dict[str, int] = {}
        self._error = bytearray()
        self._detached = False
        self._resized = asyncio.Event()

    async def run(self) -> tuple[int, str]:
        """Until the command has ended or the person has left; its exit code and what to say."""
        kinds = ["error", *(["stdin"] if self._stdin else []), "stdout", "resize" if self._tty else "stderr"]
        for kind in kinds:
            self._streams[kind], frame = self._session.open({"streamType": kind})
            await self._backend.write(frame)
        tasks = Tasks("crictl")
        with ExitStack() as stack:
            if self._tty:
                stack.enter_context(terminal.raw(0))
                stack.enter_context(terminal.on_resize(self._resized.set))
                self._resized.set()
                tasks.spawn(self._resize(), "resize")
            if self._stdin:
                tasks.spawn(self._type(), "stdin")
            try:
                await self._receive({self._streams[kind] for kind in kinds if kind not in ("stdin", "resize")})
            finally:
                await tasks.close()
                self._backend.close()
        return (0, "") if self._detached else exit_code(bytes(self._error))

    async def _type(self) -> None:
        stream, held = self._streams["stdin"], b""
        with contextlib.suppress(ConnectionError):
            async for data in terminal.pieces(0):
                if self._tty:
                    data, held = held + data, b""
                    if terminal.DETACH in data:
                        self._detached = True
                        self._backend.close()
                        return
                    if data.endswith(terminal.DETACH[:1]):
                        data, held = data[:-1], data[-1:]
                if data:
                    await self._backend.write(self._session.data(stream, data))
            await self._backend.write(self._session.data(stream, b"", end=True))

    async def _resize(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self._resized.wait()
                self._resized.clear()
                await self._backend.write(self._session.data(self._streams["resize"], terminal.size(0)))

    async def _receive(self, open_: set[int]) -> None:
        outs = {self._streams["stdout"]: sys.stdout, self._streams.get("stderr"): sys.stderr}
        while open_ and (data := await self._backend.read()):
            for event in self._session.receive(data):
                if isinstance(event, spdy.Data):
                    if event.stream == self._streams["error"]:
                        self._error += event.data
                    elif event.data and (out := outs.get(event.stream)) is not None:
                        out.buffer.write(event.data)
                        out.flush()
                if isinstance(event, spdy.GoAway):
                    open_.clear()
                elif isinstance(event, spdy.Reset) or (isinstance(event, spdy.Data) and event.end):
                    open_.discard(event.stream)
            if answers := self._session.answers():
                await self._backend.write(answers)


async def _stream(session: Session, method: str, request: Mapping[str, Any]) -> tuple[int, str]:
    """Asks for the address of the streams and talks there."""
    if request["tty"]:
        if not request["stdin"]:
            raise UsageError("tty=true must be specified with interactive=true")
        if not os.isatty(0):
            raise Failed("input is not a terminal")
    if session.options.text("transport") != "spdy":
        raise UsageError(f"unknown transport: {session.options.text('transport')}: this crictl has spdy")
    answer = await session.ask(method, **request)
    backend = await connected(answer["url"], _COMMAND_PROTOCOL)
    return await Conversation(backend, stdin=request["stdin"], tty=request["tty"]).run()


async def exec_(session: Session) -> None:
    """Runs a command in a container, or in all that the options choose."""
    options = session.options
    chosen = any(options.given(name) for name in _CHOOSING)
    ids = [item["id"] for item in await containers.find(session)] if chosen else session.words[:1]
    command = session.words if chosen else session.words[1:]
    if not ids:
        raise Failed("No containers found per filter flags")
    if not command:
        raise UsageError("name the container and the command")
    code = 0

    async def one(container: str) -> None:
        nonlocal code
        if chosen and not options.on("quiet") and not options.on("parallel"):
            print(f"{container}:", flush=True)
        told, why = await (_run_sync if options.on("sync") else _run)(session, container, command)
        if told:
            code = code or told
            raise Failed(f"execing command in container {container}: {why}", told)

    try:
        if options.on("parallel") or len(ids) == 1:
            await each(ids, one)
        else:
            for container in ids:
                await one(container)
    except Failed as failure:
        if not options.on("ignore-errors"):
            raise Failed(str(failure), code or failure.code) from None


async def _run(session: Session, container: str, command: list[str]) -> tuple[int, str]:
    tty, stdin = session.options.on("tty"), session.options.on("interactive")
    request = {"container_id": container, "cmd": command, "tty": tty, "stdin": stdin, "stdout": True, "stderr": not tty}
    return await _stream(session, "Exec", request)


async def _run_sync(session: Session, container: str, command: list[str]) -> tuple[int, str]:
    timeout = session.options.number("timeout")
    try:
        limit_s = timeout + 5.0 if timeout else None
        answer = await session.ask("ExecSync", limit_s, container_id=container, cmd=command, timeout=timeout)
    except RuntimeFailure as failure:
        return 1, reason(failure)
    for out, text in ((sys.stdout, answer["stdout"]), (sys.stderr, answer["stderr"])):
        out.buffer.write(text)
        out.flush()
    code = int(answer["exit_code"])
    return code, f"command terminated with exit code {code}"


async def attach(session: Session) -> None:
    """Joins the streams of a running container."""
    tty, stdin = session.options.on("tty"), session.options.on("stdin")
    request = {"container_id": session.words[0], "tty": tty, "stdin": stdin, "stdout": True, "stderr": not tty}
    code, why = await _stream(session, "Attach", request)
    if code:
        raise Failed(f"attaching running container failed: {why}", code)
