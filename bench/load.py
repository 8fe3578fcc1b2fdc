"""Server CPU per request on a control plane without a node: reads, writes, watches, new connections.

A figure is what the server process used from the first request until it is quiet again, so that what controllers and
the scheduler do about a write counts, too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import machine
from client import MERGE, Client
from cluster import TOKEN, Cluster, unverified

_PAD = "x" * 1000
_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "bench"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}],
}


@dataclass
class Plane:
    """A control plane under load. `last` is how the latest series went, for people."""

    cluster: Cluster
    client: Client
    last: str = ""

    async def cost(self, requests: list[bytes], connections: int = 16, per_second: float = 0) -> float:
        """Server CPU in seconds per request of the series, its aftermath included."""
        pid = self.cluster.pid
        machine.quiet([pid])
        before, began = machine.cpu(pid), time.monotonic()
        latencies = sorted(await self.client.drive(requests, connections, per_second))
        wall, during = time.monotonic() - began, machine.cpu(pid) - before
        machine.quiet([pid])
        used = machine.cpu(pid) - before
        count = len(requests)
        self.last = (
            f"{count / wall:.0f}/s, p50 {latencies[count // 2] * 1000:.1f} ms, "
            f"p99 {latencies[count * 99 // 100] * 1000:.1f} ms, "
            f"{during / wall:.0%} of a core, {(used - during) / count * 1e6:.0f} µs of it later"
        )
        return used / count


@asynccontextmanager
async def plane() -> AsyncIterator[Plane]:
    """A fresh control plane whose user `bench` is an administrator by RBAC."""
    with Cluster(node=False) as cluster:
        cluster.start()
        await ready(cluster, Client(cluster.port, unverified()))
        admin = Client(cluster.port, cluster.admin())
        await admin.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", _BINDING)
        made = Plane(cluster, Client(cluster.port, unverified(), TOKEN))
        await namespace(made.client, "bench")
        yield made


async def ready(cluster: Cluster, client: Client) -> None:
    """Waits until the server says that it is ready. Raises RuntimeError when it ended or needs more than a minute."""
    while time.monotonic() < cluster.began + 60:
        cluster.check()
        try:
            if (await client.once("GET", "/readyz"))[0] == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise RuntimeError(f"Cannot measure: not ready within a minute\n{cluster.log.read_text()[-4000:]}")


async def namespace(client: Client, name: str) -> None:
    """A namespace in which pods can be made."""
    await client.make("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    while (await client.once("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default"))[0] != 200:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def config_map(name: str, text: str = _PAD) -> dict[str, Any]:
    """A ConfigMap of about 1 kB."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"blob": text},
    }


def waiting_pod(name: str) -> dict[str, Any]:
    """A Pod that fits no node."""
    container = {"name": "c", "image": "busybox", "command": ["sleep", "100000"]}
    spec = {"automountServiceAccountToken": False, "containers": [container], "nodeSelector": {"bench/never": "true"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}


_MAPS = "/api/v1/namespaces/bench/configmaps"
_PODS = "/api/v1/namespaces/bench/pods"


async def get(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """GET one ConfigMap of 1 kB."""
    await plane.client.make(_MAPS, config_map("read"))
    while True:
        yield {"get": await plane.cost([plane.client.request("GET", f"{_MAPS}/read")] * 10_000, 32) * 1e6}


async def lists(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """LIST 1000 ConfigMaps of 1 kB in one namespace."""
    await namespace(plane.client, "bench-list")
    path = "/api/v1/namespaces/bench-list/configmaps"
    await plane.client.drive([plane.client.request("POST", path, config_map(f"m{i}")) for i in range(1000)])
    while True:
        yield {"list": await plane.cost([plane.client.request("GET", path)] * 100, 4) * 1e3}


async def _writes(plane: Plane, path: str, make: Callable[[str], dict[str, Any]], what: str) -> dict[str, float]:
    count, request = 1000, plane.client.request
    patch = {"metadata": {"labels": {"touched": "yes"}, "annotations": {"bench/note": "y" * 64}}}
    series = {
        "create": [request("POST", path, make(f"w{i}")) for i in range(count)],
        "patch": [request("PATCH", f"{path}/w{i}", patch, MERGE) for i in range(count)],
        "delete": [request("DELETE", f"{path}/w{i}") for i in range(count)],
    }
    found = {}
    for verb, requests in series.items():
        found[f"{verb}_{what}"] = await plane.cost(requests) * 1e6
        print(f"    {verb} {what}: {plane.last}", flush=True)
    return found


async def config_maps(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Create, patch and delete ConfigMaps of 1 kB."""
    while True:
        yield await _writes(plane, _MAPS, config_map, "configmap")


async def pod_writes(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Create, patch and delete Pods that stay pending; the scheduler looks at each."""
    while True:
        yield await _writes(plane, _PODS, waiting_pod, "pod")


async def watch(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Creates of ConfigMaps that 100 watchers on 100 connections see."""
    await namespace(plane.client, "bench-watch")
    path = "/api/v1/namespaces/bench-watch/configmaps"
    _, body = await plane.client.once("GET", path)
    revision = json.loads(body)["metadata"]["resourceVersion"]
    seen = 0

    def count(data: bytes) -> None:
        nonlocal seen
        seen += data.count(b'"type":"ADDED"')

    watching = [await plane.client.connect(count) for _ in range(100)]
    for connection in watching:
        await connection.send(plane.client.request("GET", f"{path}?watch=true&resourceVersion={revision}"))
    number = 0
    while True:
        found = {}
        for key, per_second, size in (("watch_burst", 0, 500), ("watch_paced", 50, 200)):
            seen = 0
            requests = [plane.client.request("POST", path, config_map(f"e{number + i}")) for i in range(size)]
            number += size
            found[key] = await plane.cost(requests, 16, per_second) * 1e3
            print(f"    {key}: {plane.last}; {seen} of {size * 100} events seen", flush=True)
        yield found


async def tls(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """A new TLS connection for each GET /version."""
    while True:
        pid = plane.cluster.pid
        machine.quiet([pid])
        before = machine.cpu(pid)
        for _ in range(300):
            await plane.client.once("GET", "/version")
        yield {"tls": (machine.cpu(pid) - before) / 300 * 1e6}


SCENARIOS = {"get": get, "list": lists, "configmaps": config_maps, "podwrites": pod_writes, "watch": watch, "tls": tls}
