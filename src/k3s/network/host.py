"""The machine's network as this program sees and changes it: addresses, links, routes, sysctls, kernel modules."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from k3s.api.object import Object
from k3s.network import address
from k3s.network.diff import AddLink, DeleteLink, DeleteRoute, NetOp, SetRoute
from k3s.network.interface import HostError
from k3s.network.plan import Link, NetState, Route

log = logging.getLogger(__name__)

# Routes that carry this protocol number are ours (numbers from 192 on are free for local use).
_PROTOCOL = "203"

# Why each is needed, for the message when it cannot be set.
SYSCTLS = {
    "net/ipv4/ip_forward": ("1", "pods reach nothing outside their node without it"),
    "net/bridge/bridge-nf-call-iptables": ("1", "pods of the same node do not reach each other through services"),
}
SYSCTLS_IPV6 = {
    "net/ipv6/conf/all/forwarding": ("1", "pods reach nothing outside their node over IPv6 without it"),
    "net/bridge/bridge-nf-call-ip6tables": ("1", "pods of the same node do not reach each other through services"),
}
_MODULES = {"net/bridge": "br_netfilter"}


class Host:
    """The real machine. `command` may enter a network namespace first; `sysctls` is where /proc/sys is."""

    def __init__(self, command: tuple[str, ...] = ("ip",), sysctls: Path = Path("/proc/sys")) -> None:
        self._command = command
        self._sysctls = sysctls

    async def node_address(self, wanted: str = "", interface: str = "") -> address.NodeAddress:
        """The node's address (see `address.choose`). Raises AddressError, HostError."""
        links, routes = await asyncio.gather(self._json("address", "show"), self._json("route", "show", "default"))
        return address.choose(links, routes, wanted, interface)

    async def prepare(self, ipv6: bool = False) -> list[str]:
        """Turns on forwarding and rules for bridged packets; answers what could not be done, for people to read."""
        problems = []
        for name, (value, reason) in (SYSCTLS | (SYSCTLS_IPV6 if ipv6 else {})).items():
            path = self._sysctls / name
            try:
                if not path.exists():
                    await self._load(_MODULES.get(name.rpartition("/")[0], ""))
                if path.read_text().strip() != value:
                    path.write_text(value)
            except OSError as error:
                dotted = name.replace("/", ".")
                problems.append(f"Cannot set {dotted}={value}: {error.strerror or error}; {reason}; set it as root")
        return problems

    def open_localhost(self) -> None:
        """Lets node ports answer on localhost (route_localnet); only right while the proxy's rules guard it."""
        path = self._sysctls / "net/ipv4/conf/all/route_localnet"
        try:
            path.write_text("1")
        except OSError as error:
            log.warning("Node ports do not answer on localhost", extra={"path": str(path), "reason": str(error)})

    async def _load(self, module: str) -> None:
        """Loads a kernel module if there is one to load; whether it helped shows when the file is read."""
        if not module:
            return
        try:
            await _run("modprobe", module)
        except HostError as error:
            log.info("Kernel module not loaded", extra={"module": module, "reason": str(error)})

    async def ensure_address(self, link: str, wanted: str) -> None:
        """Makes a link that carries exactly this address and sets it up. Raises HostError."""
        if "/" not in wanted:
            wanted += "/128" if ":" in wanted else "/32"
        # A bridge without ports serves as the place for an address: every node that runs pods has bridges,
        # while dummy links are a kernel option of their own.
        await self.apply([AddLink(Link(link, "bridge", (wanted,)))])

    async def remove_link(self, link: str) -> None:
        """Removes a link of ours; nothing happens when it is not there."""
        if await self._addresses(link) is not None:
            await self.apply([DeleteLink(link)])

    async def observe(self) -> NetState:
        """The routes that are ours."""
        found = []
        for family in ("-4", "-6"):
            for each in await self._json(family, "route", "show", "proto", _PROTOCOL):
                if "gateway" in each:
                    found.append(Route(each["dst"], each["gateway"]))
        return NetState(routes=frozenset(found))

    async def apply(self, operations: list[NetOp]) -> None:
        """Does the operations in order. Raises HostError at the first that is refused."""
        for operation in operations:
            match operation:
                case AddLink(link):
                    await self._add(link)
                case DeleteLink(name):
                    await self._ip("link", "delete", "dev", name)
                case SetRoute(route):
                    await self._ip("route", "replace", route.destination, "via", route.via, "proto", _PROTOCOL)
                case DeleteRoute(route):
                    await self._ip("route", "delete", route.destination, "via", route.via, "proto", _PROTOCOL)

    async def _add(self, link: Link) -> None:
        existing = await self._addresses(link.name)
        if existing is None:
            await self._ip("link", "add", "name", link.name, "type", link.type)
        for stale in (existing or set()) - set(link.addresses):
            await self._ip("address", "delete", stale, "dev", link.name)
        for fresh in set(link.addresses) - (existing or set()):
            await self._ip("address", "add", fresh, "dev", link.name)
        await self._ip("link", "set", "dev", link.name, "up")

    async def _addresses(self, link: str) -> set[str] | None:
        """The global addresses of a link, `None` when there is no such link."""
        for each in await self._json("address", "show"):
            if each.get("ifname") == link:
                found = [info for info in each.get("addr_info") or () if info.get("scope") == "global"]
                return {f"{info['local']}/{info['prefixlen']}" for info in found}
        return None

    async def _json(self, *words: str) -> list[Object]:
        output = await self._ip("-j", *words)
        return list(msgspec.json.decode(output)) if output.strip() else []

    async def _ip(self, *words: str) -> bytes:
        return await _run(*self._command, *words)


async def _run(*command: str) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise HostError(f"Cannot run {command[0]}: it is not installed; install iproute2 and kmod") from error
    output, errors = await process.communicate()
    if process.returncode:
        raise HostError(f"Cannot run {' '.join(command)}: {errors.decode(errors='replace').strip()}")
    return output
