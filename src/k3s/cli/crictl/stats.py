"""`crictl stats` and `statsp`: what containers and pods use, the processor's share over a sample of time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from k3s.cli.crictl import words
from k3s.cli.crictl.images import value
from k3s.cli.crictl.session import Failed, Session

Item = Mapping[str, Any]

_CLEAR = "\x1b[2J\x1b[H"
_PAUSE_S = 0.5


def _id(item: Item) -> str:
    return str((item["attributes"] or {}).get("id", ""))


def _spent(cpu: Item | None) -> tuple[int, int]:
    """Nanoseconds of processor time, and when that was so."""
    return (value(cpu["usage_core_nano_seconds"]), cpu["timestamp"]) if cpu else (0, 0)


def share(before: Item | None, after: Item | None) -> str:
    """Percent of one processor between two samples. Raises Failed when there is no time between them."""
    (was, then), (now, at) = _spent(before), _spent(after)
    if now and at == then:
        raise Failed("cpu stat is not updated during sample")
    return f"{(now - was) / (at - then) * 100 if now else 0.0:.2f}"


def containers_table(before: Sequence[Item], after: Sequence[Item], *, everything: bool) -> str:
    """Containers by their ids; those that came between the samples are left out, and without `everything` idle ones."""
    rows: list[Sequence[str]] = [("CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP")]
    old = {_id(item): item for item in before}
    for item in sorted(after, key=_id):
        cpu, memory, layer, swap = (item[key] or {} for key in ("cpu", "memory", "writable_layer", "swap"))
        used = value(memory.get("working_set_bytes"))
        if (not everything and not used and not _spent(cpu)[0]) or _id(item) not in old:
            continue
        rows.append(
            (
                words.short(_id(item)),
                ((item["attributes"] or {}).get("metadata") or {}).get("name", ""),
                share(old[_id(item)]["cpu"], item["cpu"]),
                words.size(used),
                words.size(value(layer.get("used_bytes"))),
                str(value(layer.get("inodes_used"))),
                words.size(value(swap.get("swap_usage_bytes"))),
            )
        )
    return words.table(rows)


def pods_table(before: Sequence[Item], after: Sequence[Item]) -> str:
    """Pods by their ids; those that came between the samples and those without figures are left out."""
    rows: list[Sequence[str]] = [("POD", "POD ID", "CPU %", "MEM")]
    old = {_id(item): item["linux"] or {} for item in before}
    for item in sorted(after, key=_id):
        linux = item["linux"] or {}
        used = value((linux.get("memory") or {}).get("working_set_bytes"))
        if (not used and not _spent(linux.get("cpu"))[0]) or _id(item) not in old:
            continue
        name = ((item["attributes"] or {}).get("metadata") or {}).get("name", "")
        cpu = share(old[_id(item)].get("cpu"), linux.get("cpu"))
        rows.append((name, words.short(_id(item)), cpu, words.size(used)))
    return words.table(rows)


async def stats(session: Session) -> None:
    """Shows what containers use."""
    everything = session.options.on("all")
    wanted = {**_wanted(session), "pod_sandbox_id": session.options.text("pod")}

    async def sample() -> dict[str, Any]:
        return await session.ask("ListContainerStats", filter=wanted)

    await _show(
        session, sample, "ListContainerStatsResponse", lambda a, b: containers_table(a, b, everything=everything)
    )


async def statsp(session: Session) -> None:
    """Shows what pods use."""

    async def sample() -> dict[str, Any]:
        return await session.ask("ListPodSandboxStats", filter=_wanted(session))

    await _show(session, sample, "ListPodSandboxStatsResponse", pods_table)


def _wanted(session: Session) -> dict[str, Any]:
    options = session.options
    return {"id": options.text("id") or "".join(session.words), "label_selector": options.pairs("label")}


async def _show(
    session: Session,
    sample: Callable[[], Awaitable[dict[str, Any]]],
    message: str,
    table: Callable[[Sequence[Item], Sequence[Item]], str],
) -> None:
    """Two samples and the table between them; again and again when it is to be watched."""
    while True:
        before = await sample()
        before["stats"].sort(key=_id)
        if not session.document(message, before):
            await asyncio.sleep(session.options.number("seconds"))
            text = table(before["stats"], (await sample())["stats"])
            print((_CLEAR if session.options.on("watch") else "") + text, end="")
        if not session.options.on("watch"):
            return
        sys.stdout.flush()
        await asyncio.sleep(_PAUSE_S)
