"""Rules for endpoint slices. Source: the EndpointSlice documentation; order and wording as upstream's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    invalid,
    ip,
    joined,
    labels,
    one_of,
    required,
    too_many,
    unchanged,
)
from k3s.api.validation.services import special_ip

Spec = Mapping[str, Any]
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MOST_ENDPOINTS = 1000
_MOST_PARTS = 100
_MOST_TOPOLOGY = 16
_MOST_HINTS = 8


def endpoint_slice(obj: Object) -> Causes:
    """A slice of endpoints."""
    kind = obj.get("addressType", "")
    if not kind:
        yield required("addressType")
    else:
        yield from one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    endpoints = obj.get("endpoints") or ()
    if len(endpoints) > _MOST_ENDPOINTS:
        yield too_many("endpoints", len(endpoints), _MOST_ENDPOINTS)
    else:
        for i, endpoint in enumerate(endpoints):
            yield from _endpoint(f"endpoints[{i}]", endpoint, kind)
    ports = obj.get("ports") or ()
    if len(ports) > _MOST_PARTS:
        yield too_many("ports", len(ports), _MOST_PARTS)
    else:
        yield from _ports(ports)


def endpoint_slice_update(old: Object, new: Object) -> Causes:
    """The type of addresses stays."""
    yield from endpoint_slice(new)
    yield from unchanged("addressType", old.get("addressType"), new.get("addressType"))


def _endpoint(at: str, endpoint: Spec, kind: str) -> Causes:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        yield required(f"{at}.addresses", "must contain at least 1 address")
    elif len(addresses) > _MOST_PARTS:
        yield too_many(f"{at}.addresses", len(addresses), _MOST_PARTS)
    for i, address in enumerate(addresses):
        yield from _address(f"{at}.addresses[{i}]", address, kind)
    node, topology = endpoint.get("nodeName"), endpoint.get("deprecatedTopology") or {}
    if node is not None:
        yield from each(f"{at}.nodeName", node, names.dns_subdomain(node))
    if len(topology) > _MOST_TOPOLOGY:
        yield too_many(f"{at}.deprecatedTopology", len(topology), _MOST_TOPOLOGY)
    yield from labels(f"{at}.deprecatedTopology", topology)
    host, hints = endpoint.get("hostname"), endpoint.get("hints") or {}
    if host is not None:
        yield from each(f"{at}.hostname", host, names.dns_label(host))
    for part, check in (("forZones", names.qualified_name), ("forNodes", names.dns_subdomain)):
        chosen = hints.get(part) or ()
        if len(chosen) > _MOST_HINTS:
            yield too_many(f"{at}.hints.{part}", len(chosen), _MOST_HINTS)
            continue
        for i, hint in enumerate(chosen):
            here, name = f"{at}.hints.{part}[{i}].name", hint.get("name", "")
            if any(other.get("name", "") == name for other in chosen[:i]):
                yield duplicate(here, name)
            yield from each(here, name, check(name))


def _address(at: str, address: str, kind: str) -> Causes:
    if kind == "FQDN":
        yield from _domain(at, address)
    elif kind in ("IPv4", "IPv6"):
        wrong = list(ip(at, address))
        yield from wrong
        if not wrong:
            if (":" in address) != (kind == "IPv6"):
                yield invalid(at, address, f"must be an {kind} address")
            yield from special_ip(at, address)


def _domain(at: str, name: str) -> Causes:
    if not name:
        yield required(at)
        return
    name = name.removesuffix(".")
    problems = names.dns_subdomain(name)
    if problems:
        yield from joined(at, name, problems)
    elif "." not in name:
        yield invalid(at, name, "should be a domain with at least two segments separated by dots")
    else:
        for label in name.split("."):
            yield from joined(at, label, names.dns_label(label))


def _ports(ports: Any) -> Causes:
    seen: set[str] = set()
    for i, value in enumerate(ports):
        at, name, protocol = f"ports[{i}]", value.get("name", ""), value.get("appProtocol")
        if name:
            yield from each(f"{at}.name", name, names.dns_label(name))
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)
        if value.get("protocol") is None:
            yield required(f"{at}.protocol")
        else:
            yield from one_of(f"{at}.protocol", value["protocol"], _PROTOCOLS)
        if protocol is not None:
            yield from each(f"{at}.appProtocol", protocol, names.qualified_name(protocol))
