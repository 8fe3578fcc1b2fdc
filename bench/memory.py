"""Resident memory of a control plane with 10 000 Pods, and after all the load of the other scenarios."""

from __future__ import annotations

import asyncio

import machine
import reads
import watches
import writes
from plane import PODS, Plane, plane, quiet_pod

_PODS = 10_000
_SETTLE_S = 5.0


async def measure() -> dict[str, float]:
    """One fresh control plane, controllers and scheduler on: idle, with the Pods, then after everything else."""
    async with plane() as made:
        pid = made.cluster.pid
        await asyncio.sleep(_SETTLE_S)
        idle = machine.rss(pid)
        await made.fill(PODS, [quiet_pod(f"m{i}") for i in range(_PODS)])
        machine.quiet([pid])
        await asyncio.sleep(_SETTLE_S)
        full = machine.rss(pid)
        await made.client.drive([made.client.request("DELETE", f"{PODS}/m{i}") for i in range(_PODS)], 32)
        await _everything(made)
        machine.quiet([pid])
        after = machine.rss(pid)
        print(f"    RSS in MB: idle {idle:.1f}, with the Pods {full:.1f}, after all {after:.1f}", flush=True)
        return {"pods_rss": full - idle, "rss_after": after}


async def _everything(made: Plane) -> None:
    scenarios = (reads.get, reads.lists, writes.config_maps, writes.pod_writes, writes.pod_patches, watches.watch)
    for scenario in scenarios:
        series = scenario(made)
        await anext(series)
        await series.aclose()  # type: ignore[attr-defined]
