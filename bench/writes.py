"""Server CPU of writes, and how many of them are durable in a second.

What is kept of ConfigMaps goes on until the server is quiet. Of Pods both is told: while requests run, as the figures
of k3s were taken, and until all is quiet, when the scheduler has judged each new Pod, patched its status, told of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from client import APPLY, MERGE, STRATEGIC
from plane import (
    CUSTOM,
    DEFINITIONS,
    MAPS,
    PODS,
    Cost,
    Plane,
    config_map,
    custom_kind,
    custom_object,
    quiet_pod,
    waiting_pod,
)

_COUNT = 1000
_PATCH = {"metadata": {"labels": {"touched": "yes"}, "annotations": {"bench/note": "y" * 64}}}


async def _series(plane: Plane, what: str, requests: list[bytes], connections: int = 16) -> Cost:
    found = await plane.cost(requests, connections)
    print(f"    {what}: {plane.last}", flush=True)
    return found


async def _life(plane: Plane, path: str, make: Callable[[str], dict[str, Any]]) -> dict[str, Cost]:
    request = plane.client.request
    names = [f"w{i}" for i in range(_COUNT)]
    series = {
        "create": [request("POST", path, make(name)) for name in names],
        "patch": [request("PATCH", f"{path}/{name}", _PATCH, MERGE) for name in names],
        "delete": [request("DELETE", f"{path}/{name}") for name in names],
    }
    return {verb: await _series(plane, verb, requests) for verb, requests in series.items()}


async def config_maps(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Create, patch and delete ConfigMaps of 1 kB."""
    while True:
        found = await _life(plane, MAPS, config_map)
        yield {f"{verb}_configmap": cost.whole * 1e6 for verb, cost in found.items()}


async def custom_objects(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """The same with objects of a custom kind of the same size, and with ConfigMaps beside it, for the ratio."""
    await plane.fill(DEFINITIONS, [custom_kind()])
    while True:
        custom = await _life(plane, CUSTOM, custom_object)
        built_in = await _life(plane, MAPS, config_map)
        kept = {f"{verb}_custom": cost.whole * 1e6 for verb, cost in custom.items()}
        yield {**kept, **{f"{verb}_ratio": cost.whole / built_in[verb].whole for verb, cost in custom.items()}}


async def pod_writes(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Create, patch and delete Pods that stay pending; the scheduler looks at each."""
    while True:
        found = await _life(plane, PODS, waiting_pod)
        kept = {f"{verb}_pod": cost.asked * 1e6 for verb, cost in found.items()}
        yield {**kept, **{f"{verb}_pod_whole": cost.whole * 1e6 for verb, cost in found.items()}}


async def pod_patches(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Strategic patches and server-side applies of Pods that no scheduler looks at; each changes the Pod."""
    request = plane.client.request
    names = [f"a{i}" for i in range(_COUNT)]
    await plane.fill(PODS, [quiet_pod(name) for name in names])
    paths = {name: f"{PODS}/{name}?fieldManager=bench-apply&force=true" for name in names}
    turn = 0
    while True:
        turn += 1
        patch = {"metadata": {"labels": {"touched": f"t{turn}"}, "annotations": {"bench/note": "y" * 64}}}
        patches = [request("PATCH", f"{PODS}/{name}", patch, STRATEGIC) for name in names]
        applies = []
        for name in names:
            pod = quiet_pod(name)
            pod["metadata"]["annotations"] = {"bench/turn": f"a{turn}"}
            applies.append(request("PATCH", paths[name], pod, APPLY))
        yield {
            "strategic_pod": (await _series(plane, "strategic patch", patches)).whole * 1e6,
            "apply_pod": (await _series(plane, "apply", applies)).whole * 1e6,
        }


async def durable(plane: Plane) -> AsyncIterator[dict[str, float]]:
    """Creates of ConfigMaps by 32 clients; each is answered when it is on the disk."""
    number = 0
    while True:
        requests = [plane.client.request("POST", MAPS, config_map(f"d{number + i}")) for i in range(4000)]
        number += len(requests)
        await _series(plane, "durable creates", requests, 32)
        yield {"durable": plane.per_second, "durable_p99": plane.p99_s * 1e3}
