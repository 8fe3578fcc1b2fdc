"""Pods on a real node: one pod's way to Ready and away, and fifty of a Deployment."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import machine
from client import Client
from cluster import Cluster, unverified
from plane import namespace, ready
from start import condition, pod

_PODS = "/api/v1/namespaces/bench/pods"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/bench/deployments"
_REPLICAS = 50


@asynccontextmanager
async def node() -> AsyncIterator[tuple[Cluster, Client]]:
    """A cluster with its node Ready, and the administrator's client."""
    with Cluster(node=True) as cluster:
        cluster.start()
        await ready(cluster, Client(cluster.port, unverified()))
        admin = Client(cluster.port, cluster.admin())
        await namespace(admin, "bench")
        async for _, _, found in admin.watch("/api/v1/nodes?watch=true"):
            if condition(found, "Ready"):
                break
        yield cluster, admin


class Seen:
    """Follows a watch from its start; what was seen can be waited for."""

    def __init__(self, admin: Client, path: str) -> None:
        self._events: list[tuple[float, str, Any]] = []
        self._more = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow(admin, path))

    async def _follow(self, admin: Client, path: str) -> None:
        async for event in admin.watch(path):
            self._events.append(event)
            self._more.set()

    async def until(self, wanted: Callable[[str, Any], bool], within_s: float = 180) -> float:
        """When the first event came that is as wanted. Raises TimeoutError."""
        seen = 0
        async with asyncio.timeout(within_s):
            while True:
                for at, type, thing in self._events[seen:]:
                    seen += 1
                    if wanted(type, thing):
                        return at
                self._more.clear()
                await self._more.wait()

    def stop(self) -> None:
        """Ends the watch."""
        self._task.cancel()


async def _one(admin: Client, name: str) -> tuple[float, float]:
    seen = Seen(admin, f"{_PODS}?watch=true")
    await asyncio.sleep(0.5)

    def mine(thing: Any) -> bool:
        return bool(thing["metadata"]["name"] == name)

    began = time.monotonic()
    await admin.make(_PODS, pod(name))
    up = await seen.until(lambda type, thing: mine(thing) and condition(thing, "Ready"))
    deleted = time.monotonic()
    await admin.once("DELETE", f"{_PODS}/{name}")
    gone = await seen.until(lambda type, thing: mine(thing) and type == "DELETED")
    seen.stop()
    return up - began, gone - deleted


async def _fifty(cluster: Cluster, admin: Client) -> tuple[float, float]:
    labels = {"app": "fifty"}
    template = {"metadata": {"labels": labels}, "spec": pod("")["spec"]}
    spec = {"replicas": _REPLICAS, "selector": {"matchLabels": labels}, "template": template}
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fifty"}, "spec": spec}
    deployments, pods = Seen(admin, f"{_DEPLOYMENTS}?watch=true"), Seen(admin, f"{_PODS}?watch=true")
    await asyncio.sleep(0.5)
    used = {name: machine.cpu(pid) for name, pid in cluster.processes().items()}
    began = time.monotonic()
    await admin.make(_DEPLOYMENTS, wanted)
    up = await deployments.until(lambda type, thing: thing.get("status", {}).get("availableReplicas") == _REPLICAS)
    tell_cpu("deploy", cluster, used)
    await asyncio.sleep(3)
    gone: set[str] = set()

    def last(type: str, thing: Any) -> bool:
        if type == "DELETED" and "fifty" in thing["metadata"]["name"]:
            gone.add(thing["metadata"]["uid"])
        return len(gone) == _REPLICAS

    used = {name: machine.cpu(pid) for name, pid in cluster.processes().items()}
    deleted = time.monotonic()
    await admin.once("DELETE", f"{_DEPLOYMENTS}/fifty")
    away = await pods.until(last)
    tell_cpu("undeploy", cluster, used)
    deployments.stop()
    pods.stop()
    return up - began, away - deleted


def tell_cpu(what: str, cluster: Cluster, before: dict[str, float]) -> None:
    """Prints what each process has used since."""
    used = {name: round(machine.cpu(pid) - before.get(name, 0), 2) for name, pid in cluster.processes().items()}
    print(f"    {what}: CPU seconds {used}, load {machine.load()}", flush=True)


async def measure(repeats: int) -> AsyncIterator[dict[str, float]]:
    """Single pods, then the Deployment, `repeats` times on one cluster."""
    async with node() as (cluster, admin):
        await _one(admin, "warm-up")
        for number in range(repeats):
            singles = [await _one(admin, f"one-{number}-{i}") for i in range(3)]
            up, away = await _fifty(cluster, admin)
            yield {
                "pod_ready": statistics.median(s[0] for s in singles),
                "pod_gone": statistics.median(s[1] for s in singles),
                "deploy": up,
                "undeploy": away,
            }
