"""`k3s server`: the control plane and, with root, the agent as its child."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from k3s import VERSION
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.cli.process import notifier, run_or_exit, settings_or_exit, stop_on_signals
from k3s.run import effective, kernel
from k3s.run import settings as choices
from k3s.run.child import AgentProcess
from k3s.run.config import ConfigError, Settings, resolve
from k3s.run.options import options_for
from k3s.run.prepare import AdminFile, claim, prepare
from k3s.run.prerequisites import install_missing
from k3s.run.server import ControlPlane
from k3s.run.serverconfig import ServerConfig
from k3s.run.supervisor import Service, Supervisor

log = logging.getLogger(__name__)


def main(args: Sequence[str]) -> int:
    """Runs the server until it is stopped; the exit code."""
    settings = settings_or_exit("server", args)
    clock = SystemClock()
    return run_or_exit(lambda: _serve(settings, clock), clock.now())


def _say(text: str) -> None:
    print(f"k3s: {text}", file=sys.stderr, flush=True)


def with_agent(settings: Settings) -> bool:
    """True when this server runs a node, too."""
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
    from k3s.store.sql.sqlite import SqliteStore

    tell_systemd = notifier(os.environ)
    runs_node = with_agent(settings)
    if runs_node:
        install_missing(not settings.is_set("container-runtime-endpoint"), _say)
    entropy = SystemEntropy()
    address = settings.text("node-ip") or await _address(runs_node)
    name = _node_name(settings, entropy) if runs_node else ""
    config = choices.server_config(settings, os.environ, address, name)
    for text in choices.without_effect(settings):
        log.warning(text)
    if runs_node:
        _check_agent(settings, config)
    admin = admin_file(settings)
    lock = claim(config)
    certificates, secrets = await prepare(
        config,
        clock,
        entropy,
        *serving_addresses(settings, config, address),
        choices.read_token(settings),
        choices.read_token(settings, "agent-token"),
        admin,
    )
    effective.write(config.server_dir, effective.of_server(config))
    control = ControlPlane(
        config, SqliteStore(config.server_dir / "db" / "state.db"), certificates, secrets, clock, entropy
    )
    services = control.services()
    if runs_node:
        child = AgentProcess(agent_args(settings, config), dict(os.environ))
        services.append(Service("agent", child.run, ("apiserver",), stop_within_s=25))
    control.supervisor = Supervisor(services, clock)
    stop = stop_on_signals()

    def ready() -> None:
        tell_systemd()
        log.info("k3s %s is ready", VERSION, extra={"address": f"https://{address}:{config.port}"})
        _tell_how(admin.path, runs_node)

    await control.supervisor.run(stop, ready)
    os.close(lock)
    log.info("Stopped")


def serving_addresses(
    settings: Settings, config: ServerConfig, address: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the serving certificate has to hold: this machine's names and addresses, and those a person gave."""
    own = (address, config.advertise_address, socket.gethostname())
    return tuple(dict.fromkeys(own)), settings.items("tls-san")


def _node_name(settings: Settings, entropy: SystemEntropy) -> str:
    from k3s.cluster.join import node_id

    suffix = node_id(Path("/etc/rancher/node"), entropy) if settings.switch("with-node-id") else ""
    return choices.node_name(settings, suffix)


def _check_agent(settings: Settings, config: ServerConfig) -> None:
    """Raises ConfigError, CannotStart for what the agent would refuse: it is the server that a person looks at."""
    told = resolve("agent", agent_args(settings, config), {})
    if choices.agent_config(told, {}, config.node_name, "later").protects_kernel:
        kernel.check()


def _tell_how(kubeconfig: Path, with_agent: bool) -> None:
    what = "the cluster is up" if with_agent else "the control plane is up (no node)"
    ours = "k3s" if shutil.which("k3s") else "./k3s"
    _say(f"{what}. Use it with:\n    {ours} kubectl get {'nodes' if with_agent else 'namespaces'}")
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


def admin_file(settings: Settings) -> AdminFile:
    """Where the admin kubeconfig goes."""
    given = settings.text("write-kubeconfig")
    default = Path("/etc/rancher/k3s/k3s.yaml") if os.geteuid() == 0 else Path.home() / ".kube" / "k3s.yaml"
    mode = int(settings.text("write-kubeconfig-mode"), 8)
    return AdminFile(Path(given) if given else default, mode, settings.text("write-kubeconfig-group"))


# What the agent is told on its own account, not from the server's options.
OWN = ("config", "server", "token", "token-file", "data-dir", "log", "alsologtostderr")


def agent_args(settings: Settings, config: ServerConfig) -> list[str]:
    """The command line of the child: every option that was given and concerns agents."""
    args = [
        "--config=/dev/null",
        f"--server={config.local_url}",
        f"--token-file={config.server_dir / 'node-token'}",
        f"--data-dir={config.data_dir}",
    ]
    for option in options_for("agent"):
        if option.name in OWN or not settings.is_set(option.name):
            continue
        flag = f"--{option.name}" if len(option.name) > 1 else f"-{option.name}"
        if option.is_list:
            args += [f"{flag}={item}" for item in settings.items(option.name)]
        elif option.kind == "switch":
            args.append(f"{flag}={'true' if settings.switch(option.name) else 'false'}")
        else:
            args.append(f"{flag}={settings.values[option.name]}")
    return args
