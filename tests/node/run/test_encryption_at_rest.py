"""A server whose kinds are sealed by a plugin that runs as a process of its own, as users have it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import ROOT
from tests.controlplane import Server

pytestmark = pytest.mark.slow

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@contextlib.contextmanager
def plugin(socket: Path) -> Iterator[subprocess.Popen[str]]:
    """The plugin of the tests as a process."""
    socket.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.fakes.kms", str(socket)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def configuration(path: Path, *groups: tuple[list[str], list[Any]]) -> None:
    """Written as a whole, in the place of the former one."""
    resources = [{"resources": names, "providers": providers} for names, providers in groups]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
    new = path.with_suffix(".new")
    new.write_text(json.dumps({**kind, "resources": resources}))
    new.rename(path)


def database(server: Server) -> bytes:
    """Everything that stands in the datastore's files."""
    return b"".join(
        path.read_bytes() for path in (server.folder / "data" / "server" / "db").iterdir() if path.is_file()
    )


def test_kinds_and_custom_kinds_through_a_plugin(tmp_path: Path) -> None:
    """Secrets by the plugin, custom objects by a key, the rest plain; after a restart too."""
    file, socket = tmp_path / "encryption.json", tmp_path / "kms.sock"
    vault = {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": f"unix://{socket}"}}
    box = {"secretbox": {"keys": [{"name": "box", "secret": "A" * 43 + "="}]}}
    configuration(file, (["secrets"], [vault]), (["*.example.com"], [box]))
    server = Server(tmp_path)
    flags = [f"--kube-apiserver-arg=encryption-provider-config={file}"]
    with plugin(socket):
        server.start(*flags)
        (tmp_path / "crd").write_text(json.dumps(WIDGETS))
        server.kubectl("apply", "-f", str(tmp_path / "crd"))
        server.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
        widget = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"name": "w"},
            "spec": {"x": "hid-widget"},
        }
        (tmp_path / "widget").write_text(json.dumps(widget))
        server.kubectl("apply", "-f", str(tmp_path / "widget"))
        server.kubectl("create", "secret", "generic", "s", "--from-literal=password=hid-secret")
        server.kubectl("create", "configmap", "m", "--from-literal=word=shown-map")
        assert "[+]kms-providers ok" in server.kubectl("get", "--raw", "/readyz?verbose")
        assert server.kubectl("get", "--raw", "/livez/kms-providers") == "ok"
        assert server.stop() == 0
        files = database(server)
        assert b"hid-" not in files and b"aGlkLXNlY3JldA" not in files and b"shown-map" in files
        assert b"k8s:enc:kms:v2:vault:" in files and b"k8s:enc:secretbox:v1:box:" in files
        server.start(*flags)
        assert json.loads(server.kubectl("get", "secret", "s", "-o", "json"))["data"]["password"] == "aGlkLXNlY3JldA=="
        assert "hid-widget" in server.kubectl("get", "widget", "w", "-o", "yaml")
        assert server.stop() == 0
    assert "hid-" not in (tmp_path / "log").read_text()


def test_a_changed_configuration_is_followed(tmp_path: Path) -> None:
    """With automatic reload the server seals by the newest configuration, and waits at its start for a plugin."""
    file, socket = tmp_path / "encryption.json", tmp_path / "kms.sock"
    vault = {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": f"unix://{socket}"}}
    configuration(file, (["secrets"], [{"identity": {}}, vault]))
    server = Server(tmp_path)
    name = "--kube-apiserver-arg=encryption-provider-config"
    with ThreadPoolExecutor(1) as starter:
        start = starter.submit(server.start, f"{name}={file}", f"{name}-automatic-reload=true")
        while "KMS plugin vault: failed to perform status" not in _log(server):
            assert not start.done()
        with plugin(socket):
            start.result(60)
            server.kubectl("create", "secret", "generic", "first", "--from-literal=password=hid-first")
            configuration(file, (["*.*"], [vault, {"identity": {}}]))
            total = 'apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash="sha256:'
            while total not in (metrics := server.kubectl("get", "--raw", "/metrics")):
                pass
            line = next(line for line in metrics.splitlines() if line.startswith(total))
            assert line.endswith('status="success"} 1')
            server.kubectl("create", "configmap", "m", "--from-literal=word=hid-map")
            first = server.kubectl("get", "secret", "first", "-o", "json")
            server.kubectl("replace", "-f", "-", input=first)
            assert server.stop() == 0
            files = database(server)
            assert b"hid-map" not in files and files.count(b"k8s:enc:kms:v2:vault:") >= 2


def _log(server: Server) -> str:
    file = server.folder / "log"
    return file.read_text() if file.exists() else ""
