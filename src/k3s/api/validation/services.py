"""Rules for services and endpoints.

Source: the API documentation of each kind; order and wording as recorded from upstream 1.36. Whether an address or a
node port is free and in range is decided where they are given out, not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
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
)

Spec = Mapping[str, Any]
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def service(obj: Object) -> Causes:
    """A service."""
    spec = _spec(obj)
    kind, ports = spec.get("type", "ClusterIP"), spec.get("ports") or ()
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    headless = ips[:1] == ["None"]
    if kind == "LoadBalancer":
        for i, value in enumerate(ports):
            if value.get("port") == 10250:
                why = "may not expose port 10250 externally since it is used by kubelet"
                yield invalid(f"spec.ports[{i}]", value.get("port"), why)
    if kind == "LoadBalancer" and headless:
        yield invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services")
    elif kind == "NodePort" and headless:
        yield invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services")
    elif kind == "ExternalName":
        yield from _external_name(spec, ips)
    if not ports and not headless and kind != "ExternalName":
        yield required("spec.ports")
    yield from _ports(spec, headless)
    yield from labels("spec.selector", spec.get("selector"))
    yield from one_of("spec.sessionAffinity", spec.get("sessionAffinity", "None"), ("ClientIP", "None"))
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", 10800)
        if not 1 <= seconds <= 86400:
            at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            yield invalid(at, seconds, "must be greater than 0 and less than or equal to 86400")
    for i, address in enumerate(ips):
        if address != "None":
            yield from ip(f"spec.clusterIPs[{i}]", address)
    for i, address in enumerate(spec.get("externalIPs") or ()):
        yield from _outer_ip(f"spec.externalIPs[{i}]", address)
    yield from one_of("spec.type", kind, _TYPES)
    yield from _traffic(spec, kind)


def _external_name(spec: Spec, ips: list[str]) -> Causes:
    if ips:
        yield forbidden("spec.clusterIPs", "may not be set when `type` is 'ExternalName'")
    name = str(spec.get("externalName", "")).removesuffix(".")
    if not name:
        yield required("spec.externalName")
    else:
        yield from each("spec.externalName", name, names.dns_subdomain(name))


def _ports(spec: Spec, headless: bool) -> Causes:
    ports, kind = spec.get("ports") or (), spec.get("type", "ClusterIP")
    seen: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    for i, value in enumerate(ports):
        at = f"spec.ports[{i}]"
        name = value.get("name", "")
        if not name:
            if len(ports) > 1:
                yield required(f"{at}.name")
        else:
            yield from each(f"{at}.name", name, names.dns_label(name))
            if name in seen:
                yield duplicate(f"{at}.name", name)
            seen.add(name)
        yield from port(f"{at}.port", value.get("port"))
        yield from one_of(f"{at}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)
        target = value.get("targetPort", value.get("port"))
        yield from port_or_name(f"{at}.targetPort", target)
        if kind == "ClusterIP" and value.get("nodePort"):
            yield forbidden(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'")
        pair = (value.get("port"), value.get("protocol", "TCP"))
        if pair in pairs:
            yield duplicate(at, {"port": pair[0], "protocol": pair[1]})
        pairs.add(pair)


def _outer_ip(at: str, address: Any) -> Causes:
    yield from ip(at, address)
    yield from special_ip(at, address)


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


def _traffic(spec: Spec, kind: str) -> Causes:
    outer, inner = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    if outer and kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
        why = "may only be set for externally-accessible services"
        yield invalid("spec.externalTrafficPolicy", outer, why)
    elif outer:
        yield from one_of("spec.externalTrafficPolicy", outer, ("Cluster", "Local"))
    if inner:
        yield from one_of("spec.internalTrafficPolicy", inner, ("Cluster", "Local"))
    for i, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        if kind != "LoadBalancer":
            yield forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
            break
        yield from cidr(f"spec.loadBalancerSourceRanges[{i}]", block.strip())
    if kind != "LoadBalancer" and spec.get("loadBalancerClass") is not None:
        yield forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'")


def service_update(old: Object, new: Object) -> Causes:
    """A changed service: an address once given stays, unless the service leaves or enters ExternalName."""
    before, after = _spec(old), _spec(new)
    types = before.get("type", "ClusterIP"), after.get("type", "ClusterIP")
    was, now = _primary(before), after.get("clusterIP") or _primary(after)
    listed = after.get("clusterIPs") or [now]
    if "ExternalName" not in types and was and now and (now != was or listed[0] != was):
        yield invalid("spec.clusterIPs[0]", listed if listed[0] != was else [now], "may not change once set")
    if types == ("LoadBalancer", "LoadBalancer"):
        was_class, now_class = before.get("loadBalancerClass"), after.get("loadBalancerClass")
        if was_class != now_class:
            yield invalid("spec.loadBalancerClass", now_class, "may not change once set")
    yield from service(new)


def _primary(spec: Spec) -> str:
    return str(spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0])


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
            here = f"{at}.ports[{j}]"
            if len(ports) > 1 and not value.get("name"):
                yield required(f"{here}.name")
            elif value.get("name"):
                yield from each(f"{here}.name", value["name"], names.dns_label(value["name"]))
            yield from port(f"{here}.port", value.get("port"))
            yield from one_of(f"{here}.protocol", value.get("protocol", "TCP"), _PROTOCOLS)


def _endpoint_address(at: str, address: Spec) -> Causes:
    text = address.get("ip", "")
    yield from _outer_ip(f"{at}.ip", text)
    if not is_ip(text):
        yield invalid(f"{at}.ip", text, "must be a valid IP address")
    if address.get("hostname"):
        yield from each(f"{at}.hostname", address["hostname"], names.dns_label(address["hostname"]))
    if address.get("nodeName"):
        yield from each(f"{at}.nodeName", address["nodeName"], names.dns_subdomain(address["nodeName"]))
