"""A control plane without a node, and what a series of requests costs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import machine
from client import Client
from cluster import TOKEN, Cluster, unverified

PAD = "x" * 1000
MAPS = "/api/v1/namespaces/bench/configmaps"
PODS = "/api/v1/namespaces/bench/pods"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CUSTOM = "/apis/bench.example.com/v1/namespaces/bench/blobs"
_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "bench"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bench"}],
}


class Cost(NamedTuple):
    """Server CPU of a series in seconds per request: `asked` while requests ran, `whole` until the server was quiet."""

    asked: float
    whole: float


@dataclass
class Plane:
    """A control plane under load; the rest is how the latest series went."""

    cluster: Cluster
    client: Client
    last: str = ""
    per_second: float = 0.0
    p99_s: float = 0.0

    async def cost(self, requests: list[bytes], connections: int = 16, per_second: float = 0) -> Cost:
        """What a series costs the server."""
        pid = self.cluster.pid
        machine.quiet([pid])
        before, began = machine.cpu(pid), time.monotonic()
        latencies = sorted(await self.client.drive(requests, connections, per_second))
        wall, asked = time.monotonic() - began, machine.cpu(pid) - before
        machine.quiet([pid])
        whole = machine.cpu(pid) - before
        count = len(requests)
        self.per_second, self.p99_s = count / wall, latencies[count * 99 // 100]
        self.last = (
            f"{self.per_second:.0f}/s, p50 {latencies[count // 2] * 1000:.1f} ms, p99 {self.p99_s * 1000:.1f} ms, "
            f"{asked / wall:.0%} of a core, {(whole - asked) / count * 1e6:.0f} µs of it later"
        )
        return Cost(asked / count, whole / count)

    async def fresh(self, count: int, path: str) -> float:
        """What a request on a new connection costs the server, in seconds."""
        pid = self.cluster.pid
        machine.quiet([pid])
        before = machine.cpu(pid)
        for _ in range(count):
            await self.client.once("GET", path)
        self.last = ""
        return (machine.cpu(pid) - before) / count

    async def fill(self, path: str, objects: list[dict[str, Any]]) -> None:
        """Creates objects."""
        await self.client.drive([self.client.request("POST", path, obj) for obj in objects], 32)


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


def config_map(name: str, text: str = PAD) -> dict[str, Any]:
    """A ConfigMap of about 1 kB."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"blob": text},
    }


def custom_kind() -> dict[str, Any]:
    """A custom kind whose objects look like ConfigMaps."""
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"data": texts}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "blobs.bench.example.com"},
        "spec": {
            "group": "bench.example.com",
            "scope": "Namespaced",
            "names": {"plural": "blobs", "kind": "Blob"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def custom_object(name: str) -> dict[str, Any]:
    """An object of it, of about 1 kB."""
    return {**config_map(name), "apiVersion": "bench.example.com/v1", "kind": "Blob"}


def waiting_pod(name: str) -> dict[str, Any]:
    """A Pod that fits no node."""
    container = {"name": "c", "image": "busybox", "command": ["sleep", "100000"]}
    spec = {"automountServiceAccountToken": False, "containers": [container], "nodeSelector": {"bench/never": "true"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}


def quiet_pod(name: str) -> dict[str, Any]:
    """A Pod of 1.5 to 2 kB, as stored, that is another scheduler's business."""
    container = {
        "name": "main",
        "image": "registry.example/team/service:1.24.3",
        "ports": [{"containerPort": 8080, "name": "http"}],
        "env": [{"name": "MODE", "value": "production"}, {"name": "LOG_LEVEL", "value": "info"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    }
    labels = {"app.kubernetes.io/name": "service", "app.kubernetes.io/instance": "bench", "tier": "backend"}
    spec = {"automountServiceAccountToken": False, "schedulerName": "nobody", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
