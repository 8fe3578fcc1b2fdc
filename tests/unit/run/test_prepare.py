"""What exists before the parts are made: folders, lock, certificates, tokens, kubeconfigs."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml

from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.cli import cis
from k3s.cli.cisrows import Files
from k3s.cluster.tokens import Secrets
from k3s.run import settings as choices
from k3s.run.config import CannotStart, ConfigError, resolve
from k3s.run.prepare import AdminFile, claim, prepare
from k3s.run.serverconfig import ServerConfig

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def config(folder: Path, *args: str) -> ServerConfig:
    settings = resolve("server", ["--config=/dev/null", f"--data-dir={folder}", *args], {})
    return choices.server_config(settings, {}, "192.0.2.1")


def prepared(run: Run, folder: Path, token: str = "", agent_token: str = "", admin: AdminFile | None = None) -> Secrets:
    made = config(folder, "--https-listen-port=7443")
    where = admin or AdminFile(folder / "admin.yaml")
    words = (SystemClock(), SystemEntropy(), ("192.0.2.1",), ("san.example",), token, agent_token, where)
    secrets: Secrets = run(prepare(made, *words))[1]
    return secrets


def test_files_and_their_modes(run: Run, tmp_path: Path) -> None:
    """The token, its link, the kubeconfigs and their modes are as the original's; a restart changes nothing."""
    secrets = prepared(run, tmp_path, admin=AdminFile(tmp_path / "out" / "k3s.yaml", 0o640))
    server = tmp_path / "server"
    assert os.readlink(server / "node-token") == "token"
    assert (server / "token").read_text().endswith(f"::server:{secrets.server}\n")
    assert stat.S_IMODE((server / "token").stat().st_mode) == 0o600
    admin = tmp_path / "out" / "k3s.yaml"
    assert stat.S_IMODE(admin.stat().st_mode) == 0o640
    content = yaml.safe_load(admin.read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:7443"
    names = {f"{name}.kubeconfig" for name in ("admin", "controller", "scheduler", "api-server", "cloud-controller")}
    assert names <= {path.name for path in (server / "cred").iterdir()}
    before = {path: path.stat().st_mtime_ns for path in server.rglob("*") if path.is_file()}
    assert prepared(run, tmp_path) == secrets
    assert before == {path: path.stat().st_mtime_ns for path in server.rglob("*") if path.is_file()}


def test_tokens(run: Run, tmp_path: Path) -> None:
    """Given tokens are used and kept; another token at the next start is refused, a full one of this cluster is not."""
    assert prepared(run, tmp_path, "first", "agents") == Secrets("first", "agents")
    assert os.readlink(tmp_path / "server" / "node-token") == "agent-token"
    assert prepared(run, tmp_path) == Secrets("first", "agents")
    with pytest.raises(ConfigError, match=r"--token.*another token"):
        prepared(run, tmp_path, "second")
    full = (tmp_path / "server" / "token").read_text().strip()
    assert prepared(run, tmp_path, full, "agents") == Secrets("first", "agents")
    with pytest.raises(ConfigError, match=r"--token.*another certificate authority"):
        prepared(run, tmp_path / "other", full)


def test_kubeconfig_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """The refusal names the flag; so it does for a group that does not exist."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--write-kubeconfig: "):
        prepared(run, tmp_path, admin=AdminFile(tmp_path / "file" / "k3s.yaml"))
    with pytest.raises(ConfigError, match="'no-such-group' for --write-kubeconfig-group"):
        prepared(run, tmp_path, admin=AdminFile(tmp_path / "k3s.yaml", group="no-such-group"))


def test_one_server_per_folder(tmp_path: Path) -> None:
    """The second server of a folder is told so; the folder is free again when the first one is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = config(tmp_path, "--bind-address=127.0.0.1", f"--https-listen-port={port}")
    lock = claim(made)
    with pytest.raises(CannotStart, match=f"{tmp_path}.*another --data-dir"):
        claim(made)
    os.close(lock)
    os.close(claim(made))
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The refusal names address, port and how to find who listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"127.0.0.1 port {port}.*ss -ltnp"):
            claim(config(tmp_path, "--bind-address=127.0.0.1", f"--https-listen-port={port}"))


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    """--bind-address has to be one of this machine's."""
    with pytest.raises(ConfigError, match=r"'192\.0\.2\.254' for --bind-address"):
        claim(config(tmp_path, "--bind-address=192.0.2.254"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """--data-dir below a file is refused with flag and reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir: Not a directory"):
        claim(config(tmp_path / "file"))


def test_a_first_start_passes_the_checks_of_files(run: Run, tmp_path: Path) -> None:
    """What a server writes before it serves is as `k3s check-config --cis` wants it, whatever the umask."""
    before = os.umask(0)
    try:
        prepared(run, tmp_path)
    finally:
        os.umask(before)
    found = list(cis.results(cis.Host(tmp_path, (os.geteuid(), os.getegid()))))
    of_files = [result for result in found if isinstance(result.check.look, Files)]
    assert [result for result in of_files if result.state != cis.PASS] == []
    looked_at = {result.check.number for result in of_files if "looked at" in result.found}
    assert {"1.1.13", "1.1.20", "1.1.21"} <= looked_at, "certificates, keys and the administrator's credential"
