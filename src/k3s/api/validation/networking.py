"""Rules for ingresses, their classes, network policies, addresses and service ranges (networking.k8s.io).

Source: the API documentation of each kind; order and wording as upstream's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    canonical_cidr,
    cidr,
    each,
    forbidden,
    invalid,
    ip,
    is_ip,
    name_of,
    one_of,
    port,
    port_or_name,
    required,
    selector,
    too_long,
    unchanged,
    unsupported,
)

Spec = Mapping[str, Any]
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_INGRESS_CLASS = "kubernetes.io/ingress.class"
_CONTROLLER_LIMIT = 250
_NOT_IN_PATH = ("//", "/./", "/../", "%2f", "%2F")
_NOT_AT_END = ("/..", "/.")


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def ingress(obj: Object) -> Causes:
    """A new ingress."""
    yield from _ingress(_spec(obj))
    noted = ((obj.get("metadata") or {}).get("annotations") or {}).get(_INGRESS_CLASS)
    name = _spec(obj).get("ingressClassName")
    if noted is not None and name is not None and noted != name:
        at = f"annotations.{_INGRESS_CLASS}"
        yield invalid(at, noted, "must match `ingressClassName` when both are specified")


def ingress_update(old: Object, new: Object) -> Causes:
    """A changed ingress."""
    yield from _ingress(_spec(new))


def _ingress(spec: Spec) -> Causes:
    rules, backend = spec.get("rules") or (), spec.get("defaultBackend")
    if not rules and backend is None:
        yield invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    if backend is not None:
        yield from _backend("spec.defaultBackend", backend)
    for i, rule in enumerate(rules):
        yield from _rule(f"spec.rules[{i}]", rule)
    for i, tls in enumerate(spec.get("tls") or ()):
        for j, host in enumerate(tls.get("hosts") or ()):
            check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
            yield from each(f"spec.tls[{i}].hosts[{j}]", host, check(host))
        secret = tls.get("secretName")
        if secret:
            yield from each(f"spec.tls[{i}].secretName", secret, names.dns_subdomain(secret))
    if spec.get("ingressClassName") is not None:
        name = spec["ingressClassName"]
        yield from each("spec.ingressClassName", name, names.dns_subdomain(name))


def _rule(at: str, rule: Spec) -> Causes:
    host, http = rule.get("host", ""), rule.get("http")
    if host:
        if is_ip(host):
            yield invalid(f"{at}.host", host, "must be a DNS name, not an IP address")
        check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
        yield from each(f"{at}.host", host, check(host))
    if http is None:
        return
    if not http.get("paths"):
        yield required(f"{at}.http.paths")
    for i, path in enumerate(http.get("paths") or ()):
        yield from _path(f"{at}.http.paths[{i}]", path)


def _path(at: str, value: Spec) -> Causes:
    kind, path = value.get("pathType"), value.get("path", "")
    if kind is None:
        yield required(f"{at}.pathType", "pathType must be specified")
        return
    if kind in ("Exact", "Prefix"):
        if not path.startswith("/"):
            yield invalid(f"{at}.path", path, "must be an absolute path")
        for part in _NOT_IN_PATH:
            if part in path:
                yield invalid(f"{at}.path", path, f"must not contain '{part}'")
        for part in _NOT_AT_END:
            if path.endswith(part):
                yield invalid(f"{at}.path", path, f"cannot end with '{part}'")
    elif kind != "ImplementationSpecific":
        yield unsupported(f"{at}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix"))
    elif path and not path.startswith("/"):
        yield invalid(f"{at}.path", path, "must be an absolute path")
    yield from _backend(f"{at}.backend", value.get("backend") or {})


def _backend(at: str, backend: Spec) -> Causes:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        yield invalid(at, "", "cannot set both resource and service backends")
    elif resource is not None:
        yield from _reference(f"{at}.resource", resource)
    elif service is None:
        yield invalid(at, "", "resource or service backend is required")
    else:
        yield from name_of(f"{at}.service.name", service.get("name", ""), names.dns_label)
        chosen = service.get("port") or {}
        if chosen.get("name") and chosen.get("number"):
            yield invalid(at, "", "cannot set both port name & port number")
        elif chosen.get("name"):
            yield from each(f"{at}.service.port.name", chosen["name"], names.port_name(chosen["name"]))
        elif chosen.get("number"):
            yield from port(f"{at}.service.port.number", chosen["number"])
        else:
            yield required(at, "port name or number is required")


def _reference(at: str, ref: Spec) -> Causes:
    """An object by group, kind and name."""
    if ref.get("apiGroup") is not None:
        yield from each(f"{at}.apiGroup", ref["apiGroup"], names.dns_subdomain(ref["apiGroup"]))
    for part in ("kind", "name"):
        yield from name_of(f"{at}.{part}", ref.get(part, ""), names.path_segment)


def balancer_status(obj: Object) -> Causes:
    """Addresses in the status of an ingress or a service."""
    balancer = (obj.get("status") or {}).get("loadBalancer") or {}
    for i, entry in enumerate(balancer.get("ingress") or ()):
        at, host = f"status.loadBalancer.ingress[{i}]", entry.get("hostname")
        if entry.get("ip"):
            yield from ip(f"{at}.ip", entry["ip"])
        if host:
            yield from each(f"{at}.hostname", host, names.dns_subdomain(host))
            if is_ip(host):
                yield invalid(f"{at}.hostname", host, "must be a DNS name, not an IP address")


def ingress_class(obj: Object) -> Causes:
    """An ingress class."""
    name, parameters = _spec(obj).get("controller", ""), _spec(obj).get("parameters")
    if not name:
        yield required("spec.controller")
    else:
        if len(name.encode()) > _CONTROLLER_LIMIT:
            yield too_long("spec.controller", _CONTROLLER_LIMIT)
        yield from each("spec.controller", name, names.domain_prefixed_path(name))
    if parameters is not None:
        yield from _parameters("spec.parameters", parameters)


def _parameters(at: str, ref: Spec) -> Causes:
    yield from _reference(at, ref)
    scope, space = ref.get("scope"), ref.get("namespace")
    if scope is None:
        yield required(f"{at}.scope")
        return
    yield from one_of(f"{at}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace":
        if space is None:
            yield required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'")
        else:
            yield from each(f"{at}.namespace", space, names.dns_label(space))
    elif scope == "Cluster" and space is not None:
        yield forbidden(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'")


def ingress_class_update(old: Object, new: Object) -> Causes:
    """The controller stays."""
    yield from unchanged("spec.controller", _spec(old).get("controller"), _spec(new).get("controller"))
    yield from ingress_class(new)


def network_policy(obj: Object) -> Causes:
    """A network policy."""
    yield from _policy(_spec(obj), frozenset())


def network_policy_update(old: Object, new: Object) -> Causes:
    """A changed network policy: ranges that were there before are not looked at again."""
    blocks = [peer["ipBlock"] for peer in _peers(_spec(old)) if peer.get("ipBlock")]
    known = {text for block in blocks for text in (block.get("cidr", ""), *(block.get("except") or ()))}
    yield from _policy(_spec(new), known)


def _peers(spec: Spec) -> Iterator[Spec]:
    for side, who in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(side) or ():
            yield from rule.get(who) or ()


def _policy(spec: Spec, known: Collection[str]) -> Causes:
    yield from selector("spec.podSelector", spec.get("podSelector"))
    for side, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(side) or ()):
            at = f"spec.{side}[{i}]"
            for j, value in enumerate(rule.get("ports") or ()):
                yield from _policy_port(f"{at}.ports[{j}]", value)
            for j, peer in enumerate(rule.get(peers) or ()):
                yield from _peer(f"{at}.{peers}[{j}]", peer, known)
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        yield invalid("spec.policyTypes", types, "may not specify more than two policyTypes")
    else:
        for i, kind in enumerate(types):
            yield from one_of(f"spec.policyTypes[{i}]", kind, ("Ingress", "Egress"))


def _policy_port(at: str, value: Spec) -> Causes:
    if value.get("protocol") is not None:
        yield from one_of(f"{at}.protocol", value["protocol"], _PROTOCOLS)
    number, end = value.get("port"), value.get("endPort")
    if number is None:
        if end is not None:
            yield invalid(f"{at}.endPort", end, "may not be specified when `port` is not specified")
        return
    if isinstance(number, str) and end is not None:
        yield invalid(f"{at}.endPort", end, "may not be specified when `port` is non-numeric")
    yield from port_or_name(f"{at}.port", number)
    if isinstance(number, int) and end is not None:
        if end < number:
            yield invalid(f"{at}.endPort", end, "must be greater than or equal to `port`")
        yield from port(f"{at}.endPort", end)


def _peer(at: str, peer: Spec, known: Collection[str]) -> Causes:
    found = [part for part in ("podSelector", "namespaceSelector", "ipBlock") if part in peer]
    for part in ("podSelector", "namespaceSelector"):
        yield from selector(f"{at}.{part}", peer.get(part))
    block = peer.get("ipBlock")
    if block is not None:
        yield from _block(f"{at}.ipBlock", block, known)
    if not found:
        yield required(at, "must specify a peer")
    elif block is not None and len(found) > 1:
        yield forbidden(at, "may not specify both ipBlock and another peer")


def _block(at: str, block: Spec, known: Collection[str]) -> Causes:
    text = block.get("cidr", "")
    if not text:
        yield required(f"{at}.cidr")
        return
    yield from () if text in known else cidr(f"{at}.cidr", text)
    whole = _network(text)
    if whole is None:
        return
    for i, inner in enumerate(block.get("except") or ()):
        here = f"{at}.except[{i}]"
        yield from () if inner in known else cidr(here, inner)
        part = _network(inner)
        if part is not None and not (whole.version == part.version and whole != part and part.subnet_of(whole)):
            yield invalid(here, inner, "must be a strict subset of `cidr`")


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def ip_address(obj: Object) -> Causes:
    """An address of a service, whose name it is."""
    parent = _spec(obj).get("parentRef")
    if parent is None:
        yield required("spec.parentRef")
        return
    at = "spec.parentRef"
    if parent.get("group"):
        yield from each(f"{at}.group", parent["group"], names.dns_subdomain(parent["group"]))
    for part in ("resource", "name"):
        yield from name_of(f"{at}.{part}", parent.get(part, ""), names.path_segment)
    if parent.get("namespace"):
        yield from each(f"{at}.namespace", parent["namespace"], names.path_segment(parent["namespace"]))


def ip_address_update(old: Object, new: Object) -> Causes:
    """What an address belongs to stays."""
    yield from unchanged("spec.parentRef", _spec(old).get("parentRef"), _spec(new).get("parentRef"))


def service_cidr(obj: Object) -> Causes:
    """A range of service addresses, one for each family."""
    at, ranges = "spec.cidrs", _spec(obj).get("cidrs") or []
    if not ranges:
        yield required(at, "at least one CIDR required")
        return
    if len(ranges) > 2:
        yield invalid(at, {"CIDRs": ranges}, "may only hold up to 2 values")
        return
    for i, text in enumerate(ranges):
        yield from canonical_cidr(f"{at}[{i}]", text)
    families = [network.version for network in map(_network, ranges) if network is not None]
    if len(families) == 2 and families[0] == families[1]:
        why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        yield invalid(at, ranges, why)


def service_cidr_update(old: Object, new: Object) -> Causes:
    """Ranges stay; a second one may come."""
    before, after = _spec(old).get("cidrs") or [], _spec(new).get("cidrs") or []
    if len(before) == len(after) or (len(before), len(after)) == (1, 2):
        for i, (was, now) in enumerate(zip(before, after, strict=False)):
            yield from unchanged(f"spec.cidrs[{i}]", was, now)
        if len(after) > len(before):
            yield from service_cidr(new)
    else:
        yield from unchanged("spec.cidrs", before, after)
