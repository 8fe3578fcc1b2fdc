"""Names of the cluster, kept true by single changes: services, endpoints, nodes (the Kubernetes DNS specification).

Records are made when they are asked for: what is kept per service is what the records are made of.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from k3s.api.object import Object, get
from k3s.dns import wire
from k3s.dns.wire import Record

TTL_S = 5
NODE_TTL_S = 60
_SPECIFICATION = b"\x051.1.0"  # the version of the DNS specification, as dns-version.<domain> tells it
_REFRESH = (7200, 1800, 86400, TTL_S)


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A named port of a service or of its endpoints."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A ready endpoint: its name below the service, its address, and its ports."""

    name: str
    address: str
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the names of one service are made of; `addresses` are empty for a headless one."""

    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    external: str = ""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says: a code and records. `chase` is a name outside the zone that the answer goes on with."""

    rcode: int = wire.NOERROR
    records: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    chase: bytes = b""


NO_DATA = Answer()
NO_NAME = Answer(wire.NXDOMAIN)


def entry(service: Object, slices: Iterable[Object]) -> Entry:
    """The entry of a service with its EndpointSlices."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return Entry(external=spec.get("externalName", ""))
    ports = tuple(
        Port(port.get("name", ""), port.get("protocol", "TCP").lower(), port["port"])
        for port in spec.get("ports") or ()
    )
    addresses = tuple(spec.get("clusterIPs") or [spec.get("clusterIP") or "None"])
    endpoints = tuple(sorted(set(_endpoints(slices))))
    return Entry(() if addresses == ("None",) else addresses, ports, "", endpoints)


def _endpoints(slices: Iterable[Object]) -> Iterator[Endpoint]:
    for each in slices:
        if each.get("addressType") not in ("IPv4", "IPv6"):
            continue
        ports = tuple(
            Port(port.get("name") or "", port.get("protocol", "TCP").lower(), port["port"])
            for port in each.get("ports") or ()
            if 0 < (port.get("port") or 0) < 65536  # the API takes any number here
        )
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            address = str(ipaddress.ip_address(endpoint["addresses"][0]))
            yield Endpoint(endpoint.get("hostname") or address.replace(".", "-").replace(":", "-"), address, ports)


class Zone:
    """All names below the cluster's domain, and the reverse names of what has one. `changes` counts changes."""

    def __init__(self, domain: str, server: str = "") -> None:
        self.domain = tuple(domain.lower().strip(".").split("."))
        self.apex = wire.encode_name(domain)
        self.changes = 0
        self._server = server
        self._services: dict[str, dict[str, Entry]] = {}
        self._reverse: dict[str, dict[str, None]] = {}  # address → names, the first one counts
        self._nodes: dict[str, tuple[str, ...]] = {}

    # --- changes ---

    def set_service(self, service_key: str, new: Entry | None) -> None:
        """Replaces or removes the entry of the service `namespace/name`."""
        space, _, service = service_key.partition("/")
        entries = self._services.get(space, {})
        old = entries.get(service)
        if old == new:
            return
        self.changes += 1
        path = f"{service}.{space}.svc"
        for address, owner in _reversed(path, old):
            names = self._reverse.get(address, {})
            names.pop(owner, None)
            if not names:
                self._reverse.pop(address, None)
        for address, owner in _reversed(path, new):
            self._reverse.setdefault(address, {})[owner] = None
        if new is not None:
            self._services.setdefault(space, {})[service] = new
        elif old is not None:
            del entries[service]
            if not entries:
                del self._services[space]

    def set_node(self, node_key: str, node: Object | None) -> None:
        """Replaces or removes the addresses of a node, which has its bare name as a host has."""
        found = get(node, "status", "addresses", default=None) or () if node else ()
        addresses = tuple(each["address"] for each in found if each.get("type") == "InternalIP")
        if self._nodes.get(node_key.lower(), ()) == addresses:
            return
        self.changes += 1
        if addresses:
            self._nodes[node_key.lower()] = addresses
        else:
            self._nodes.pop(node_key.lower(), None)

    # --- questions ---

    def lookup(self, labels: tuple[str, ...], type: int) -> Answer | None:
        """What there is for a name in lower case; `None` when the name is none of ours to know."""
        size = len(self.domain)
        if labels[-size:] == self.domain:
            return self._inside(labels[:-size], type)
        if labels[-2:] in (("in-addr", "arpa"), ("ip6", "arpa")):
            return self._pointer(labels, type)
        if len(labels) <= 2 and ".".join(labels) in self._nodes:
            return _addresses(self._nodes[".".join(labels)], type, NODE_TTL_S)
        return None

    def soa(self) -> Record:
        """The record that says how long an answer of "no" counts."""
        domain = ".".join(self.domain)
        data = wire.encode_name(f"ns.dns.{domain}") + wire.encode_name(f"hostmaster.{domain}")
        data += b"".join(each.to_bytes(4, "big") for each in (self.changes & 0x7FFFFFFF, *_REFRESH))
        return wire.record(wire.SOA, TTL_S, data, self.apex)

    def _inside(self, labels: tuple[str, ...], type: int) -> Answer:
        match labels[::-1]:
            case ():
                return self._at_apex(type)
            case ("svc",) | ("pod",) | ("dns",):
                return NO_DATA
            case ("svc", space):
                return NO_DATA if space in self._services else NO_NAME
            case ("svc", space, service, *rest):
                found = self._services.get(space, {}).get(service)
                return self._service(f"{service}.{space}.svc", found, rest, type) if found else NO_NAME
            case ("pod", _):
                return NO_DATA
            case ("pod", _, address):
                return _pod(address, type)
            case ("dns", "ns"):
                return _addresses((self._server,) if self._server else (), type)
            case ("dns-version",):
                return Answer(records=(wire.record(wire.TXT, TTL_S, _SPECIFICATION),)) if type == wire.TXT else NO_DATA
        return NO_NAME

    def _at_apex(self, type: int) -> Answer:
        if type == wire.SOA:
            return Answer(records=(self.soa(),))
        if type == wire.NS:
            name_server = wire.encode_name(".".join(("ns", "dns", *self.domain)))
            return Answer(records=(wire.record(wire.NS, TTL_S, name_server),))
        return NO_DATA

    def _service(self, path: str, found: Entry, rest: list[str], type: int) -> Answer:
        headless = not found.addresses
        if found.external:
            return self._external(found.external, type) if not rest else NO_NAME
        if headless and not found.endpoints:
            return NO_NAME  # specification 2.4.1: without ready endpoints there is no such name
        if not rest:
            if type == wire.SRV:
                return self._srv(path, found, "", "")
            return _addresses(found.addresses or [each.address for each in found.endpoints], type)
        if rest[0] in ("_tcp", "_udp", "_sctp"):
            protocol = rest[0][1:]
            ports = [each for each in _all_ports(found) if each.protocol == protocol]
            if len(rest) == 1:
                return NO_DATA if ports else NO_NAME
            if len(rest) > 2 or not any(f"_{each.name}" == rest[1] for each in ports):
                return NO_NAME
            return self._srv(path, found, rest[1][1:], protocol) if type == wire.SRV else NO_DATA
        same = [each.address for each in found.endpoints if each.name.lower() == rest[0]]
        return _addresses(same, type) if same and len(rest) == 1 else NO_NAME

    def _external(self, target: str, type: int) -> Answer:
        try:
            name = wire.encode_name(target)
        except wire.WireError:
            return NO_DATA
        cname = wire.record(wire.CNAME, TTL_S, name)
        if type == wire.CNAME:
            return Answer(records=(cname,))
        labels = wire.labels(name)
        alias = self.lookup(labels, wire.CNAME)
        if alias is None:
            return Answer(records=(cname,), chase=name)
        # A name of the cluster that is itself an alias is not followed further: that could be a circle.
        inner = None if alias.records else self.lookup(labels, type)
        owned = tuple(Record(name, each.tail) for each in inner.records) if inner else ()
        return Answer(records=(cname, *owned))

    def _srv(self, path: str, found: Entry, port: str, protocol: str) -> Answer:
        """SRV records of the ports with this name and protocol (empty: all), and the addresses of their targets."""
        targets: dict[tuple[str, int], list[str]] = {}
        if found.addresses:
            for each in found.ports:
                if not protocol or (each.name, each.protocol) == (port, protocol):
                    targets[(path, each.number)] = list(found.addresses)
        else:
            for endpoint in found.endpoints:
                for each in endpoint.ports:
                    if not protocol or (each.name, each.protocol) == (port, protocol):
                        listed = targets.setdefault((f"{endpoint.name}.{path}", each.number), [])
                        listed.append(endpoint.address)
        weight = max(1, 100 // max(1, len(targets)))
        records, additionals = [], {}
        for (target, number), addresses in targets.items():
            name = wire.encode_name(f"{target}.{'.'.join(self.domain)}")
            data = (0).to_bytes(2, "big") + weight.to_bytes(2, "big") + number.to_bytes(2, "big") + name
            records.append(wire.record(wire.SRV, TTL_S, data))
            for address in addresses:
                additionals[address] = _address_record(address, TTL_S, name)
        return Answer(records=tuple(records), additionals=tuple(additionals.values()))

    def _pointer(self, labels: tuple[str, ...], type: int) -> Answer | None:
        """Reverse names that are not of the cluster go upstream."""
        address = _reverse_address(labels)
        owners = self._reverse.get(address) if address else None
        if not owners:
            return None
        if type != wire.PTR:
            return NO_DATA
        target = wire.encode_name(f"{next(iter(owners))}.{'.'.join(self.domain)}")
        return Answer(records=(wire.record(wire.PTR, TTL_S, target),))


def _all_ports(found: Entry) -> Iterator[Port]:
    if found.addresses:
        yield from found.ports
    else:
        for each in found.endpoints:
            yield from each.ports


def _reversed(path: str, found: Entry | None) -> Iterator[tuple[str, str]]:
    """Addresses that have a reverse name, with it: cluster addresses, and endpoints of headless services."""
    if found is None or found.external:
        return
    for address in found.addresses:
        yield address, path
    if not found.addresses:
        for each in found.endpoints:
            yield each.address, f"{each.name}.{path}"


def _pod(dashed: str, type: int) -> Answer:
    """`10-42-0-5` stands for the address, whether a pod has it or not (mode "insecure", the default of k3s)."""
    for separator in (".", ":"):
        try:
            address = ipaddress.ip_address(dashed.replace("-", separator))
        except ValueError:
            continue
        return _addresses((str(address),), type)
    return NO_NAME


def _addresses(found: Iterable[str], type: int, ttl: int = TTL_S) -> Answer:
    """The A or AAAA records among addresses, each once."""
    if type not in (wire.A, wire.AAAA):
        return NO_DATA
    wanted = dict.fromkeys(each for each in found if (":" in each) == (type == wire.AAAA))
    return Answer(records=tuple(_address_record(each, ttl) for each in wanted))


def _address_record(address: str, ttl: int, owner: bytes | None = None) -> Record:
    packed = ipaddress.ip_address(address).packed
    return wire.record(wire.A if len(packed) == 4 else wire.AAAA, ttl, packed, owner)


def _reverse_address(labels: tuple[str, ...]) -> str:
    """The address of a reverse name, empty when it is none."""
    parts = labels[-3::-1]
    try:
        if labels[-2] == "in-addr":
            return str(ipaddress.IPv4Address(".".join(parts)))
        digits = "".join(parts)
        return str(ipaddress.IPv6Address(bytes.fromhex(digits))) if len(parts) == 32 else ""
    except ValueError:
        return ""
