"""Cells of nodes, volumes, services, policies and everything else that is not a workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k3s.api.cells.text import (
    NONE,
    UNKNOWN,
    UNSET,
    Age,
    access_modes,
    condition,
    created,
    duration,
    pairs,
    selector,
    some,
)
from k3s.api.object import Object


def _name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def _spec(obj: Object) -> Mapping[str, Any]:
    return obj.get("spec") or {}


def _status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}


def named(obj: Object, age: Age) -> list[Any]:
    """name, age."""
    return [_name(obj), age(created(obj))]


def node(obj: Object, age: Age) -> list[Any]:
    """name, status, roles, age, version, internal and external address, OS image, kernel, runtime."""
    spec, status = _spec(obj), _status(obj)
    ready = condition(obj, "Ready")
    state = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    roles = set()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        role = key.removeprefix("node-role.kubernetes.io/")
        if role != key and role:
            roles.add(role)
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    addresses = {a.get("type"): a.get("address") for a in reversed(status.get("addresses") or [])}
    info = status.get("nodeInfo") or {}
    kernel = info.get("kernelVersion")
    if info.get("architecture"):
        kernel = f"{kernel or UNKNOWN} ({info['architecture']})"
    return [
        _name(obj),
        state,
        ",".join(sorted(roles)) or NONE,
        age(created(obj)),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or UNKNOWN,
        kernel or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def namespace(obj: Object, age: Age) -> list[Any]:
    """name, status, age."""
    return [_name(obj), _status(obj).get("phase", ""), age(created(obj))]


def service(obj: Object, age: Age) -> list[Any]:
    """name, type, cluster address, external address, ports, age, selector."""
    spec = _spec(obj)
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    ports = [
        f"{p.get('port', 0)}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p.get('port', 0)}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    ]
    return [
        _name(obj),
        spec.get("type", ""),
        ips[0] if ips else NONE,
        _external(obj),
        ",".join(ports) or NONE,
        age(created(obj)),
        pairs(spec.get("selector")),
    ]


def _external(obj: Object) -> str:
    spec = _spec(obj)
    kind, extra = spec.get("type"), list(spec.get("externalIPs") or ())
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        given = _addresses(_status(obj).get("loadBalancer"))
        return ",".join(given + extra) or "<pending>"
    return ",".join(extra) or NONE


def _addresses(balancer: Mapping[str, Any] | None) -> list[str]:
    found = {i.get("ip") or i.get("hostname") for i in (balancer or {}).get("ingress") or ()}
    return sorted(text for text in found if text)


def endpoints(obj: Object, age: Age) -> list[Any]:
    """name, addresses with ports, age."""
    return [_name(obj), some(_endpoint_texts(obj), empty="") if obj.get("subsets") else NONE, age(created(obj))]


def _endpoint_texts(obj: Object) -> Iterable[str]:
    for subset in obj.get("subsets") or ():
        ports = subset.get("ports") or ()
        for address in subset.get("addresses") or () if not ports else ():
            yield address["ip"]
        for port in ports:
            for address in subset.get("addresses") or ():
                ip = address["ip"]
                yield f"[{ip}]:{port.get('port', 0)}" if ":" in ip else f"{ip}:{port.get('port', 0)}"


def endpoint_slice(obj: Object, age: Age) -> list[Any]:
    """name, address type, ports, endpoints, age."""
    ports = [str(p["port"]) if "port" in p else p.get("name", "*") for p in obj.get("ports") or ()]
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        _name(obj),
        obj.get("addressType", ""),
        some(ports) if any(ports) else UNSET,
        some(addresses, empty=UNSET),
        age(created(obj)),
    ]


def ingress(obj: Object, age: Age) -> list[Any]:
    """name, class, hosts, address, ports, age."""
    spec = _spec(obj)
    return [
        _name(obj),
        spec.get("ingressClassName") or NONE,
        _hosts(spec.get("rules") or ()),
        ",".join(_addresses(_status(obj).get("loadBalancer"))),
        "80, 443" if spec.get("tls") else "80",
        age(created(obj)),
    ]


def _hosts(rules: Sequence[Mapping[str, Any]]) -> str:
    """The first three hosts; where rules follow these, how many there are past three, those without a host too."""
    hosts = [(i, rule["host"]) for i, rule in enumerate(rules) if rule.get("host")][:3]
    text = ",".join(host for _, host in hosts) or "*"
    more = len(hosts) == 3 and hosts[-1][0] < len(rules) - 1
    return f"{text} + {len(rules) - 3} more..." if more else text


def ingress_class(obj: Object, age: Age) -> list[Any]:
    """name, controller, parameters, age."""
    spec = _spec(obj)
    ref = spec.get("parameters")
    text = NONE
    if ref:
        group = f".{ref['apiGroup']}" if "apiGroup" in ref else ""
        text = f"{ref.get('kind', '')}{group}/{ref.get('name', '')}"
    default = (obj["metadata"].get("annotations") or {}).get("ingressclass.kubernetes.io/is-default-class") == "true"
    return [f"{_name(obj)} (default)" if default else _name(obj), spec.get("controller", ""), text, age(created(obj))]


def network_policy(obj: Object, age: Age) -> list[Any]:
    """name, pod selector, age."""
    return [_name(obj), selector(_spec(obj).get("podSelector")), age(created(obj))]


def ip_address(obj: Object, age: Age) -> list[Any]:
    """name, parent, and the age, which has no column of its own."""
    ref = _spec(obj).get("parentRef")
    if ref is None:
        return [_name(obj), NONE, age(created(obj))]
    kind = ".".join(p for p in (ref.get("resource"), ref.get("group")) if p).lower()
    parts = [kind, ref.get("namespace"), ref.get("name")]
    return [_name(obj), "/".join(p for p in parts if p), age(created(obj))]


def service_cidr(obj: Object, age: Age) -> list[Any]:
    """name, ranges, age."""
    return [_name(obj), ",".join(_spec(obj).get("cidrs") or ()), age(created(obj))]


def persistent_volume(obj: Object, age: Age) -> list[Any]:
    """name, capacity, modes, policy, status, claim, class, attributes class, reason, age, volume mode."""
    spec, status = _spec(obj), _status(obj)
    claim = spec.get("claimRef")
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        _name(obj),
        (spec.get("capacity") or {}).get("storage", "0"),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _storage_class(obj),
        spec.get("volumeAttributesClassName", UNSET),
        status.get("reason", ""),
        age(created(obj)),
        spec.get("volumeMode", UNSET),
    ]


def _storage_class(obj: Object) -> str:
    old = (obj["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return str(old if old is not None else _spec(obj).get("storageClassName", ""))


def volume_claim(obj: Object, age: Age) -> list[Any]:
    """name, status, volume, capacity, modes, class, attributes class, age, volume mode."""
    spec, status = _spec(obj), _status(obj)
    volume = spec.get("volumeName", "")
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        _name(obj),
        phase,
        volume,
        (status.get("capacity") or {}).get("storage", "0") if volume else "",
        access_modes(status.get("accessModes")) if volume else "",
        _storage_class(obj),
        spec.get("volumeAttributesClassName", UNSET),
        age(created(obj)),
        spec.get("volumeMode", UNSET),
    ]


def event(obj: Object, age: Age) -> list[Any]:
    """last seen, type, reason, object, part, source, message, first seen, count, name; of a v1 event."""
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    first = age(obj.get("firstTimestamp") or obj.get("eventTime"))
    last = age(obj["lastTimestamp"]) if obj.get("lastTimestamp") else first
    count = obj.get("count", 0) or 1
    series = obj.get("series")
    if series:
        last, count = age(series.get("lastObservedTime")), series.get("count", 0)
    kind = about.get("kind", "").lower()
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        obj.get("message", "").strip(),
        first,
        count,
        _name(obj),
    ]


def resource_quota(obj: Object, age: Age) -> list[Any]:
    """name, requests, limits, age."""
    status = _status(obj)
    hard, used = status.get("hard") or {}, status.get("used") or {}
    request: list[str] = []
    limit: list[str] = []
    for key in sorted(hard):
        (limit if key.startswith("limits.") else request).append(f"{key}: {used.get(key, '0')}/{hard[key]}")
    return [_name(obj), ", ".join(request), ", ".join(limit), age(created(obj))]


def config_map(obj: Object, age: Age) -> list[Any]:
    """name, number of keys, age."""
    return [_name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(created(obj))]


def secret(obj: Object, age: Age) -> list[Any]:
    """name, type, number of keys, age."""
    return [_name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(created(obj))]


def component_status(obj: Object, age: Age) -> list[Any]:
    """name, status, message, error."""
    state, message, error = "Unknown", "", ""
    for found in obj.get("conditions") or ():
        if found.get("type") == "Healthy":
            state = "Healthy" if found.get("status") == "True" else "Unhealthy"
            message, error = found.get("message", ""), found.get("error", "")
    return [_name(obj), state, message, error]


def role_binding(obj: Object, age: Age) -> list[Any]:
    """name, role, age, users, groups, service accounts."""
    ref = obj.get("roleRef") or {}
    subjects = obj.get("subjects") or ()
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for s in subjects:
        name = s.get("name", "")
        full = f"{s.get('namespace', '')}/{name}" if s.get("kind") == "ServiceAccount" else name
        by_kind.setdefault(s.get("kind", ""), []).append(full)
    lists = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [_name(obj), f"{ref.get('kind', '')}/{ref.get('name', '')}", age(created(obj)), *lists]


def disruption_budget(obj: Object, age: Age) -> list[Any]:
    """name, minimum, maximum, allowed, age."""
    spec = _spec(obj)
    limits = [str(spec[field]) if field in spec else "N/A" for field in ("minAvailable", "maxUnavailable")]
    return [_name(obj), *limits, _status(obj).get("disruptionsAllowed", 0), age(created(obj))]


def signing_request(obj: Object, age: Age) -> list[Any]:
    """name, age, signer, requestor, duration, condition."""
    spec, status = _spec(obj), _status(obj)
    types = [c.get("type") for c in status.get("conditions") or ()]
    state = "Pending"
    for kind in ("Approved", "Denied"):
        if kind in types:
            state = kind
    if "Failed" in types:
        state += ",Failed"
    if status.get("certificate"):
        state += ",Issued"
    seconds = spec.get("expirationSeconds")
    return [
        _name(obj),
        age(created(obj)),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        NONE if seconds is None else duration(seconds),
        state,
    ]


def lease(obj: Object, age: Age) -> list[Any]:
    """name, holder, age."""
    return [_name(obj), _spec(obj).get("holderIdentity", ""), age(created(obj))]


def runtime_class(obj: Object, age: Age) -> list[Any]:
    """name, handler, age."""
    return [_name(obj), obj.get("handler", ""), age(created(obj))]


def priority_class(obj: Object, age: Age) -> list[Any]:
    """name, value, global default, age, preemption policy."""
    policy = obj.get("preemptionPolicy", "")
    return [_name(obj), obj.get("value", 0), obj.get("globalDefault", False), age(created(obj)), policy]


def storage_class(obj: Object, age: Age) -> list[Any]:
    """name, provisioner, reclaim policy, binding mode, expansion, age."""
    notes = obj["metadata"].get("annotations") or {}
    marks = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
    default = any(notes.get(mark) == "true" for mark in marks)
    return [
        f"{_name(obj)} (default)" if default else _name(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        obj.get("allowVolumeExpansion", False),
        age(created(obj)),
    ]


def csi_driver(obj: Object, age: Age) -> list[Any]:
    """name, attach, pod info, capacity, token audiences, republish, modes, age."""
    spec = _spec(obj)
    tokens = spec.get("tokenRequests")
    return [
        _name(obj),
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        ",".join(t.get("audience", "") for t in tokens) if tokens else UNSET,
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(created(obj)),
    ]


def csi_node(obj: Object, age: Age) -> list[Any]:
    """name, number of drivers, age."""
    return [_name(obj), len(_spec(obj).get("drivers") or ()), age(created(obj))]


def volume_attachment(obj: Object, age: Age) -> list[Any]:
    """name, attacher, volume, node, attached, age."""
    spec = _spec(obj)
    volume = (spec.get("source") or {}).get("persistentVolumeName", "")
    attached = _status(obj).get("attached", False)
    return [_name(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age(created(obj))]


def attributes_class(obj: Object, age: Age) -> list[Any]:
    """name, driver, age."""
    return [_name(obj), obj.get("driverName", ""), age(created(obj))]


def webhooks(obj: Object, age: Age) -> list[Any]:
    """name, number of webhooks, age."""
    return [_name(obj), len(obj.get("webhooks") or ()), age(created(obj))]


def admission_policy(obj: Object, age: Age) -> list[Any]:
    """name, number of rules, kind of parameters, age."""
    spec = _spec(obj)
    rules = spec.get("mutations" if obj.get("kind") == "MutatingAdmissionPolicy" else "validations") or ()
    params = spec.get("paramKind")
    text = f"{params.get('apiVersion', '')}/{params.get('kind', '')}" if params else UNSET
    return [_name(obj), len(rules), text, age(created(obj))]


def policy_binding(obj: Object, age: Age) -> list[Any]:
    """name, policy, parameters, age."""
    spec = _spec(obj)
    ref = spec.get("paramRef")
    text = UNSET
    if ref and ref.get("name"):
        text = f"{ref.get('namespace') or '*'}/{ref['name']}"
    elif ref and ref.get("selector"):
        text = _struct_text(ref["selector"])
    return [_name(obj), spec.get("policyName", ""), text, age(created(obj))]


def _struct_text(chosen: Mapping[str, Any]) -> str:
    """A label selector as the API's own debug text writes it."""
    labels = "".join(f"{k}: {v}," for k, v in sorted((chosen.get("matchLabels") or {}).items()))
    rules = "".join(
        "LabelSelectorRequirement{"
        f"Key:{e.get('key', '')},Operator:{e.get('operator', '')},Values:[{' '.join(e.get('values') or ())}],}},"
        for e in chosen.get("matchExpressions") or ()
    )
    parts = f"MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{rules}}},"
    return f"&LabelSelector{{{parts}}}"


