"""What a cluster needs that has nothing to do: memory, CPU, bytes written to disk."""

from __future__ import annotations

import asyncio

import machine
from plane import plane
from pods import node

_SETTLE_S = 20.0
_MEASURE_S = 60.0


async def measure() -> dict[str, float]:
    """Server and agent of one idle node."""
    async with node() as (cluster, _):
        await asyncio.sleep(_SETTLE_S)
        pids = cluster.processes()
        cpu = {name: machine.cpu(pid) for name, pid in pids.items()}
        written = {name: machine.written(pid) for name, pid in pids.items()}
        await asyncio.sleep(_MEASURE_S)
        used = {name: (machine.cpu(pid) - cpu[name]) / _MEASURE_S * 100 for name, pid in pids.items()}
        disk = {name: (machine.written(pid) - written[name]) / 1000 for name, pid in pids.items()}
        memory = {name: machine.pss(pid) for name, pid in pids.items()}
        for what, found in (("CPU %", used), ("kB written", disk), ("PSS MB", memory)):
            print(f"    {what}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)
        return {"pss": sum(memory.values()), "idle_cpu": sum(used.values()), "idle_disk": sum(disk.values())}


async def control_plane() -> dict[str, float]:
    """A server without a node."""
    async with plane() as made:
        await asyncio.sleep(_SETTLE_S)
        return {"pss_control_plane": machine.pss(made.cluster.pid)}
