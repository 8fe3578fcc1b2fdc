"""Server CPU of reads. No request asks for gzip, so that no answer is compressed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from plane import MAPS, Plane, config_map, namespace, quiet_pod, waiting_pod

_CHURN = 10_000


async def _get(plane: Plane) -> float:
    return (await plane.cost([plane.client.request("GET", f"{MAPS}/read")] * 10_000, 32)).whole * 1e6


async def _list(plane: Plane, path: str, times: int = 100) -> float:
    return (await plane.cost([plane.client.request("GET", path)] * times, 4)).whole * 1e3


async def _filled(plane: Plane, space: str, count: int) -> str:
    await namespace(plane.client, space)
    path = f"/api/v1/namespaces/{space}/configmaps"
    await plane.fill(path, [config_map(f"m{i}") for i in range(count)])
    return path


async def get(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """GET one ConfigMap of 1 kB."""
    await plane.client.make(MAPS, config_map("read"))
    while True:
        yield {"get": await _get(plane)}


async def lists(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """LIST 1000 and 10 000 ConfigMaps of 1 kB, each in one namespace, and 1000 Pods."""
    thousand = await _filled(plane, "bench-list", 1000)
    many = await _filled(plane, "bench-list-10000", 10_000)
    await namespace(plane.client, "bench-pods")
    pods = "/api/v1/namespaces/bench-pods/pods"
    await plane.fill(pods, [quiet_pod(f"p{i}") for i in range(1000)])
    while True:
        yield {
            "list": await _list(plane, thousand),
            "list_10000": await _list(plane, many, 20),
            "list_pods": await _list(plane, pods),
        }


async def churned(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """GET and LIST 1000 after 10 000 creates and 10 000 deletes of ConfigMaps, and as many again of 1000 Pods."""
    await plane.client.make(MAPS, config_map("read"))
    path = await _filled(plane, "bench-list", 1000)
    request = plane.client.request
    await plane.fill(MAPS, [config_map(f"c{i}") for i in range(_CHURN)])
    await plane.client.drive([request("DELETE", f"{MAPS}/c{i}") for i in range(_CHURN)], 32)
    pods = MAPS.replace("configmaps", "pods")
    await plane.fill(pods, [waiting_pod(f"c{i}") for i in range(1000)])
    await plane.client.drive([request("DELETE", f"{pods}/c{i}") for i in range(1000)], 32)
    while True:
        yield {"get_churned": await _get(plane), "list_churned": await _list(plane, path)}


async def tls(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """A new TLS connection for each GET /version: a full handshake, nothing resumed."""
    while True:
        yield {"tls": await plane.fresh(300, "/version") * 1e6}
