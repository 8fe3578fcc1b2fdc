"""The kernel's table of connections, through the conntrack command: forgetting flows that rules no longer allow.

Translation is decided once a connection; for UDP, where a "connection" lives as long as packets come, an old decision
would send a client to an address that no longer serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

# How many flows are named in one call of the tool at most; each call starts a process.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """Flows to an address (empty: any) and port, all of them or only those that were translated to `translated`."""

    protocol: str
    destination: str
    port: int
    translated: str = ""


def arguments(flow: Flow) -> list[str]:
    """The tool's arguments that delete a flow."""
    address = flow.translated or flow.destination
    found = ["-D", "-f", "ipv6" if ":" in address else "ipv4", "-p", flow.protocol]
    if flow.destination:
        found += ["--orig-dst", flow.destination]
    found += ["--orig-port-dst", str(flow.port)]
    if flow.translated:
        found += ["--dst-nat", flow.translated]
    return found


class Conntrack:
    """Implements `forget` with the real tool; `command` may enter a network namespace first."""

    def __init__(self, command: tuple[str, ...] = ("conntrack",)) -> None:
        self._command = command

    async def forget(self, flows: Iterable[Flow]) -> None:
        """Deletes the flows; that there are none is no error. Raises OSError when the tool cannot be run."""
        waiting = sorted(set(flows))
        for start in range(0, len(waiting), _AT_ONCE):
            await asyncio.gather(*map(self._delete, waiting[start : start + _AT_ONCE]))

    async def _delete(self, flow: Flow) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments(flow),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        # The tool's exit code is 1 both for "nothing matched" and for a failure; its last line tells them apart.
        if process.returncode and b"have been deleted" not in errors:
            raise OSError(f"Cannot forget {flow}: conntrack answers: {errors.decode(errors='replace').strip()}")
