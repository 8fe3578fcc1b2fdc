"""What the images of the air-gap archive are asked to do on a node, as k3s' own controllers use them."""

from __future__ import annotations

import base64
import io
import tarfile
from typing import Any

from tests.cluster import Kubectl
from tests.e2e.objects import pod

_CHART = {
    "Chart.yaml": "apiVersion: v2\nname: shipped\nversion: 0.1.0\n",
    "values.yaml": "said: default\nalso: default\n",
    "templates/said.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: said}\n"
        "data: {said: {{ .Values.said | quote }}, also: {{ .Values.also | quote }}}\n"
        "{{ if eq .Values.said `refused` }}---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n{{ end }}"
    ),
}


def traefik(client: Kubectl, image: str) -> None:
    """It says its version."""
    client.apply(pod("traefik", "", container={"image": image, "command": None, "args": ["version"]}, **_ONCE))
    assert f"Version:      {image.rpartition(':')[2]}\n" in _log(client, "traefik")


def load_balancer(client: Kubectl, image: str, busybox: str) -> None:
    """Its port leads to the Service `web`; one with other sources does not; a wrong setting is told."""
    address = client.get("service", "web")["spec"]["clusterIP"]

    def container(name: str, **env: str) -> dict[str, Any]:
        settings = {"DEST_PROTO": "TCP", "DEST_PORT": "80", "DEST_IPS": address, **env}
        listed = [{"name": key, "value": value} for key, value in settings.items()]
        rights = {"capabilities": {"add": ["NET_ADMIN"]}}
        return {"name": name, "image": image, "env": listed, "securityContext": rights}

    made = pod("lb", "", securityContext={"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]})
    made["spec"]["containers"] = [
        container("all", SRC_PORT="8080", SRC_RANGES="0.0.0.0/0,::/0"),
        container("others", SRC_PORT="8081", SRC_RANGES="203.0.113.0/24"),
        container("wrong", SRC_PORT="80 80"),
    ]
    client.apply(made)
    asks = "wget -T 5 -qO- http://$LB:8080/ && ! wget -T 1 -qO- http://$LB:8081/"
    client.until("pod", "lb", "-o", _READY, wanted=lambda line: line.startswith("true true"))
    where = [{"name": "LB", "value": client.get("pod", "lb")["status"]["podIP"]}]
    client.apply(pod("through", asks, container={"image": busybox, "env": where}, **_ONCE))
    assert "served\n" in _log(client, "through")
    assert f"dnat ip to {address}:80" in client("logs", "lb", "-c", "all")
    assert "drop" in client("logs", "lb", "-c", "others")
    assert "SRC_PORT is '80 80': give a port from 1 to 65535" in client("logs", "lb", "-c", "wrong")
    client("delete", "pod", "lb", "--timeout=20s")


_ONCE: dict[str, Any] = {"restartPolicy": "Never"}
_READY = "jsonpath={.status.containerStatuses[0].started} {.status.containerStatuses[1].started}{'\\n'}"


def helm_job(client: Kubectl, image: str) -> None:
    """A chart is installed with its values, upgraded, installed anew after a failure, and removed."""
    subject = {"kind": "ServiceAccount", "name": "helm-shipped", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "roleRef": role}
    content = {"shipped.tgz.base64": base64.b64encode(_packed()).decode()}
    client.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "helm-shipped"}},
        {**binding, "metadata": {"name": "helm-default-shipped"}, "subjects": [subject]},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chart-content-shipped"}, "data": content},
    )
    assert "is deployed" in _helm(client, image, "install", {"said": "first"}, "install", "--set-string", "also=this")
    assert client.get("configmap", "said")["data"] == {"said": "first", "also": "this"}
    _helm(client, image, "upgrade", {"said": "second"}, "install")
    assert client.get("configmap", "said")["data"] == {"said": "second", "also": "default"}
    _helm(client, image, "breaks", {"said": "refused"}, "install", phase="Failed")
    told = _helm(client, image, "aborts", {"said": "third"}, "install", phase="Failed", FAILURE_POLICY="abort")
    assert "release shipped is failed and failurePolicy is abort" in told
    assert "Release shipped is failed: it is removed" in _helm(client, image, "again", {"said": "third"}, "install")
    assert client.get("configmap", "said")["data"] == {"said": "third", "also": "default"}
    _helm(client, image, "delete", {}, "delete")
    assert client.run("get", "configmap", "said", code=1)
    _helm(client, image, "nothing", {}, "delete")


def _helm(client: Kubectl, image: str, name: str, values: dict[str, str], *args: str, **more: str) -> str:
    """One run of the job's pod; what it says."""
    phase = more.pop("phase", "Succeeded")
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"values-{name}"}}
    settings = {"NAME": "shipped", "TARGET_NAMESPACE": "default", "HELM_DRIVER": "secret", "CHART": "", **more}
    volumes: dict[str, dict[str, Any]] = {
        "/config": {"secret": {"secretName": f"values-{name}"}},
        "/chart": {"configMap": {"name": "chart-content-shipped"}},
        **{f"/home/klipper-helm/{each}": {"emptyDir": {}} for each in (".helm", ".cache", ".config")},
        "/tmp": {"emptyDir": {}},
    }
    mounts = [{"name": f"v{at}", "mountPath": path} for at, path in enumerate(volumes)]
    container = {
        "image": image,
        "command": None,
        "args": list(args),
        "volumeMounts": mounts,
        "env": [{"name": key, "value": value} for key, value in settings.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True},
    }
    spec = {
        "serviceAccountName": "helm-shipped",
        "volumes": [{"name": f"v{at}", **source} for at, source in enumerate(volumes.values())],
    }
    client.apply(
        {**secret, "stringData": {"values-01_HelmChart.yaml": text}},
        pod(f"helm-{name}", "", container=container, **_ONCE, **spec),
    )
    return _log(client, f"helm-{name}", phase)


def _packed() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in _CHART.items():
            about = tarfile.TarInfo(f"shipped/{name}")
            about.size = len(text)
            tar.addfile(about, io.BytesIO(text.encode()))
    return out.getvalue()


def _log(client: Kubectl, name: str, phase: str = "Succeeded") -> str:
    """What a pod has said when it is through."""
    client.until(
        "pod", name, "-o", "jsonpath={.status.phase}{'\\n'}", wanted=lambda line: line in ("Succeeded", "Failed")
    )
    said = client("logs", name)
    assert client.get("pod", name)["status"]["phase"] == phase, said
    return said
