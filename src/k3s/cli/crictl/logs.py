"""`crictl logs`: what a container wrote, each stream to its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from k3s.api import times
from k3s.base.aio import Tasks
from k3s.cli.complaint import complain
from k3s.cli.crictl.flags import UsageError
from k3s.cli.crictl.session import Failed, Session
from k3s.kubelet.logs import LogOptions, LogReader
from k3s.kubelet.runtime.interface import RuntimeFailure

# How soon the runtime knows of a process that has ended; and when to look again at a container without one to wait for.
_SETTLE_S, _LOOK_AGAIN_S = 0.02, 1.0


def since(text: str, now: float) -> float:
    """A moment in seconds since 1970: a length of time before `now`, a time, or such a number. Raises UsageError."""
    if not text:
        return 0.0
    try:
        return now - times.duration(text)
    except times.TimeError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    whole = text if "T" in text else f"{text}T00:00:00"
    try:
        return times.parse(whole if whole.endswith("Z") or whole[-6:-5] in ("+", "-") else f"{whole}Z")
    except times.TimeError:
        raise UsageError(f'failed to parse value "{text}" of --since as time or duration') from None


def previous(path: Path, attempt: int) -> Path:
    """The log of the run before, beside that of a container: files are called by the number of the run."""
    return path.with_name(f"{attempt - 1}{path.suffix}")


async def logs(session: Session) -> None:
    """Prints a container's log."""
    options, container = session.options, session.words[0]
    if options.text("stream") not in ("", "stdout", "stderr"):
        raise UsageError(f'invalid stream "{options.text("stream")}", must be "stdout" or "stderr"')
    if options.given("tail") and options.given("stream"):
        raise UsageError("--tail and --stream are mutually exclusive")
    wanted = LogOptions(
        tail=options.number("tail"),
        since=since(options.text("since"), session.clock.now()),
        timestamps=options.on("timestamps"),
        follow=options.on("follow"),
        limit=max(0, options.number("limit-bytes")),
        stream=options.text("stream"),
    )
    if options.on("reopen"):
        await session.ask("ReopenContainerLog", container_id=container)
        complain("info", "Container logs reopened", session.clock.now())
    status = (await session.ask("ContainerStatus", container_id=container))["status"]
    path = Path(status["log_path"])
    if not status["log_path"]:
        raise Failed("the container has not set log path")
    if options.on("previous"):
        attempt = status["metadata"]["attempt"]
        if not attempt:
            raise Failed(f"previous terminated container {status['metadata']['name']} not found")
        path = previous(path, attempt)
    try:
        await _read(session, path, wanted, status["id"])
    except OSError as error:
        raise Failed(f'failed to try resolving symlinks in path "{path}": {error.strerror}') from None


async def _read(session: Session, path: Path, options: LogOptions, container: str) -> None:
    if not options.follow:
        await _print(LogReader(path, options))
        return
    end = _End()
    tasks = Tasks("crictl")
    tasks.spawn(end.wait(session, container), "end")
    try:
        await _print(LogReader(path, options, lambda: end.reached, end.listen))
    finally:
        await tasks.close()


async def _print(reader: LogReader) -> None:
    async for stream, piece in reader.parts():
        out = sys.stderr if stream == "stderr" else sys.stdout
        out.buffer.write(piece)
        out.flush()


class _End:
    """When a container writes no more."""

    def __init__(self) -> None:
        self.reached = False
        self._tell: Callable[[], None] = lambda: None

    def listen(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Has `tell` called when the end is reached; answers how to stop that."""
        self._tell = tell
        return lambda: None

    async def wait(self, session: Session, container: str) -> None:
        """Until the container has ended. Its process is waited for; that the runtime has then written everything shows
        in the status, a moment later."""
        pid = await _process(session, container)
        if pid:
            await _death(pid)
        while not await _has_ended(session, container):  # noqa: ASYNC110 - the runtime has no other way to tell
            await asyncio.sleep(_SETTLE_S if pid else _LOOK_AGAIN_S)
        self.reached = True
        self._tell()


async def _process(session: Session, container: str) -> int:
    """The number of a container's first process, when the runtime tells it."""
    answer = await session.ask("ContainerStatus", container_id=container, verbose=True)
    told = answer["info"].get("info", "")
    return int(json.loads(told).get("pid", 0)) if told.startswith("{") else 0


async def _death(pid: int) -> None:
    """Until a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _has_ended(session: Session, container: str) -> bool:
    try:
        state = (await session.ask("ContainerStatus", container_id=container))["status"]["state"]
    except RuntimeFailure as failure:
        return failure.gone
    return state not in ("CONTAINER_CREATED", "CONTAINER_RUNNING")
