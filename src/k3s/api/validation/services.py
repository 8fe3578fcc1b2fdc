"""Rules for services and for the older form of their endpoints.

Source: the Service API documentation; order and wording as recorded from upstream 1.36. Whether an address or a node
port is free and in range is decided where they are given out, not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    IMMUTABLE,
    Causes,
    address_of,
    cidr,
    duplicate,
    each,
    forbidden,
    invalid,
    ip,
    is_ip,
    labels,
    one_of,
    port,
    port_or_name,
    required,
    unsupported,
)

Spec = Mapping[str, Any]
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_HINTS = "service.kubernetes.io/topology-aware-hints"
_MODE = "service.kubernetes.io/topology-mode"
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_BALANCED_ONLY = "may only be used when `type` is 'LoadBalancer'"
_ONE_A_FAMILY = "may specify no more than one IP for each IP family"
_CHANGED = "may not change once set"


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _ips(spec: Spec) -> Sequence[str]:
    return spec.get("clusterIPs") or ((spec["clusterIP"],) if spec.get("clusterIP") else ())


def _headless(spec: Spec) -> bool:
    return list(_ips(spec)) == ["None"]


def service(obj: Object) -> Causes:
    """A service."""
    spec, notes = _spec(obj), (obj.get("metadata") or {}).get("annotations") or {}
    kind, ports, headless = spec.get("type", "ClusterIP"), spec.get("ports") or (), _headless(spec)
    if _HINTS in notes and _MODE in notes and notes[_HINTS] != notes[_MODE]:
        why = f"must match annotations[{_HINTS}] when both are specified"
        yield invalid(f"metadata.annotations[{_MODE}]", notes[_MODE], why)
    if not ports and not headless and kind != "ExternalName":
        yield required("spec.ports")
    if kind in ("LoadBalancer", "NodePort") and headless:
        yield invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    elif kind == "ExternalName":
        yield from _external_name(spec)
    yield from _ports(ports)
    if "selector" in spec:
        yield from labels("spec.selector", spec["selector"])
    yield from _affinity(spec)
    yield from addresses(spec)
    for i, address in enumerate(spec.get("externalIPs") or ()):
        wrong = list(ip(f"spec.externalIPs[{i}]", address))
        yield from wrong or special_ip(f"spec.externalIPs[{i}]", address)
    yield from one_of("spec.type", kind, _TYPES)
    yield from _numbers(ports, kind)
    yield from _balanced(spec, notes, kind)
    yield from _class(spec, kind)
    yield from _traffic(spec, kind)


def _external_name(spec: Spec) -> Causes:
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            yield forbidden(f"spec.{field}", "may not be set for ExternalName services")
    name = str(spec.get("externalName", "")).removesuffix(".")
    if not name:
        yield required("spec.externalName")
    else:
        yield from each("spec.externalName", name, names.dns_subdomain(name))


def _ports(ports: Sequence[Spec]) -> Causes:
    seen: set[str] = set()
    for i, value in enumerate(ports):
        at = f"spec.ports[{i}]"
        name = value.get("name", "")
        if name:
            yield from each(f"{at}.name", name, names.dns_label(name))
            if name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
        elif len(ports) > 1:
            yield required(f"{at}.name")
        yield from port(f"{at}.port", value.get("port"))
        yield from one_of(f"{at}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)
        yield from port_or_name(f"{at}.targetPort", value.get("targetPort", value.get("port")))
        if "appProtocol" in value:
            yield from each(f"{at}.appProtocol", value["appProtocol"], names.qualified_name(value["appProtocol"]))


def _affinity(spec: Spec) -> Causes:
    kind, config = spec.get("sessionAffinity", "None"), spec.get("sessionAffinityConfig")
    at, why = "spec.sessionAffinityConfig", "when session affinity type is ClientIP"
    yield from one_of("spec.sessionAffinity", kind, ("ClientIP", "None"))
    if kind == "None" and config is not None:
        yield forbidden(at, "must not be set when session affinity is None")
    if kind != "ClientIP":
        return
    client = (config or {}).get("clientIP")
    if config is None:
        yield required(at, why)
    elif client is None:
        yield required(f"{at}.clientIP", why)
    elif client.get("timeoutSeconds") is None:
        yield required(f"{at}.clientIP.timeoutSeconds", why)
    elif not 1 <= client["timeoutSeconds"] <= 86400:
        detail = "must be greater than 0 and less than 86400"
        yield invalid(f"{at}.clientIP.timeoutSeconds", client["timeoutSeconds"], detail)


def addresses(spec: Spec) -> Causes:
    """The addresses of a service within the cluster, and of which families they are."""
    if spec.get("type") == "ExternalName":
        return
    first, ips, families = spec.get("clusterIP"), list(_ips(spec)), spec.get("ipFamilies") or ()
    at = "spec.clusterIPs"
    if first and ips[0] != first:
        yield invalid(at, ips, "first value must match `clusterIP`")
    elif not first and ips:
        yield invalid(at, ips, "must be empty when `clusterIP` is not specified")
    for i, family in enumerate(families):
        yield from one_of(f"spec.ipFamilies[{i}]", family, ("IPv4", "IPv6"))
        if family in families[:i]:
            yield duplicate(f"spec.ipFamilies[{i}]", family)
    if spec.get("ipFamilyPolicy") is not None:
        yield from one_of("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _POLICIES)
    wrong = []
    for i, address in enumerate(ips):
        if i == 0 and address == "None":
            if len(ips) > 1:
                wrong.append(invalid(at, ips, "'None' must be the first and only value"))
            continue
        wrong += ip(f"{at}[{i}]", address)
    yield from wrong
    if len(ips) > 2:
        yield invalid(at, ips, "may only hold up to 2 values")
    if wrong:
        return
    if len(ips) > 1 and len({":" in address for address in ips}) < 2:
        yield invalid(at, ips, _ONE_A_FAMILY)
    for i, (address, family) in enumerate(zip(ips, families, strict=False)):
        if address != "None" and family in ("IPv4", "IPv6") and (":" in address) != (family == "IPv6"):
            yield invalid(f"{at}[{i}]", address, f"expected an {family} value as indicated by `ipFamilies[{i}]`")


def special_ip(at: str, address: Any) -> Causes:
    """An address that traffic can come to from elsewhere; nothing is said of what is none."""
    parsed = address_of(address)
    if parsed is None:
        return
    if parsed.is_unspecified:
        yield invalid(at, address, f"may not be unspecified ({address})")
    if parsed.is_loopback:
        yield invalid(at, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if parsed.is_link_local:
        yield invalid(at, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if any(parsed.version == net.version and parsed in net for net in _LINK_LOCAL_MULTICAST):
        yield invalid(at, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def _numbers(ports: Sequence[Spec], kind: str) -> Causes:
    """Ports of the nodes, and no port twice."""
    for i, value in enumerate(ports):
        if kind == "ClusterIP" and value.get("nodePort"):
            yield forbidden(f"spec.ports[{i}].nodePort", "may not be used when `type` is 'ClusterIP'")
    seen: set[Any] = set()
    for i, value in enumerate(ports):
        key = (value.get("protocol", "TCP"), value.get("nodePort"))
        if key[1] and key in seen:
            yield duplicate(f"spec.ports[{i}].nodePort", key[1])
        seen.add(key)
    seen = set()
    for i, value in enumerate(ports):
        key = (value.get("protocol", "TCP"), value.get("port", 0))
        if key in seen:
            shown = {"Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0}
            yield duplicate(f"spec.ports[{i}]", {**shown, "NodePort": 0})
        seen.add(key)


def _balanced(spec: Spec, notes: Mapping[str, str], kind: str) -> Causes:
    """What only a load balancer has: who may come, by a field or by the older annotation, and ports of the nodes."""
    ranges = spec.get("loadBalancerSourceRanges")
    field = "spec.LoadBalancerSourceRanges" if ranges else f"metadata.annotations[{_RANGES}]"
    if (ranges or _RANGES in notes) and kind != "LoadBalancer":
        yield forbidden(field, _BALANCED_ONLY)
    if ranges:
        for i, block in enumerate(ranges):
            yield from cidr(f"{field}[{i}]", block.strip())
    elif notes.get(_RANGES, "").strip():
        for block in notes[_RANGES].strip().split(","):
            yield from cidr(field, block.strip())
    if kind != "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not None:
        yield forbidden("spec.allocateLoadBalancerNodePorts", _BALANCED_ONLY)


def _class(spec: Spec, kind: str) -> Causes:
    name = spec.get("loadBalancerClass")
    if name is not None and kind == "LoadBalancer":
        yield from each("spec.loadBalancerClass", name, names.qualified_name(name))
    elif name is not None:
        yield forbidden("spec.loadBalancerClass", _BALANCED_ONLY)


def needs_health_check(spec: Spec) -> bool:
    """Whether nodes tell a load balancer if they have endpoints of the service."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _traffic(spec: Spec, kind: str) -> Causes:
    outer, inner, spread = (
        spec.get(field) for field in ("externalTrafficPolicy", "internalTrafficPolicy", "trafficDistribution")
    )
    if outer and kind not in ("NodePort", "LoadBalancer") and not (kind == "ClusterIP" and spec.get("externalIPs")):
        yield invalid("spec.externalTrafficPolicy", outer, "may only be set for externally-accessible services")
    elif outer:
        yield from one_of("spec.externalTrafficPolicy", outer, ("Cluster", "Local"))
    number = spec.get("healthCheckNodePort", 0)
    if number and not needs_health_check(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid("spec.healthCheckNodePort", number, why)
    elif number:
        yield from port("spec.healthCheckNodePort", number)
    if inner is not None:
        yield from one_of("spec.internalTrafficPolicy", inner, ("Cluster", "Local"))
    if spread is not None:
        yield from one_of("spec.trafficDistribution", spread, _DISTRIBUTIONS)


def update(old: Object, new: Object) -> Causes:
    """A changed service: an address once given stays, unless the service leaves or enters ExternalName."""
    before, after = _spec(old), _spec(new)
    types = before.get("type", "ClusterIP"), after.get("type", "ClusterIP")
    if "ExternalName" not in types and not (_headless(before) and _headless(after)):
        yield from _kept_addresses(before, after)
        if not _headless(before) and not _headless(after):
            yield from _kept_families(before, after)
    if types == ("LoadBalancer", "LoadBalancer"):
        was, now = before.get("loadBalancerClass"), after.get("loadBalancerClass")
        if was != now:
            yield invalid("spec.loadBalancerClass", now, _CHANGED)
    yield from _class(after, types[1])
    checks = needs_health_check(before) and needs_health_check(after)
    if checks and before.get("healthCheckNodePort") != after.get("healthCheckNodePort"):
        yield forbidden("spec.healthCheckNodePort", IMMUTABLE)
    yield from service(new)


def _kept_addresses(before: Spec, after: Spec) -> Causes:
    was, now = list(_ips(before)), list(_ips(after))
    at = "spec.clusterIPs"
    if len(was) == len(now):
        for i, address in enumerate(was):
            if address != now[i]:
                yield invalid(f"{at}[{i}]", now, _CHANGED)
        return
    if was and not now:
        yield invalid(f"{at}[0]", None, "primary clusterIP can not be unset")
    if was and now and was[0] != now[0]:
        yield invalid(f"{at}[0]", now, _CHANGED)
    if len(was) > len(now) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), why)


