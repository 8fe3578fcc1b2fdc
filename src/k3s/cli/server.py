"""`k3s server`: the control plane and, with root, the agent as its child."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from k3s import VERSION
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.cli.process import notify_ready, run_or_exit, settings_or_exit, stop_on_signals
from k3s.run import settings as choices
from k3s.run.child import AgentProcess
from k3s.run.config import ConfigError, Settings
from k3s.run.options import options_for
from k3s.run.prepare import AdminFile, prepare
from k3s.run.prerequisites import install_missing
from k3s.run.supervisor import Service, Supervisor

log = logging.getLogger(__name__)


def main(args: Sequence[str]) -> int:
    """Runs the server until it is stopped; the exit code."""
    settings = settings_or_exit("server", args)
    clock = SystemClock()
    return run_or_exit(lambda: _serve(settings, clock), clock.now())


def _say(text: str) -> None:
    print(f"k3s: {text}", file=sys.stderr, flush=True)


def _with_agent(settings: Settings) -> bool:
    if settings.switch("disable-agent"):
        return False
    if os.geteuid() != 0:
        _say(
            "not root: only the control plane is started, as with --disable-agent. Nodes need root for containers and "
            "network; run with sudo for a whole cluster."
        )
        return False
    return True


async def _serve(settings: Settings, clock: SystemClock) -> None:
    # The parts of the server are imported while nothing waits for them, and only by this personality.
    from k3s.run.server import ControlPlane
    from k3s.store.sql.sqlite import SqliteStore

    with_agent = _with_agent(settings)
    if with_agent:
        install_missing(not settings.is_set("container-runtime-endpoint"), _say)
    entropy = SystemEntropy()
    address = settings.text("node-ip") or await _address(with_agent)
    config = choices.server_config(settings, os.environ, address)
    admin = _admin_file(settings)
    certificates, secrets = await prepare(
        config,
        clock,
        entropy,
        tuple(dict.fromkeys((address, config.advertise_address, socket.gethostname()))),
        settings.items("tls-san"),
        choices.read_token(settings),
        choices.read_token(settings, "agent-token"),
        admin,
    )
    control = ControlPlane(
        config, SqliteStore(config.server_dir / "db" / "state.db"), certificates, secrets, clock, entropy
    )
    services = control.services()
    if with_agent:
        child = AgentProcess(_agent_args(settings, config.port, config.data_dir), dict(os.environ))
        services.append(Service("agent", child.run, ("apiserver",), stop_within_s=25))
    control.supervisor = Supervisor(services, clock)
    stop = stop_on_signals()

    def ready() -> None:
        notify_ready(os.environ)
        log.info("k3s %s is ready", VERSION, extra={"address": f"https://{address}:{config.port}"})
        _tell_how(admin.path, with_agent)

    await control.supervisor.run(stop, ready)
    log.info("Stopped")


def _tell_how(kubeconfig: Path, with_agent: bool) -> None:
    what = "the cluster is up" if with_agent else "the control plane is up (no node)"
    _say(f"{what}. Use it with:\n    ./k3s kubectl get {'nodes' if with_agent else 'namespaces'}")
    _say(f"or with any client:\n    export KUBECONFIG={kubeconfig}")


async def _address(with_agent: bool) -> str:
    """This machine's address; without a node, loopback will do where there is no other."""
    from k3s.network.address import AddressError
    from k3s.network.host import Host
    from k3s.network.interface import HostError

    try:
        return (await Host().node_address()).address
    except (AddressError, HostError, OSError) as error:
        if with_agent:
            raise ConfigError(f"{error}; or name the address with --node-ip") from error
        return "127.0.0.1"


def _admin_file(settings: Settings) -> AdminFile:
    given = settings.text("write-kubeconfig")
    default = Path("/etc/rancher/k3s/k3s.yaml") if os.geteuid() == 0 else Path.home() / ".kube" / "k3s.yaml"
    mode = int(settings.text("write-kubeconfig-mode"), 8)
    return AdminFile(Path(given) if given else default, mode, settings.text("write-kubeconfig-group"))


# What the agent is told on its own account, not from the server's options.
_OWN = ("config", "server", "token", "token-file", "data-dir", "log", "alsologtostderr")


def _agent_args(settings: Settings, port: int, data_dir: Path) -> list[str]:
    """The command line of the child: every option that was given and concerns agents."""
    args = [
        "--config=/dev/null",
        f"--server=https://127.0.0.1:{port}",
        f"--token-file={data_dir / 'server' / 'node-token'}",
        f"--data-dir={data_dir}",
    ]
    for option in options_for("agent"):
        if option.name in _OWN or not settings.is_set(option.name):
            continue
        flag = f"--{option.name}" if len(option.name) > 1 else f"-{option.name}"
        if option.is_list:
            args += [f"{flag}={item}" for item in settings.items(option.name)]
        elif option.kind == "switch":
            args.append(f"{flag}={'true' if settings.switch(option.name) else 'false'}")
        else:
            args.append(f"{flag}={settings.values[option.name]}")
    return args
