"""The agent as a child process of the server: started, watched, stopped; it goes when the server goes.

The child's standard input is a pipe that only the server holds: at its end the agent stops in order, so that neither a
crash nor a kill of the server leaves an agent behind. Containers stay in every case. The agent has a session of its
own, so that Ctrl-C reaches the server alone and parts stop in order.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from k3s.base import bundle

log = logging.getLogger(__name__)

_STOP_S = 20.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 1.0, 30.0
# An agent that lived this long was well: its next end starts the back-off anew.
_HEALTHY_S = 60.0
# What the agent writes to its standard output once its node can run pods.
READY_LINE = b"ready\n"
# Tells the agent that its standard input and output are the server's (what kind of files they are differs by platform).
CHILD = "K3S_AGENT_IS_CHILD"


class AgentProcess:
    """Keeps `k3s agent <args>` running."""

    def __init__(self, args: Sequence[str], env: dict[str, str]) -> None:
        ours = bundle.program("k3s")
        self._command = [*([ours] if ours else [sys.executable, "-P", "-m", "k3s"]), "agent", *args]
        self._env = {**env, CHILD: "1"}
        self.pid = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; ready once the agent says so. An agent that ends is started again after a back-off."""
        backoff = _FIRST_BACKOFF_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._env,
                start_new_session=True,
            )
            self.pid = process.pid
            try:
                await self._watch(process, ready)
            finally:
                await self._stop(process)
            if loop.time() - began > _HEALTHY_S:
                backoff = _FIRST_BACKOFF_S
            log.error("The agent ended with code %s; it is started again in %gs", process.returncode, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF_S)

    async def _watch(self, process: asyncio.subprocess.Process, ready: Callable[[], None]) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line == READY_LINE:
                ready()
        await process.wait()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except asyncio.TimeoutError:
            log.error("The agent did not stop within %gs and is killed", _STOP_S)
            process.kill()
            await process.wait()
