"""No option is swallowed: each one is refused, or read by the personalities it is for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from k3s.cli import process, server
from k3s.run import settings as choices
from k3s.run.config import Settings, resolve
from k3s.run.options import options_for


class Recorder(Settings):
    """Settings that note which options were asked for."""

    asked: ClassVar[set[str]] = set()

    def text(self, name: str) -> str:
        self.asked.add(name)
        return super().text(name)

    def switch(self, name: str) -> bool:
        self.asked.add(name)
        return super().switch(name)

    def number(self, name: str) -> int:
        self.asked.add(name)
        return super().number(name)

    def items(self, name: str) -> tuple[str, ...]:
        self.asked.add(name)
        return super().items(name)


def recorder(personality: str, *args: str) -> Recorder:
    settings = resolve(personality, ["--config=/dev/null", *args], {})
    Recorder.asked = set()
    return Recorder(settings.values, settings.sources, settings.args)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Keeps the test run's own log handlers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def wanted(personality: str) -> set[str]:
    """What has to be read; --config is read by `resolve` itself."""
    return {o.name for o in options_for(personality) if not o.refused} - {"config"} - set(choices.ABSENT)


def test_the_agent_reads_every_option(tmp_path: Path) -> None:
    """`k3s agent` honours all that its help lists."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    log = f"--log={tmp_path / 'log'}"
    settings = recorder("agent", "--server=https://s:6443", f"--token-file={token}", "--with-node-id", log)
    process.log_to(settings)
    name = choices.node_name(settings, "12345678")
    assert name.endswith("-12345678")
    choices.agent_config(settings, {}, name, choices.read_token(settings))
    # Whether containerd is started by us is the one thing that the command itself decides.
    assert wanted("agent") - Recorder.asked == set()


def test_the_server_reads_every_option_or_hands_it_to_its_agent(tmp_path: Path) -> None:
    """`k3s server` honours all that its help lists: itself, or by the command line of the agent it starts."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    settings = recorder("server", f"--token-file={token}", f"--agent-token-file={token}", f"--log={tmp_path / 'log'}")
    process.log_to(settings)
    config = choices.server_config(settings, {}, "192.0.2.1")
    for kind in ("token", "agent-token"):
        assert choices.read_token(settings, kind) == "secret"
    server.admin_file(settings)
    server.serving_addresses(settings, config, "192.0.2.1")
    server.with_agent(settings)
    handed = {option.name for option in options_for("agent")} - set(server.OWN)
    # --server is refused when it is given, which asks whether it was.
    assert wanted("server") - Recorder.asked - handed - {"server"} == set()


EVERY_AGENT_OPTION = {
    "--node-name=n": "n",
    "--node-label=a=b": "a=b",
    "--node-taint=a=b:NoSchedule": "a=b:NoSchedule",
    "--pause-image=example.org/pause:1": "example.org/pause:1",
    "--snapshotter=native": "native",
    "--container-runtime-endpoint=/run/x.sock": "/run/x.sock",
    "--node-ip=192.0.2.7": "192.0.2.7",
    "--node-external-ip=198.51.100.7": "198.51.100.7",
    "--resolv-conf=/etc/hostname": "/etc/hostname",
    "--kubelet-arg=max-pods=7": "max-pods=7",
    "--with-node-id": "true",
    "--debug": "true",
    "-v=4": "4",
    "--log-format=json": "json",
}


@pytest.mark.parametrize("flag", EVERY_AGENT_OPTION)
def test_options_of_nodes_reach_the_agent_of_a_server(flag: str) -> None:
    """What was given to the server arrives at the agent with the same value."""
    settings = resolve("server", ["--config=/dev/null", flag], {})
    config = choices.server_config(settings, {}, "192.0.2.1")
    told = resolve("agent", server.agent_args(settings, config), {})
    name = flag.lstrip("-").partition("=")[0]
    value = told.values[name]
    shown = value[0] if isinstance(value, tuple) else str(value).lower()
    assert shown == EVERY_AGENT_OPTION[flag]
    assert told.text("server") == "https://127.0.0.1:6443"