def _kept_families(before: Spec, after: Spec) -> Causes:
    was, now = list(before.get("ipFamilies") or ()), list(after.get("ipFamilies") or ())
    at = "spec.ipFamilies[0]"
    if len(was) == len(now):
        for i, family in enumerate(was):
            if family != now[i]:
                yield invalid(at, now, _CHANGED)
        return
    if len(was) > len(now) and not _ips(after):
        yield invalid(at, now or None, "primary ipFamily can not be unset")
    if was and now and was[0] != now[0]:
        yield invalid(at, list(_ips(after)), _CHANGED)
    if len(was) > len(now) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), why)


def status(obj: Object) -> Causes:
    """Where a load balancer is reached."""
    found = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    if found and _spec(obj).get("type") != "LoadBalancer":
        yield forbidden("status.loadBalancer.ingress", "may only be used when `spec.type` is 'LoadBalancer'")
        return
    for i, entry in enumerate(found):
        yield from balancer_entry(f"status.loadBalancer.ingress[{i}]", entry)


def balancer_entry(at: str, entry: Spec) -> Causes:
    """One address or name of a load balancer."""
    address, mode, name = entry.get("ip"), entry.get("ipMode"), entry.get("hostname")
    if address:
        yield from ip(f"{at}.ip", address)
    if mode is None and address:
        yield required(f"{at}.ipMode", "must be specified when `ip` is set")
    elif mode is not None and not address:
        yield forbidden(f"{at}.ipMode", "may not be specified when `ip` is not set")
    elif mode is not None and mode not in ("Proxy", "VIP"):
        yield unsupported(f"{at}.ipMode", mode, ("Proxy", "VIP"))
    if name:
        yield from each(f"{at}.hostname", name, names.dns_subdomain(name))
        if is_ip(name):
            yield invalid(f"{at}.hostname", name, "must be a DNS name, not an IP address")


