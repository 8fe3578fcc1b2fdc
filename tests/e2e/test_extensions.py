"""Extensions of the field, unchanged, on a whole cluster: an operator, a client for Node, helm, and a scanner."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import BUSYBOX, CLIENTS, ROOT, Cluster, Kubectl, Started
from tests.fakes.api import Pki

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

_EXTENSIONS = ROOT / ".venv" / "extensions"
_HERE = Path(__file__).with_name("extensions")


def needed(path: Path) -> Path:
    """A file that set-up could not bring to every machine."""
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine: packaging/extensions.sh and clients.sh say why")
    return path


def definition(plural: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A custom kind with a status."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": free}}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace for extensions."""
    kubectl = cluster.kubectl(namespace="extensions")
    kubectl("create", "namespace", "extensions")
    yield kubectl
    kubectl("delete", "namespace", "extensions", "--wait=false")


def site(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Site", "metadata": {"name": name}, "spec": spec}


def test_an_operator_with_finalizers_and_webhooks(cluster: Cluster, space: Kubectl, tmp_path: Path) -> None:
    """kopf: its webhooks fill in, warn and refuse; its handlers follow create, update and delete by a finalizer."""
    program = needed(_EXTENSIONS / "python" / "bin" / "kopf")
    text, number = {"type": "string"}, {"type": "integer"}
    space.apply(definition("sites", "Site", {"title": text, "pages": number}))
    space("wait", "crd/sites.example.com", "--for=condition=Established", "--timeout=30s")
    pki = Pki(tmp_path)
    certificate, key = pki.issue("localhost")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KUBECONFIG": str(cluster.kubeconfig),
        "HOOK_CERTIFICATE": str(certificate),
        "HOOK_KEY": str(key),
        "HOOK_AUTHORITY": str(pki.ca),
    }
    command = [str(program), "run", "--namespace=extensions", "--verbose", str(_HERE / "operator.py")]
    try:
        with Started(command, env) as operator:
            operator.line(lambda line: "Reconfiguring the mutating webhook" in line)
            for what, hook in (("validating", "check"), ("mutating", "fill")):
                names = "-o=jsonpath={.webhooks[*].name}{'\\n'}"
                place = f"{what}webhookconfiguration"
                space.until(place, "operator.example.com", names, wanted=lambda line, hook=hook: hook in line)
            made = json.loads(space("create", "-f", "-", "-o", "json", input=json.dumps(site("one"))))
            assert made["spec"] == {"title": "untitled"}
            refused = space.run("create", "-f", "-", input=json.dumps(site("two", pages=10)), code=1)
            assert "too many pages" in refused.stderr
            warned = space.run("create", "-f", "-", input=json.dumps(site("three", pages=6)))
            assert "Warning: that is a lot of pages" in warned.stderr
            space("wait", "site/one", "--for=jsonpath={.status.pages}=1", "--timeout=60s")
            assert space.get("configmap", "site-one")["data"] == {"title": "untitled"}
            assert space.get("site", "one")["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
            space("patch", "site", "one", "--type=merge", "-p", '{"spec":{"title":"new"}}')
            space("wait", "configmap/site-one", "--for=jsonpath={.data.title}=new", "--timeout=60s")
            space("delete", "site", "--all", "--timeout=60s")
            space("wait", "configmap/site-one", "--for=delete", "--timeout=60s")
    finally:
        space("delete", "validatingwebhookconfiguration,mutatingwebhookconfiguration", "--all")
        space("delete", "crd", "sites.example.com")


def test_an_informer_for_node(cluster: Cluster, space: Kubectl) -> None:
    """@kubernetes/client-node lists, watches, and hears of each change once."""
    needed(_EXTENSIONS / "node" / "node_modules" / "@kubernetes")
    # Modules are looked for beside the program.
    program = _EXTENSIONS / "node" / "informer.mjs"
    program.write_text((_HERE / "informer.mjs").read_text())
    authority = cluster.data_dir / "server" / "tls" / "server-ca.crt"
    env = {"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.kubeconfig), "NODE_EXTRA_CA_CERTS": str(authority)}
    space("create", "configmap", "before", "--from-literal=a=1")
    with Started(["node", str(program), "extensions"], env) as informer:
        informer.line(lambda line: line == 'add before {"a":"1"}')
        space("create", "configmap", "after", "--from-literal=a=2")
        informer.line(lambda line: line == 'add after {"a":"2"}')
        space("patch", "configmap", "after", "-p", '{"data":{"a":"3"}}')
        informer.line(lambda line: line == 'update after {"a":"3"}')
        space("delete", "configmap", "before", "after")
        informer.line(lambda line: line == 'delete after {"a":"3"}')
        assert not [line for line in informer.seen if line.startswith("error")]


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart with a CRD, an object of it, and a hook that has to succeed before an installation."""
    folder = tmp_path / "chart"
    files = {
        "Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\n",
        "values.yaml": "text: one\n",
        "crds/thing.yaml": json.dumps(definition("things", "Thing", {"text": {"type": "string"}})),
        "templates/thing.yaml": "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: {{ .Release.Name }}}\n"
        "spec: {text: {{ .Values.text }}}\n",
        "templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n"
        "data: {text: {{ .Values.text }}}\n",
        "templates/hook.yaml": json.dumps(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": "{{ .Release.Name }}-hook",
                    "annotations": {
                        "helm.sh/hook": "pre-install,pre-upgrade",
                        "helm.sh/hook-delete-policy": "before-hook-creation",
                    },
                },
                "spec": {
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [{"name": "c", "image": BUSYBOX, "command": ["true"]}],
                        }
                    }
                },
            }
        ),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("version", ["3", "4"])
def test_helm(cluster: Cluster, space: Kubectl, chart: Path, tmp_path: Path, version: str) -> None:
    """helm installs a chart with CRDs and hooks, upgrades it, rolls it back and removes it."""
    program = needed(CLIENTS / f"helm-{version}")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)}

    def helm(*args: str) -> str:
        command = [str(program), "--namespace=extensions", *args]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"helm {args}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def text() -> tuple[str, str]:
        return space.get("thing", "demo")["spec"]["text"], space.get("configmap", "demo")["data"]["text"]

    try:
        helm("install", "demo", str(chart), "--wait", "--timeout=60s")
        assert text() == ("one", "one")
        assert space.get("job", "demo-hook")["status"]["succeeded"] == 1
        helm("upgrade", "demo", str(chart), "--set", "text=two", "--wait", "--timeout=60s")
        assert text() == ("two", "two")
        helm("rollback", "demo", "1", "--wait", "--timeout=60s")
        assert text() == ("one", "one")
        assert [release["revision"] for release in json.loads(helm("history", "demo", "-o", "json"))] == [1, 2, 3]
        helm("uninstall", "demo", "--wait")
        assert space.get("things", "--all-namespaces")["items"] == []
        assert json.loads(helm("list", "-o", "json")) == []
    finally:
        space("delete", "job", "--all")
        space("delete", "crd", "things.example.com")


def test_a_scanner_finds_nothing(cluster: Cluster) -> None:
    """kube-hunter, active: it finds the API server and the kubelet, and no weakness in them."""
    program = needed(_EXTENSIONS / "python" / "bin" / "kube-hunter")
    if cluster.port != 6443:
        pytest.skip("port 6443, where the scanner looks, was taken when the cluster started")
    command = [str(program), "--remote", "127.0.0.1", "--active", "--report=json", "--log=none"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120)
    report, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    assert {service["location"] for service in report["services"]} >= {"127.0.0.1:6443"}
    assert report["vulnerabilities"] == []
