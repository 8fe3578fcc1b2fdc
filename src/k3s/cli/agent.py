"""`k3s agent`: a node that joins a server."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from k3s.base import files
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.cli.main import fail
from k3s.cli.process import done_before, notifier, run_or_exit, settings_or_exit, stop_on_signals
from k3s.run import effective, kernel
from k3s.run import settings as choices
from k3s.run.child import CHILD, READY_LINE
from k3s.run.config import CannotStart, ConfigError, Settings
from k3s.run.lock import hold
from k3s.run.prerequisites import install_missing
from k3s.run.supervisor import Supervisor

log = logging.getLogger(__name__)


def main(args: Sequence[str]) -> int:
    """Runs the agent until it is stopped; the exit code."""
    settings = settings_or_exit("agent", args)
    if os.geteuid() != 0:
        fail("Cannot run a node: containers and network need root; run k3s agent with sudo", 1)
    clock = SystemClock()
    return run_or_exit(lambda: _serve(settings, clock), clock.now())


async def _serve(settings: Settings, clock: SystemClock) -> None:
    from k3s.cluster.join import JoinError, node_id
    from k3s.run.agent import Agent

    tell_systemd = notifier(os.environ)
    install_missing(
        not settings.is_set("container-runtime-endpoint"), lambda text: print(f"k3s: {text}", file=sys.stderr)
    )
    entropy = SystemEntropy()
    suffix = node_id(Path("/etc/rancher/node"), entropy) if settings.switch("with-node-id") else ""
    config = choices.agent_config(
        settings, os.environ, choices.node_name(settings, suffix), choices.read_token(settings)
    )
    if config.protects_kernel:
        kernel.check()
    lock = hold(files.folder(config.agent_dir))
    if lock is None:
        raise CannotStart(f"Cannot start: another k3s agent works on {config.data_dir}; stop it first")
    effective.write(config.agent_dir, effective.of_agent(config))
    stop = stop_on_signals()
    _stop_with_parent(stop)
    agent = Agent(config, clock, entropy)
    try:
        if not await done_before(agent.join(), stop):
            return
    except JoinError as error:
        raise ConfigError(f"Cannot join {config.server}: {error}") from error

    def ready() -> None:
        tell_systemd()
        log.info("The node is ready", extra={"node": config.node_name})
        if _is_child():
            os.write(sys.stdout.fileno(), READY_LINE)

    await Supervisor(agent.services(), clock).run(stop, ready)
    os.close(lock)


def _is_child() -> bool:
    """True when a server started this agent and holds the other ends of its standard input and output."""
    return CHILD in os.environ


def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stops when the server that started this agent is gone: then its end of the pipe is closed."""
    if not _is_child():
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        if not os.read(descriptor, 64):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, ended)
