"""The proxy at work: watches services and endpoint slices, waits for a moment of quiet, applies what changed.

The rules stay when the process ends, so that services work during a restart; only `uninstall` removes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from k3s.api.object import Object, labels, namespace
from k3s.base.aio import Mailbox, debounced
from k3s.client.informer import Informer
from k3s.netfilter.interface import FilterError, PacketFilter
from k3s.netfilter.ruleset import Ruleset
from k3s.proxy import rules
from k3s.proxy.conntrack import Connections
from k3s.proxy.flows import stale, without_endpoints
from k3s.proxy.ports import Node, ServicePort, service_ports

log = logging.getLogger(__name__)

# A rolling update changes a slice several times within a moment; one transaction is enough, but nobody waits long.
_QUIET_S = 0.05
_AT_MOST_S = 1.0
_RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)

_SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(slots=True)
class _Entry:
    """What is known of one service: its ports, and their fragments by family."""

    ports: tuple[ServicePort, ...] = ()
    fragments: dict[str, list[rules.Fragment]] = field(default_factory=dict)


class Proxy:
    """kube-proxy for one node. The informers are run by whoever made them, who may share them.

    `open_localhost` lets packets with the address 127.0.0.1 leave the machine's inside, for node ports on localhost; it
    is called once the rules stand that keep others from using it.
    """

    def __init__(
        self,
        services: Informer,
        slices: Informer,
        node: Node,
        packets: PacketFilter,
        connections: Connections,
        open_localhost: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._packets = packets
        self._connections = connections
        self._open_localhost = open_localhost
        self._services = services
        self._slices = slices
        self._slices.add_index("service", _service_of)
        self._changed: Mailbox[str] = Mailbox()
        self._services.subscribe(lambda name, _old, _new: self._changed.put(name))
        self._slices.subscribe(self._slice_changed)
        self._entries: dict[str, _Entry] = {}
        self._applied: Ruleset | None = None
        self.failures = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; ready once the first rules are in the kernel."""
        await self._services.wait_seen(1)
        await self._slices.wait_seen(1)
        end = self._packets.subscribe(self._table_removed)
        try:
            await self._sync(self._services.objects)
            self._open_localhost()
            ready()
            async for names in debounced(self._changed, _QUIET_S, _AT_MOST_S):
                await self._sync(names)
        finally:
            end()

    def _table_removed(self, _family: str, name: str) -> None:
        """Somebody flushed the ruleset, or we replaced it: look at what is there."""
        if name in (rules.TABLE, ""):
            self._applied = None
            self._changed.put("")

    def _slice_changed(self, _name: str, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if each is not None:
                for service in _service_of(each):
                    self._changed.put(service)

    async def _sync(self, names: Iterable[str]) -> None:
        """Makes the kernel's rules true for the named services; tries again until the kernel takes them."""
        before: list[ServicePort] = []
        after: list[ServicePort] = []
        for name in names:
            was = self._entries.get(name, _Entry())
            try:
                now = self._entry(name)
            except Exception as error:
                # One service that no rules can be made of must not take the others' with it; it keeps what it had.
                log.error("Cannot make rules for service %s: %r", name, error, exc_info=error)
                continue
            if was.ports == now.ports:
                continue
            before += was.ports
            after += now.ports
            self._entries[name] = now
            if not now.ports:
                del self._entries[name]
        if before or after or self._applied is None:
            await self._apply()
            await self._forget(before, after)

    def _entry(self, name: str) -> _Entry:
        service = self._services.get(name)
        if service is None:
            return _Entry()
        entry = _Entry(service_ports(service, self._slices.index("service", name), self._node))
        for port in entry.ports:
            entry.fragments.setdefault(port.family, []).append(rules.fragment(port, self._node))
        return entry

    async def _apply(self) -> None:
        wanted = tuple(
            rules.table(family, (each for entry in self._entries.values() for each in entry.fragments.get(family, ())))
            for family in rules.families(self._node)
        )
        while True:
            try:
                known = self._applied if self._applied is not None else await self._observe()
                # Set first: a table that is removed meanwhile makes it None again.
                self._applied = wanted
                await self._packets.apply(known, wanted)
            except FilterError as error:
                wait = _RETRY_S[min(self.failures, len(_RETRY_S) - 1)]
                self.failures += 1
                log.error("Cannot apply service rules", extra={"reason": str(error), "retry_s": wait})
                self._applied = None  # whatever the reason: look again at what is there
                await asyncio.sleep(wait)
                continue
            break
        self.failures = 0

    async def _observe(self) -> Ruleset | None:
        """The rules that an earlier run left; `None` when they are not of our making and have to go."""
        found = []
        for family in rules.families(self._node):
            try:
                table = await self._packets.observe(family, rules.TABLE)
            except FilterError:
                return None
            if table is not None:
                found.append(table)
        return tuple(found)

    async def _forget(self, before: list[ServicePort], after: list[ServicePort]) -> None:
        """Cleans the connections of the UDP services among those that changed."""
        kept = {(address, number) for port in after for address, number in port.destinations}
        gone = [port for port in before if not kept.issuperset(port.destinations)]
        changed = [port for port in (*without_endpoints(gone), *after) if port.protocol == "udp"]
        try:
            for family in sorted({port.family for port in changed}):
                flows = stale(await self._connections.udp(family), changed, self._node.cluster_cidrs)
                await self._connections.forget(flows)
        except OSError as error:
            # The rules are right; flows that are open keep their old way until the kernel times them out.
            log.warning("Cannot clean UDP connections", extra={"reason": str(error)})


def _service_of(obj: Object) -> list[str]:
    owner = labels(obj).get(_SERVICE_LABEL)
    return [f"{namespace(obj)}/{owner}"] if owner else []


async def uninstall(packets: PacketFilter) -> None:
    """Removes every rule of the proxy."""
    for family in ("ip", "ip6"):
        await packets.delete(family, rules.TABLE)
