"""A real control plane with --hardened: what it refuses, records and keeps."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import CURRENT
from tests.controlplane import Server

pytestmark = pytest.mark.slow

_HIDDEN = "a-value-that-nobody-may-read"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A hardened server."""
    made = Server(tmp_path_factory.mktemp("hardened"))
    made.start("--hardened")
    yield made
    assert made.stop() == 0, (made.folder / "log").read_text()


def apply(server: Server, *things: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Applies objects; the outcome."""
    command = [str(CURRENT), f"--kubeconfig={server.folder / 'admin.yaml'}", "apply", "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": things})
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def pod(name: str, namespace: str) -> dict[str, Any]:
    """A pod that says nothing of its security."""
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_pods_have_to_be_restricted(server: Server) -> None:
    """Everywhere but in kube-system; what makes such pods is warned of; a namespace's own label wins."""
    refused = apply(server, pod("p", "default"))
    assert refused.returncode == 1 and 'violates PodSecurity "restricted:latest"' in refused.stderr
    assert apply(server, pod("p", "kube-system")).returncode == 0
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free", "labels": labels}}
    assert apply(server, space, pod("p", "free")).returncode == 0
    warned = server.kubectl("create", "deployment", "d", "--image=i", "--dry-run=server")
    assert "created" in warned


def test_requests_are_recorded_without_what_is_in_them(server: Server) -> None:
    """Who read or made a Secret stands in the log of mode 600, its value does not; health checks leave no line."""
    server.kubectl("create", "secret", "generic", "s", f"--from-literal=k={_HIDDEN}")
    server.kubectl("get", "secret", "s", "-o", "yaml")
    server.kubectl("get", "--raw", "/readyz")
    path = server.folder / "data" / "server" / "logs" / "audit.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    about = [line for line in lines if line.get("objectRef", {}).get("resource") == "secrets"]
    assert {"create", "get"} <= {line["verb"] for line in about if line["objectRef"].get("name") == "s"}
    assert {line["level"] for line in lines} == {"Metadata"}
    assert _HIDDEN not in text and base64.b64encode(_HIDDEN.encode()).decode() not in text
    assert not [line for line in lines if line["requestURI"].startswith("/readyz")]


def test_secrets_are_encrypted_at_rest(server: Server) -> None:
    """The datastore holds them sealed."""
    server.kubectl("create", "secret", "generic", "sealed", f"--from-literal=k={_HIDDEN}")
    database = server.folder / "data" / "server" / "db" / "state.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        dump = "\n".join(connection.iterdump())
    assert "registry/secrets" in dump or "secrets" in dump
    assert base64.b64encode(_HIDDEN.encode()).decode() not in dump


def test_tokens_of_pods_end_when_they_say(server: Server) -> None:
    """A token for about an hour lasts an hour, not a year."""
    assert apply(server, pod("holder", "kube-system")).returncode == 0
    uid = server.kubectl("-n", "kube-system", "get", "pod", "holder", "-o", "jsonpath={.metadata.uid}")
    token = server.kubectl(
        "-n", "kube-system", "create", "token", "default", "--duration=3607s", "--bound-object-kind=Pod",
        "--bound-object-name=holder", f"--bound-object-uid={uid}",
    )  # fmt: skip
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["exp"] - claims["iat"] == 3607
    assert "warnafter" not in claims["kubernetes.io"]
