"""Services: addresses and node ports, given in the same write that creates or changes the service.

What is taken is read off the services themselves (two indexes of the cache) and a set of what writes under way have
chosen; so there is no allocator's state to repair. Source: Service API reference, "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from k3s.api.errors import InternalError, invalid
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation import causes, services
from k3s.apiserver.cache import Cache
from k3s.apiserver.strategy import Cause, Context, Strategy
from k3s.base.entropy import Entropy

_WITH_PORTS = ("NodePort", "LoadBalancer")
# Random picks before the range is searched in order.
_PICKS = 16


class ServiceStrategy(Strategy):
    """Rules of services."""

    def __init__(
        self, kind: Kind, cache: Cache, entropy: Entropy, cidrs: tuple[str, ...], ports: tuple[int, int]
    ) -> None:
        super().__init__(kind)
        self._kind = kind
        self._cache = cache
        self._entropy = entropy
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(cidr) for cidr in cidrs]
        self._ports = ports
        self._chosen: set[str] = set()

    def prepare_create(self, context: Context, obj: Object) -> Object:
        spec = self._families(context, obj.get("spec") or {}, {})
        spec = self._with_address(context, spec, None)
        spec = self._with_ports(context, spec, None)
        return {**obj, "spec": spec, "status": {"loadBalancer": {}}}

    def prepare_update(self, context: Context, old: Object, new: Object) -> Object:
        if context.subresource == "status":
            return new
        before, spec = old.get("spec") or {}, new.get("spec") or {}
        spec = self._carried(before, spec)
        spec = self._families(context, spec, before)
        if not _moved(before, spec):
            spec = self._with_address(context, spec, before)
        spec = self._with_ports(context, spec, before)
        return {**new, "spec": spec}

    def _carried(self, before: Object, spec: Object) -> Object:
        """An update that leaves out what was given keeps it."""
        kind = spec.get("type", "ClusterIP")
        spec = _without_outgrown(before, spec)
        if kind == "ExternalName":
            return spec
        if before.get("type") == "ExternalName":
            return spec
        address = spec.get("clusterIP")
        if address and address != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
            spec = {**spec, "clusterIPs": [address, *(spec.get("clusterIPs") or [])[1:]]}
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(key) and before.get(key):
                spec = {**spec, key: before[key]}
        return self._carried_ports(before, spec) if kind in _WITH_PORTS else spec

    def _carried_ports(self, before: Object, spec: Object) -> Object:
        known = {(p.get("protocol", "TCP"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
        used = {p.get("nodePort") for p in spec.get("ports") or ()}
        ports = []
        for port in spec.get("ports") or ():
            number = known.get((port.get("protocol", "TCP"), port.get("port")))
            if not port.get("nodePort") and number and number not in used:
                port = {**port, "nodePort": number}
            ports.append(port)
        if before.get("healthCheckNodePort") and not spec.get("healthCheckNodePort") and _needs_check(spec):
            spec = {**spec, "healthCheckNodePort": before["healthCheckNodePort"]}
        return {**spec, "ports": ports} if ports else spec

    def _families(self, context: Context, spec: Object, before: Object) -> Object:
        """The policy and the families, as asked for or as the cluster has them; refused before anything is given."""
        if spec.get("type") == "ExternalName":
            return spec
        free = spec.get("clusterIP") == "None" and not spec.get("selector")
        policy = spec.get("ipFamilyPolicy") or before.get("ipFamilyPolicy")
        policy = policy or ("RequireDualStack" if free else "SingleStack")
        spec = {**spec, "ipFamilyPolicy": policy}
        self._judge(context, list(services.addresses(spec)))
        if policy == "SingleStack" and before.get("ipFamilyPolicy") not in (None, policy):
            both = [key for key in _PAIRS if spec.get(key) == before.get(key) and len(spec.get(key) or ()) > 1]
            spec |= {key: spec[key][:1] for key in both}
        has = [f"IPv{network.version}" for network in self._networks]
        families = list(spec.get("ipFamilies") or ())
        given = [address for address in spec.get("clusterIPs") or (spec.get("clusterIP"),) if address]
        self._judge(context, [*_single(spec), *_foreign(given, families, has)])
        families += [_family(address) for address in given[len(families) :] if address != "None"]
        if not free:
            self._judge(context, list(_unable(policy, families, has)))
        families = families or has[:1]
        if policy != "SingleStack" and len(families) < 2 and (free or len(has) > 1):
            families.append("IPv6" if families == ["IPv4"] else "IPv4")
        return {**spec, "ipFamilies": families}

    def _judge(self, context: Context, found: list[Cause]) -> None:
        if found:
            raise invalid("", "Service", context.name, found)

    # --- addresses

    def _with_address(self, context: Context, spec: Object, before: Object | None) -> Object:
        if spec.get("type") == "ExternalName":
            return spec
        address = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if address == "None":
            return {**spec, "clusterIP": "None", "clusterIPs": ["None"]}
        had = set(_addresses(before)) if before is not None else set()
        wanted = list(spec.get("clusterIPs") or ([address] if address else []))
        for text in wanted:
            if text not in had:
                self._take_address(context, text)
        has = {f"IPv{n.version}" for n in self._networks}
        for family in spec["ipFamilies"][len(wanted) :] if has.issuperset(spec["ipFamilies"]) else ():
            wanted.append(self._give_address(context, family))
        return {**spec, "clusterIP": wanted[0], "clusterIPs": wanted} if wanted else spec

    def _take_address(self, context: Context, text: str) -> None:
        try:
            address = ip_address(text)
        except ValueError:
            return  # the kind's validation says what is wrong with it
        network = next((n for n in self._networks if n.version == address.version), None)
        if network is None:
            return  # its family is refused by `validate`
        elif address not in network:
            why = f"failed to allocate IP {text}: the provided network does not match the current range"
            self._refuse(context, text, why)
        if self._taken(text):
            self._refuse(context, text, "failed to allocate IP " + text + ": provided IP is already allocated")
        self._choose(context, text)

    def _refuse(self, context: Context, text: str, why: str) -> None:
        cause = {
            "reason": "FieldValueInvalid",
            "message": f'Invalid value: ["{text}"]: {why}',
            "field": "spec.clusterIPs",
        }
        raise invalid("", "Service", context.name, [cause])

    def _give_address(self, context: Context, family: str) -> str:
        network = next((n for n in self._networks if f"IPv{n.version}" == family), None)
        if network is None:
            raise InternalError(f"failed to allocate a serviceIP: no network of {family} is configured", {})
        first, size = int(network.network_address), min(network.num_addresses, 1 << 16)
        # The start of the range is for addresses that people choose themselves.
        reserved = min(max(16, size // 16), 256) if size > 32 else 0
        for _ in range(_PICKS):
            at = 1 + reserved + self._entropy.below(max(size - reserved - 2, 1))
            text = str(ip_address(first + at))
            if at < size - 1 and not self._taken(text):
                return self._choose(context, text)
        for at in (*range(1 + reserved, size - 1), *range(1, 1 + reserved)):
            text = str(ip_address(first + at))
            if not self._taken(text):
                return self._choose(context, text)
        raise InternalError("failed to allocate a serviceIP: range is full", {})

    def _taken(self, text: str) -> bool:
        return text in self._chosen or bool(self._cache.bucket(self._kind).index("clusterIPs", _addresses_of).get(text))

    def _choose(self, context: Context, text: str) -> str:
        """Holds a value until the write that uses it is over."""
        self._chosen.add(text)
        context.cleanups.append(lambda: self._chosen.discard(text))
        return text

    # --- node ports

    def _with_ports(self, context: Context, spec: Object, before: Object | None) -> Object:
        if spec.get("type") not in _WITH_PORTS:
            return spec
        had = set(_node_ports(before)) if before is not None else set()
        wants = spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        taken_here: set[str] = set()
        ports = []
        for index, port in enumerate(spec.get("ports") or ()):
            protocol, number = port.get("protocol", "TCP"), port.get("nodePort") or 0
            if number:
                key = f"{number}/{protocol}"
                if key not in had and key not in taken_here:
                    self._take_port(context, f"spec.ports[{index}].nodePort", number, key)
                taken_here.add(key)
            elif wants:
                number = self._give_port(context, protocol, taken_here)
                taken_here.add(f"{number}/{protocol}")
                port = {**port, "nodePort": number}
            ports.append(port)
        spec = {**spec, "ports": ports} if ports else spec
        if _needs_check(spec) and not spec.get("healthCheckNodePort"):
            spec = {**spec, "healthCheckNodePort": self._give_port(context, "TCP", taken_here)}
        return spec

    def _take_port(self, context: Context, field: str, number: int, key: str) -> None:
        low, high = self._ports
        why = ""
        if not low <= number <= high:
            why = f"provided port is not in the valid range. The range of valid ports is {low}-{high}"
        elif self._port_taken(key):
            why = "provided port is already allocated"
        if why:
            cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {number}: {why}", "field": field}
            raise invalid("", "Service", context.name, [cause])
        self._choose(context, key)

    def _give_port(self, context: Context, protocol: str, here: set[str]) -> int:
        low, high = self._ports
        size = high - low + 1
        start = self._entropy.below(size)
        for step in range(size):
            number = low + (start + step) % size
            key = f"{number}/{protocol}"
            others = [f"{number}/{p}" for p in ("TCP", "UDP", "SCTP")]
            if key not in here and not any(self._port_taken(other) for other in others):
                self._choose(context, key)
                return number
        raise InternalError("failed to allocate a nodePort: range is full", {})

    def _port_taken(self, key: str) -> bool:
        return key in self._chosen or bool(self._cache.bucket(self._kind).index("nodePorts", _ports_of).get(key))


# What only some types of service have: field -> whether a spec has a use for it.
_USES: dict[str, Callable[[Object], bool]] = {
    "clusterIP": lambda spec: spec.get("type") != "ExternalName",
    "clusterIPs": lambda spec: spec.get("type") != "ExternalName",
    "ipFamilies": lambda spec: spec.get("type") != "ExternalName",
    "ipFamilyPolicy": lambda spec: spec.get("type") != "ExternalName",
    "internalTrafficPolicy": lambda spec: spec.get("type") != "ExternalName",
    "externalTrafficPolicy": lambda spec: spec.get("type") in _WITH_PORTS or bool(spec.get("externalIPs")),
    "healthCheckNodePort": lambda spec: _needs_check(spec),
    "allocateLoadBalancerNodePorts": lambda spec: spec.get("type") == "LoadBalancer",
    "loadBalancerClass": lambda spec: spec.get("type") == "LoadBalancer",
}


def _without_outgrown(before: Object, spec: Object) -> Object:
    """An update of the type alone drops what the old type needed and the new one has no use for."""
    gone = {
        name
        for name, uses in _USES.items()
        if name in spec and uses(before) and not uses(spec) and spec[name] == before.get(name)
    }
    out = {name: value for name, value in spec.items() if name not in gone} if gone else spec
    ports = out.get("ports")
    if ports and before.get("type") in _WITH_PORTS and out.get("type") not in _WITH_PORTS:
        had = {p.get("nodePort") for p in before.get("ports") or ()}
        plain = [{k: v for k, v in p.items() if k != "nodePort" or v not in had} for p in ports]
        out = {**out, "ports": plain}
    return out


_PAIRS = ("clusterIPs", "ipFamilies")
_WITH_TWO = "must be RequireDualStack or PreferDualStack when multiple '{}' are specified"


def _single(spec: Object) -> Iterator[Cause]:
    """A service of one family has one of each."""
    if spec.get("ipFamilyPolicy") == "SingleStack":
        for key in _PAIRS:
            if len(spec.get(key) or ()) == 2:
                yield causes.invalid("spec.ipFamilyPolicy", "SingleStack", _WITH_TWO.format(key))


def _foreign(given: list[str], families: list[str], has: list[str]) -> Iterator[Cause]:
    """Addresses that no network has, where no family says so already."""
    for i, address in enumerate(given):
        if address != "None" and i >= len(families) and _family(address) not in has:
            why = f"{_family(address)} is not configured on this cluster"
            yield causes.invalid(f"spec.clusterIPs[{i}]", given, why)


def _unable(policy: str, families: list[str], has: list[str]) -> Iterator[Cause]:
    """What the networks of the cluster cannot give."""
    if policy == "RequireDualStack" and len(has) < 2:
        yield causes.invalid("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
    for i, family in enumerate(families):
        if family not in has:
            yield causes.invalid(f"spec.ipFamilies[{i}]", family, "not configured on this cluster")


def _moved(before: Object, spec: Object) -> bool:
    """Whether an update asks for another address than the service has."""
    was, now = before.get("clusterIPs") or [], spec.get("clusterIPs") or []
    return bool(was and now and was[0] != now[0] and spec.get("type") != "ExternalName")


def _needs_check(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def _addresses(spec: Object | None) -> list[str]:
    spec = spec or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [a for a in found if a and a != "None"]


def _addresses_of(service: Object) -> list[str]:
    return _addresses(service.get("spec"))


def _node_ports(spec: Object | None) -> list[str]:
    spec = spec or {}
    found = [f"{p['nodePort']}/{p.get('protocol', 'TCP')}" for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        found.append(f"{spec['healthCheckNodePort']}/TCP")
    return found


def _ports_of(service: Object) -> list[str]:
    return _node_ports(service.get("spec"))
