"""The agent as a child: it says when it is ready, stops at the end of its pipe, and is started again when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from k3s.base.aio import Tasks
from k3s.run import child
from k3s.run.child import CHILD, READY_LINE, AgentProcess

# Stands for the agent: notes its session, says ready, and ends in order at the end of its standard input.
_AGENT = f"""
import os, sys
assert os.environ[{CHILD!r}] == "1"
assert os.getsid(0) == os.getpid()
os.write(1, {READY_LINE!r})
sys.stdin.read()
open(os.environ["NOTE"], "w").write("in order")
"""


class Substitute(AgentProcess):
    """Runs a few lines of Python in place of the agent."""

    def __init__(self, program: str, note: Path) -> None:
        super().__init__([], {**os.environ, "NOTE": str(note)})
        self._command = [self._command[0], "-c", program]


def test_it_stops_in_order_without_signals(run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path) -> None:
    """At the end the pipe is closed and the agent has its time; nothing else is sent that could count twice."""

    async def story() -> None:
        agent, tasks, ready = Substitute(_AGENT, tmp_path / "note"), Tasks("test"), asyncio.Event()
        tasks.spawn(agent.run(ready.set), "agent")
        await asyncio.wait_for(ready.wait(), 20)
        await tasks.close()
        assert (tmp_path / "note").read_text() == "in order"

    run(story())


def test_it_is_started_again(
    run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed agent comes back as another process."""
    monkeypatch.setattr(child, "_FIRST_BACKOFF_S", 0.01)

    async def story() -> None:
        agent, tasks = Substitute(_AGENT, tmp_path / "note"), Tasks("test")
        said: asyncio.Queue[int] = asyncio.Queue()
        tasks.spawn(agent.run(lambda: said.put_nowait(agent.pid)), "agent")
        first = await asyncio.wait_for(said.get(), 20)
        os.kill(first, signal.SIGKILL)
        assert await asyncio.wait_for(said.get(), 20) != first
        await tasks.close()

    run(story())


def test_one_that_does_not_stop_is_killed(
    run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that hangs cannot hold up the end of the server for ever."""
    monkeypatch.setattr(child, "_STOP_S", 0.05)
    program = f"import os, threading; os.write(1, {READY_LINE!r}); threading.Event().wait()"

    async def story() -> None:
        agent, tasks, ready = Substitute(program, tmp_path / "note"), Tasks("test"), asyncio.Event()
        tasks.spawn(agent.run(ready.set), "agent")
        await asyncio.wait_for(ready.wait(), 20)
        await tasks.close()
        assert not Path(f"/proc/{agent.pid}").exists()

    run(story())