def endpoints(obj: Object) -> Causes:
    """Endpoints."""
    for i, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(at, "must specify `addresses` or `notReadyAddresses`")
        for part in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(part) or ()):
                yield from _endpoint_address(f"{at}.{part}[{j}]", address)
        ports = subset.get("ports") or ()
        for j, value in enumerate(ports):
            here, name = f"{at}.ports[{j}]", value.get("name")
            if name:
                yield from each(f"{here}.name", name, names.dns_label(name))
            elif len(ports) > 1:
                yield required(f"{here}.name")
            yield from port(f"{here}.port", value.get("port"))
            yield from one_of(f"{here}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)
            if "appProtocol" in value:
                protocol = value["appProtocol"]
                yield from each(f"{here}.appProtocol", protocol, names.qualified_name(protocol))


def _endpoint_address(at: str, address: Spec) -> Causes:
    text = address.get("ip", "")
    yield from ip(f"{at}.ip", text)
    if address.get("hostname"):
        yield from each(f"{at}.hostname", address["hostname"], names.dns_label(address["hostname"]))
    if address.get("nodeName") is not None:
        yield from each(f"{at}.nodeName", address["nodeName"], names.dns_subdomain(address["nodeName"]))
    yield from special_ip(f"{at}.ip", text)
    if not is_ip(text):
        yield invalid(f"{at}.ip", text, "must be a valid IP address")
