"""From exec on fresh data to /readyz, to node Ready, and to the first pod Running while the cluster's DNS answers."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import machine
from client import Client
from cluster import IMAGE, Cluster, unverified
from plane import ready

# An A query for kubernetes.default.svc.cluster.local.
_QUERY = (
    b"be\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\nkubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)
_DNS = ("10.43.0.10", 53)


def pod(name: str, grace_s: int = 1) -> dict[str, Any]:
    """A pod that sleeps, from the image that is present."""
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"]}
    spec = {
        "terminationGracePeriodSeconds": grace_s,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}


def condition(thing: Any, type: str) -> bool:
    """Whether a condition of an object's status is true."""
    return any(c["type"] == type and c["status"] == "True" for c in thing.get("status", {}).get("conditions", []))


async def _node_ready(admin: Client) -> float:
    async for at, _, node in admin.watch("/api/v1/nodes?watch=true"):
        if condition(node, "Ready"):
            return at
    raise AssertionError("a watch has no end")


async def _pod_running(admin: Client) -> float:
    path = "/api/v1/namespaces/default/pods"
    while (await admin.once("POST", path, pod("first")))[0] != 201:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    async for at, _, found in admin.watch(f"{path}?watch=true"):
        if found.get("status", {}).get("phase") == "Running":
            return at
    raise AssertionError("a watch has no end")


async def _dns_answers() -> float:
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            query.setblocking(False)
            try:
                query.connect(_DNS)
                query.send(_QUERY)
                answer = await asyncio.wait_for(loop.sock_recv(query, 512), 0.1)
            except OSError:
                await asyncio.sleep(0.02)
                continue
        # Answered without an error, with at least one record.
        if answer[3] & 15 == 0 and answer[7] > 0:
            return time.monotonic()


async def measure() -> dict[str, float]:
    """One start on fresh data, in seconds."""
    with Cluster(node=True) as cluster:
        cluster.start()
        await ready(cluster, Client(cluster.port, unverified()))
        readyz = time.monotonic()
        admin = Client(cluster.port, cluster.admin())
        times = await asyncio.wait_for(asyncio.gather(_node_ready(admin), _pod_running(admin), _dns_answers()), 60)
        used = {name: round(machine.cpu(pid), 2) for name, pid in cluster.processes().items()}
        print(f"    CPU until then: {used}", flush=True)
        node, running, dns = (at - cluster.began for at in times)
        print(f"    pod running {running:.2f} s, DNS {dns:.2f} s", flush=True)
        return {"readyz": readyz - cluster.began, "node_ready": node, "first_pod": max(running, dns)}
