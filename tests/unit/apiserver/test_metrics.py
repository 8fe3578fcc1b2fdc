"""metrics.k8s.io: rates of two looks at a kubelet, told as `kubectl top` and autoscalers read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.reader import FakeReader
from tests.fakes.server import Caller, serving

from k3s.api import times
from k3s.api.errors import NotFound, ServiceUnavailable
from k3s.api.object import Object
from k3s.apiserver.aggregation import metrics
from k3s.apiserver.aggregation.aggregator import Others
from k3s.apiserver.aggregation.metrics import Figures, Metrics, Sample, figures, samples
from k3s.apiserver.aggregation.services import API_SERVICE, available
from k3s.base.clock import SystemClock

Run = Callable[[Any], Any]
BASE = "/apis/metrics.k8s.io/v1beta1"


class Kubelet:
    """Tells of a node that uses a quarter and of a container that uses half of a processor, at steps of 10 s."""

    def __init__(self) -> None:
        self.looks = 0
        self.down = False

    async def fetch(self, node: str, path: str) -> bytes:
        """The next summary."""
        if self.down or node == "gone":
            raise ServiceUnavailable("no kubelet")
        assert path == "/stats/summary"
        self.looks += 1
        at = times.format(1_800_000_000 + 10 * self.looks)
        return json.dumps(
            {
                "node": _stats(at, 2_500_000_000 * self.looks, 3 << 30),
                "pods": [
                    {
                        "podRef": {"namespace": "d", "name": "web"},
                        "containers": [{"name": "main", **_stats(at, 5_000_000_000 * self.looks, 300 << 10)}],
                    }
                ],
            }
        ).encode()


def _stats(at: str, cpu: int, memory: int) -> Object:
    return {"cpu": {"time": at, "usageCoreNanoSeconds": cpu}, "memory": {"time": at, "workingSetBytes": memory}}


def _node(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"is": name}}}


def _pod(name: str, phase: str = "Running") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
        "status": {"phase": phase},
    }


def test_figures_need_two_looks_at_the_same_thing() -> None:
    """What is new, started anew or not measured since has no rate."""
    key = ("d", "web", "main")
    old = {key: Sample(10, 100, 1), ("d", "again", "main"): Sample(10, 500, 1), ("d", "same", "main"): Sample(10, 1, 1)}
    new = {
        key: Sample(14, 2100, 7),
        ("d", "again", "main"): Sample(14, 20, 1),
        ("d", "same", "main"): Sample(10, 1, 1),
        ("d", "new", "main"): Sample(14, 20, 1),
    }
    assert figures(old, new) == {key: Figures(14, 4, 500, 7)}
    with pytest.raises(NotFound, match="cannot be read"):
        samples(b'{"node": {}}')


def test_the_group_is_served(run: Run) -> None:
    """Nodes and pods with their usage, through the door of other servers; who asks again soon looks at no kubelet."""

    async def check() -> None:
        kubelet, reader = Kubelet(), FakeReader([_node("n1"), _node("gone"), _pod("web"), _pod("done", "Succeeded")])
        served = Metrics(reader, kubelet.fetch, SystemClock())
        async with serving(others=Others(backends={metrics.SERVICE: served})) as server:
            caller = Caller(server.ports[0])
            path = "/apis/apiregistration.k8s.io/v1/apiservices"
            assert (await caller.call("POST", path, metrics.api_service()))[0] == 201
            while not available(server.cache.get(API_SERVICE, "", "v1beta1.metrics.k8s.io") or {}):
                await server.cache.reached(server.cache.revision + 1)
            status, nodes = await caller.call("GET", f"{BASE}/nodes")
            assert (status, nodes["kind"], len(nodes["items"])) == (200, "NodeMetricsList", 1)
            node = nodes["items"][0]
            assert node["metadata"]["name"] == "n1" and node["metadata"]["labels"] == {"is": "n1"}
            assert (node["usage"], node["window"]) == ({"cpu": "250000000n", "memory": "3Gi"}, "10s")
            _, pods = await caller.call("GET", f"{BASE}/namespaces/d/pods")
            assert [pod["metadata"]["name"] for pod in pods["items"]] == ["web"]
            wanted = [{"name": "main", "usage": {"cpu": "500000000n", "memory": "300Ki"}}]
            assert pods["items"][0]["containers"] == wanted
            assert kubelet.looks == 2
            assert (await caller.call("GET", f"{BASE}/pods?labelSelector=app%3Dother"))[1]["items"] == []
            assert (await caller.call("GET", f"{BASE}/namespaces/d/pods/web"))[1]["kind"] == "PodMetrics"
            status, body = await caller.call("GET", f"{BASE}/namespaces/d/pods/none")
            assert (status, body["message"]) == (404, 'podmetrics.metrics.k8s.io "d/none" not found')
            assert (await caller.call("GET", f"{BASE}/nodes/gone"))[0] == 404
            assert (await caller.call("DELETE", f"{BASE}/nodes/n1"))[0] == 405
            names = [row["name"] for row in (await caller.call("GET", BASE))[1]["resources"]]
            assert names == ["nodes", "pods"]
            _, index = await caller.call("GET", "/openapi/v3")
            _, document = await caller.call("GET", index["paths"][BASE[1:]]["serverRelativeURL"])
            assert f"{BASE}/nodes" in document["paths"]
            protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            await caller.send("GET", "/openapi/v2", Accept=protobuf)
            status, _, body = await caller.answer()
            assert status == 200 and f"{BASE}/nodes".encode() in body
            caller.close()

    run(check())
