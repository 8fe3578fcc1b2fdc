"""`k3s secrets-encrypt` against a server that runs: every step, from a cluster that did not encrypt before."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import ROOT
from tests.controlplane import Server

pytestmark = pytest.mark.slow


def asked(server: Server, *words: str, code: int = 0) -> str:
    """What the command prints."""
    at = [f"--data-dir={server.folder / 'data'}", f"--server=https://127.0.0.1:{server.port}"]
    done = subprocess.run(
        ["./k3s", "secrets-encrypt", *words, *at], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def status(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(server, "status", "--output=json"))
    return found


def reached(server: Server, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The status once it is as wanted; the writing goes on beside the command."""
    while not wanted(found := status(server)):
        pass
    return found


def stored(server: Server) -> list[bytes]:
    """The values of the Secret `s` in the datastore, old ones too."""
    path = server.folder / "data" / "server" / "db" / "state.db"
    find = "SELECT value FROM log WHERE key = '/registry/core/secrets/default/s' ORDER BY revision"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [value for (value,) in connection.execute(find)]


def finished(state: dict[str, Any]) -> bool:
    return bool(state["stage"] == "reencrypt_finished")


def test_every_step(tmp_path: Path) -> None:
    """On, prepared, rotated, written again, all at once, off; each time the Secret is read, and stored as it should."""
    server = Server(tmp_path)
    server.start()
    server.kubectl("create", "secret", "generic", "s", "--from-literal=password=hid-secret")
    assert "Disabled, no configuration file found" in asked(server, "status")
    assert "start the server with --secrets-encryption" in asked(server, "prepare", code=1)
    assert server.stop() == 0
    server.start("--secrets-encryption")
    assert stored(server)[-1].startswith(b"{")

    def is_read() -> bool:
        return "aGlkLXNlY3JldA==" in server.kubectl("get", "secret", "s", "-o", "jsonpath={.data.password}")

    assert (status(server)["enable"], status(server)["stage"]) == (True, "start") and is_read()
    asked(server, "reencrypt", "--force")
    reached(server, finished)
    assert all(value.startswith(b"k8s:enc:aescbc:v1:aescbckey:") for value in stored(server)) and is_read()
    assert "rotate comes after prepare" in asked(server, "rotate", code=1)
    asked(server, "prepare")
    new = status(server)["inactivekeys"][0].split()[1]
    asked(server, "rotate")
    assert new in status(server)["activekey"] and is_read()
    asked(server, "reencrypt")
    assert reached(server, finished)["inactivekeys"] == [] and is_read()
    assert all(value.startswith(f"k8s:enc:aescbc:v1:{new}:".encode()) for value in stored(server))
    asked(server, "rotate-keys")
    state = reached(server, lambda state: finished(state) and new not in state["activekey"])
    assert state["inactivekeys"] == [] and is_read()
    asked(server, "disable")
    asked(server, "reencrypt", "--force", "--skip")
    reached(server, finished)
    assert stored(server)[-1].startswith(b"{") and is_read()
    assert server.stop() == 0
    server.start()
    assert "Encryption Status: Disabled" in asked(server, "status") and is_read()
    asked(server, "enable")
    server.kubectl("annotate", "secret", "s", "a=b")
    assert stored(server)[-1].startswith(b"k8s:enc:aescbc:") and is_read()
    assert server.stop() == 0
    assert "hid-secret" not in (tmp_path / "log").read_text()
