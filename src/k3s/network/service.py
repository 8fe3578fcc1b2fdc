"""The node's network at work: waits for the node's pod range, writes the CNI configuration, keeps rules and routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from k3s.base.aio import Mailbox, debounced
from k3s.base.files import write_changed
from k3s.client.informer import Informer
from k3s.netfilter.interface import FilterError, PacketFilter
from k3s.netfilter.ruleset import Table
from k3s.network import cni, masquerade
from k3s.network.diff import diff
from k3s.network.interface import HostError, Machine
from k3s.network.plan import Config, plan, pod_cidrs, unreachable

log = logging.getLogger(__name__)

_QUIET_S = 0.02
_AT_MOST_S = 0.5
_RETRY_S = 5.0


class Network:
    """CNI, masquerading and routes for node `me`; `folder` is where containerd looks for CNI configurations.

    The informer has at least the node itself, with host-gw all nodes; whoever made it runs it.
    """

    def __init__(
        self,
        nodes: Informer,
        me: str,
        config: Config,
        folder: Path,
        machine: Machine,
        packets: PacketFilter,
    ) -> None:
        self._nodes = nodes
        self._me = me
        self._config = config
        self._folder = folder
        self._machine = machine
        self._packets = packets
        self._changed: Mailbox[str] = Mailbox()
        self._nodes.subscribe(lambda name, _old, _new: self._changed.put(name))

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; ready once pods can get an address. Leaves everything in place for a restart."""
        for problem in await self._machine.prepare(ipv6=any(":" in each for each in self._config.cluster_cidrs)):
            log.error(problem)
        end = self._packets.subscribe(self._table_removed)
        try:
            await self._persist(self._masquerade)
            await self._nodes.wait_seen(1)
            is_ready = False
            self._changed.put(self._me)
            async for _ in debounced(self._changed, _QUIET_S, _AT_MOST_S):
                written = await self._sync()
                if written and not is_ready:
                    is_ready = True
                    ready()
        finally:
            end()

    def _table_removed(self, _family: str, name: str) -> None:
        if name in (masquerade.TABLE, ""):
            self._changed.put(self._me)

    async def _sync(self) -> bool:
        """Brings files and routes up to date; false while the node has no pod range yet."""
        if self._config.backend == "none":  # the cluster's own CNI plugin does all this
            return True
        node = self._nodes.get(self._me)
        cidrs = pod_cidrs(node) if node else ()
        if not cidrs:
            return False
        path = self._folder / cni.FILE
        if write_changed(path, cni.conflist(cidrs, self._config.mtu), mode=0o600):
            log.info("CNI configuration written", extra={"path": str(path), "pod_cidrs": ",".join(cidrs)})
        for other in unreachable(self._nodes.values(), self._me, self._config):
            log.error(
                "Cannot reach the pods of another node: backend %s is not there yet; use --flannel-backend=host-gw",
                self._config.backend,
                extra={"node": other},
            )
        await self._persist(self._masquerade)
        await self._persist(self._routes)
        return True

    async def _routes(self) -> None:
        desired = plan(self._nodes.values(), self._me, self._config)
        await self._machine.apply(diff(await self._machine.observe(), desired))

    async def _masquerade(self) -> None:
        if self._config.backend == "none":
            return
        wanted = masquerade.ruleset(self._config.cluster_cidrs)
        if [await self._observed(table) for table in wanted] != list(wanted):
            await self._packets.apply(None, wanted)

    async def _observed(self, table: Table) -> Table | None:
        try:
            return await self._packets.observe(table.family, table.name)
        except FilterError:
            return None  # not of our making, or of another release

    async def _persist(self, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await action()
            except (FilterError, HostError) as error:
                log.error("Cannot set up the network", extra={"reason": str(error), "retry_s": _RETRY_S})
                await asyncio.sleep(_RETRY_S)
                continue
            return


async def uninstall(packets: PacketFilter) -> None:
    """Removes the rules; links and routes are the host's to remove."""
    for family in ("ip", "ip6"):
        await packets.delete(family, masquerade.TABLE)
