"""The kernel's table of connections, through the conntrack command: listing UDP flows and forgetting some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from k3s.proxy import flows
from k3s.proxy.flows import Flow

# How many processes of the tool run side by side at most; each forgets the flows of one kind.
_AT_ONCE = 4


class Connections(Protocol):
    """What the proxy asks of the kernel's connections."""

    async def udp(self, family: str) -> set[Flow]:
        """The UDP flows of a family (ip or ip6). Raises OSError when they cannot be read."""

    async def forget(self, flows: Iterable[Flow]) -> None:
        """Deletes the flows; that there are none any more is no error. Raises OSError when it cannot be done."""


class Conntrack:
    """Implements Connections with the real tool; `command` may enter a network namespace first."""

    def __init__(self, command: tuple[str, ...] = ("conntrack",)) -> None:
        self._command = command

    async def udp(self, family: str) -> set[Flow]:
        """See Connections.udp."""
        return flows.parse(family, await self._call("-L", "-f", _FAMILY[family], "-p", "udp"))

    async def forget(self, flows: Iterable[Flow]) -> None:
        """See Connections.forget."""
        waiting = sorted(set(flows))
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*(self._call(*arguments(flow)) for flow in waiting[start : start + _AT_ONCE]))

    async def _call(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        # The tool's exit code is 1 both for "nothing matched" and for a failure; its last line tells them apart.
        if process.returncode and b"have been" not in errors:
            raise OSError(f"Cannot use conntrack {' '.join(words)}: {errors.decode(errors='replace').strip()}")
        return output.decode()


_FAMILY = {"ip": "ipv4", "ip6": "ipv6"}


def arguments(flow: Flow) -> list[str]:
    """The tool's arguments that delete a flow."""
    found = ["-D", "-f", _FAMILY[flow.family], "-p", "udp"]
    found += ["--orig-dst", flow.destination, "--orig-port-dst", str(flow.port), "--reply-src", flow.served_by]
    return found