def api_service(obj: Object, age: Age) -> list[Any]:
    """name, service, available, age."""
    ref = _spec(obj).get("service")
    found = condition(obj, "Available") or {}
    state = found.get("status", "Unknown")
    if state != "True" and found.get("reason"):
        state = f"{state} ({found['reason']})"
    service_text = f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else "Local"
    return [_name(obj), service_text, state, age(created(obj))]


def flow_schema(obj: Object, age: Age) -> list[Any]:
    """name, priority level, precedence, distinguisher, age, whether the level is missing."""
    spec = _spec(obj)
    found = condition(obj, "Dangling") or {}
    method = spec.get("distinguisherMethod")
    return [
        _name(obj),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        method.get("type", "") if method else NONE,
        age(created(obj)),
        found.get("status") or "?",
    ]


def priority_level(obj: Object, age: Age) -> list[Any]:
    """name, type, shares, queues, hand size, queue length, age."""
    spec = _spec(obj)
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    queues = [queuing.get(field, NONE) for field in ("queues", "handSize", "queueLengthLimit")]
    shares = limited.get("nominalConcurrencyShares", NONE)
    return [_name(obj), spec.get("type", ""), shares, *queues, age(created(obj))]


def resource_claim(obj: Object, age: Age) -> list[Any]:
    """name, state, age."""
    status = _status(obj)
    states = ["deleted"] if obj["metadata"].get("deletionTimestamp") else []
    if not status.get("allocation"):
        states = states or ["pending"]
    else:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    return [_name(obj), ",".join(states), age(created(obj))]


def resource_slice(obj: Object, age: Age) -> list[Any]:
    """name, node, driver, pool, age."""
    spec = _spec(obj)
    pool = (spec.get("pool") or {}).get("name", "")
    return [_name(obj), spec.get("nodeName", ""), spec.get("driver", ""), pool, age(created(obj))]
