"""The Python clients of the field: `kubernetes` (generated from OpenAPI) and `kr8s` (asynchronous underneath)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import Cluster, Kubectl
from tests.e2e.objects import config_map, pod

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # What the clients themselves do.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning"),
]

_SPACE = "python"
_SERVE = "mkdir /www; echo hello > /www/index.html; echo said; exec httpd -f -p 8080 -h /www"


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace with a pod that serves a page."""
    kubectl = cluster.kubectl(namespace=_SPACE)
    kubectl("create", "namespace", _SPACE)
    kubectl.apply(pod("web", _SERVE))
    kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    yield kubectl
    kubectl("delete", "namespace", _SPACE, "--wait=false")


@pytest.fixture(scope="module")
def core(cluster: Cluster, space: Kubectl) -> Any:
    """The core API of the `kubernetes` client."""
    import kubernetes

    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))


def test_kubernetes_creates_changes_watches_and_deletes(core: Any) -> None:
    """A config map from its creation to its end, as a watch saw it; a conflict and a missing object as errors."""
    import kubernetes

    made = core.create_namespaced_config_map(_SPACE, config_map("one", a="b"))
    assert made.metadata.uid and made.data == {"a": "b"}
    made.data = {"a": "c"}
    core.replace_namespaced_config_map("one", _SPACE, made)
    with pytest.raises(kubernetes.client.ApiException) as conflict:
        core.replace_namespaced_config_map("one", _SPACE, made)
    assert conflict.value.status == 409
    core.patch_namespaced_config_map("one", _SPACE, {"metadata": {"labels": {"x": "y"}}})
    listed = core.list_namespaced_config_map(_SPACE, label_selector="x=y")
    assert [item.metadata.name for item in listed.items] == ["one"]
    core.delete_namespaced_config_map("one", _SPACE)
    watch = kubernetes.watch.Watch()
    seen = []
    for event in watch.stream(
        core.list_namespaced_config_map,
        _SPACE,
        field_selector="metadata.name=one",
        resource_version=made.metadata.resource_version,
        timeout_seconds=30,
    ):
        seen.append((event["type"], (event["object"].data or {}).get("a")))
        if event["type"] == "DELETED":
            watch.stop()
    assert seen == [("MODIFIED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]
    with pytest.raises(kubernetes.client.ApiException) as missing:
        core.read_namespaced_config_map("one", _SPACE)
    assert missing.value.status == 404


def test_kubernetes_reads_logs_runs_commands_and_forwards(core: Any) -> None:
    """logs; exec with its exit code; a port-forward over the same WebSocket protocol."""
    from kubernetes.stream import portforward, stream

    assert core.read_namespaced_pod_log("web", _SPACE) == "said\n"
    command = {"command": ["sh", "-c", "echo out; echo err >&2; exit 3"], "stdout": True, "stderr": True}
    running = stream(
        core.connect_get_namespaced_pod_exec, "web", _SPACE, stdin=False, tty=False, _preload_content=False, **command
    )
    running.run_forever(timeout=20)
    assert (running.read_stdout(), running.read_stderr(), running.returncode) == ("out\n", "err\n", 3)
    running.close()
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", _SPACE, ports="8080")
    tcp = forward.socket(8080)
    tcp.settimeout(20)
    tcp.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while data := tcp.recv(4096):
        answer += data
    assert answer.endswith(b"hello\n")
    tcp.close()


def test_kubernetes_dynamic_client_applies(cluster: Cluster, space: Kubectl) -> None:
    """The dynamic client finds kinds by discovery and applies on the server's side."""
    import kubernetes

    dynamic = kubernetes.dynamic.DynamicClient(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    for value in ("1", "2"):
        maps.server_side_apply(body=config_map("applied", v=value), namespace=_SPACE, field_manager="test")
    assert maps.get(name="applied", namespace=_SPACE).data.v == "2"


def test_kr8s_does_the_same(cluster: Cluster, space: Kubectl) -> None:
    """kr8s: create, get, patch, label, watch, logs, exec, port-forward, delete."""
    import urllib.request

    import kr8s
    from kr8s.objects import ConfigMap, Pod

    api = kr8s.api(kubeconfig=str(cluster.kubeconfig))
    made = ConfigMap({**config_map("kr8s", a="b"), "metadata": {"name": "kr8s", "namespace": _SPACE}}, api=api)
    made.create()
    made.patch({"data": {"a": "c"}})
    made.label({"x": "y"})
    found = list(api.get("configmaps", namespace=_SPACE, label_selector={"x": "y"}))
    assert [(item.name, item.data.a) for item in found] == [("kr8s", "c")]
    kind, first = next(iter(api.watch("configmaps", namespace=_SPACE)))
    assert kind == "ADDED" and first.namespace == _SPACE
    made.delete()

    web = Pod.get("web", namespace=_SPACE, api=api)
    assert list(web.logs()) == ["said"]
    done = web.exec(["sh", "-c", "echo out; echo err >&2"])
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 0)
    with (
        web.portforward(remote_port=8080) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer,
    ):
        assert answer.read() == b"hello\n"
