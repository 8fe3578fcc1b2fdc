"""Rules for configuration, namespaces, nodes, limits, roles, leases, events and priorities.

Source: the API documentation of each kind; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from k3s.api import names, quantity
from k3s.api.object import Object, decode
from k3s.api.validation import meta, resources, scheduling
from k3s.api.validation.causes import (
    Causes,
    cidr,
    duplicate,
    each,
    forbidden,
    internal,
    invalid,
    not_negative,
    one_of,
    required,
    selector,
    too_long,
    unchanged,
    unsupported,
)

Spec = Mapping[str, Any]
_MAX_DATA = 1024 * 1024
_RBAC = "rbac.authorization.k8s.io"


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def config_map(obj: Object) -> Causes:
    """A config map."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    total = 0
    for key, value in data.items():
        yield from each(f"data[{key}]", key, names.config_map_key(key))
        if key in binary:
            yield invalid(f"data[{key}]", key, f"duplicate of key present in binaryData[{key}]")
        total += len(value.encode("utf-8", "surrogatepass")) if not value.isascii() else len(value)
    for key, value in binary.items():
        yield from each(f"binaryData[{key}]", key, names.config_map_key(key))
        total += _decoded_size(value)
    if total > _MAX_DATA:
        yield too_long("[]", _MAX_DATA)


def config_map_update(old: Object, new: Object) -> Causes:
    """A changed config map: an immutable one stays as it is."""
    if old.get("immutable"):
        for field in ("immutable", "data", "binaryData"):
            if (old.get(field) or None) != (new.get(field) or None):
                yield forbidden(field, "field is immutable when `immutable` is set")
    yield from config_map(new)


# Secret type -> keys that it has to have.
_SECRET_KEYS = {
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}


def secret(obj: Object) -> Causes:
    """A secret: the keys of its type, and no more than a megabyte."""
    data, kind = obj.get("data") or {}, obj.get("type", "Opaque")
    total = 0
    for key, value in data.items():
        yield from each(f"data[{key}]", key, names.config_map_key(key))
        total += _decoded_size(value)
    if total > _MAX_DATA:
        yield too_long("data", _MAX_DATA)
    notes = (obj.get("metadata") or {}).get("annotations") or {}
    account = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not notes.get(account):
        yield required(f"metadata.annotations[{account}]")
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        yield required("data[username]")
        yield required("data[password]")
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif key.startswith(".docker"):
            yield from _json(f"data[{key}]", data[key])


def _json(field: str, text: str) -> Causes:
    try:
        plain = base64.b64decode(text)
        decode(plain)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError):
        first = base64.b64decode(text)[:1].decode("utf-8", "replace") if text else ""
        why = f"invalid character '{first}' looking for beginning of value" if first else "unexpected end of JSON input"
        yield invalid(field, "<secret contents redacted>", why)


def secret_update(old: Object, new: Object) -> Causes:
    """A changed secret: its type stays, and an immutable one altogether."""
    yield from unchanged("type", old.get("type"), new.get("type"))
    if old.get("immutable"):
        for field in ("immutable", "data"):
            if (old.get(field) or None) != (new.get(field) or None):
                yield forbidden(field, "field is immutable when `immutable` is set")
    yield from secret(new)


def namespace(obj: Object) -> Causes:
    """A namespace."""
    yield from meta.finalizer_names("spec.finalizers", _spec(obj).get("finalizers"))


def namespace_status(obj: Object) -> Causes:
    """The phase of a namespace follows from whether it is being deleted."""
    phase = (obj.get("status") or {}).get("phase")
    deleting = (obj.get("metadata") or {}).get("deletionTimestamp")
    if not deleting and phase != "Active":
        yield invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")
    elif deleting and phase != "Terminating":
        yield invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")


def node(obj: Object) -> Causes:
    """A node."""
    spec = _spec(obj)
    yield from scheduling.taints("metadata.taints", spec.get("taints") or ())
    for i, block in enumerate(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else ())):
        yield from cidr(f"spec.podCIDRs[{i}]", block)


def node_update(old: Object, new: Object) -> Causes:
    """A changed node: its pod range and provider stay once they are set."""
    before, after = _spec(old), _spec(new)
    yield from node(new)
    for name, path in (("podCIDRs", "spec.podCIDRs"), ("providerID", "spec.providerID")):
        if before.get(name) and before.get(name) != after.get(name):
            yield forbidden(path, "node updates may not change " + name + ' except from "" to valid')


def limit_range(obj: Object) -> Causes:
    """A limit range."""
    seen: set[str] = set()
    for i, item in enumerate(_spec(obj).get("limits") or ()):
        at = f"spec.limits[{i}]"
        kind = item.get("type", "")
        yield from each(f"{at}.type", kind, names.qualified_name(kind))
        if kind in seen:
            yield duplicate(f"{at}.type", kind)
        seen.add(kind)
        if kind == "PersistentVolumeClaim" and "storage" not in {**(item.get("min") or {}), **(item.get("max") or {})}:
            yield required(
                f"{at}.limits", "either minimum or maximum storage value is required, but neither was provided"
            )
        if kind == "Pod":
            for part in ("default", "defaultRequest"):
                if item.get(part):
                    yield forbidden(f"{at}.{part}", "may not be specified when `type` is 'Pod'")
        yield from _limits(at, item, kind)


def above(a: str | None, b: str | None) -> bool:
    """Whether the first amount is greater, when both are given."""
    return a is not None and b is not None and quantity.compare(a, b) > 0


def _limits(at: str, item: Spec, kind: str) -> Causes:
    parts = {part: item.get(part) or {} for part in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")}
    if kind in ("Container", "Pod"):
        for part, amounts in parts.items():
            for name in amounts:
                yield from resources.container_name(f"{at}.{part}[{name}]", name)
    if kind == "Pod":
        parts["default"] = parts["defaultRequest"] = {}
    keys = sorted({name for amounts in parts.values() for name in amounts})
    for name in keys:
        low, high = parts["min"].get(name), parts["max"].get(name)
        request, limit = parts["defaultRequest"].get(name), parts["default"].get(name)
        ratio = parts["maxLimitRequestRatio"].get(name)
        if above(low, high):
            yield invalid(f"{at}.min[{name}]", low, f"min value {low} is greater than max value {high}")
        field = f"{at}.defaultRequest[{name}]"
        if above(low, request):
            yield invalid(field, request, f"min value {low} is greater than default request value {request}")
        if above(request, high):
            yield invalid(field, request, f"default request value {request} is greater than max value {high}")
        if above(request, limit):
            yield invalid(
                field, request, f"default request value {request} is greater than default limit value {limit}"
            )
        field = f"{at}.default[{name}]"
        if above(low, limit):
            yield invalid(field, low, f"min value {low} is greater than default value {limit}")
        if above(limit, high):
            yield invalid(field, high, f"default value {limit} is greater than max value {high}")
        if above("1", ratio):
            yield invalid(f"{at}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1")


def resource_quota(obj: Object) -> Causes:
    """A quota."""
    yield from _amounts("spec.hard", _spec(obj).get("hard"))


def _amounts(at: str, amounts: Spec | None) -> Causes:
    for name, text in (amounts or {}).items():
        yield from resources.quota_name(f"{at}[{name}]", name)
        yield from resources.amount(f"{at}[{name}]", name, text)


def resource_quota_update(old: Object, new: Object) -> Causes:
    """A changed quota: its scopes stay."""
    yield from resource_quota(new)
    yield from unchanged("spec.scopes", _spec(old).get("scopes"), _spec(new).get("scopes"))


def resource_quota_status(obj: Object) -> Causes:
    """The amounts in the status of a quota."""
    status = obj.get("status") or {}
    yield from _amounts("status.hard", status.get("hard"))
    yield from _amounts("status.used", status.get("used"))


def role(obj: Object) -> Causes:
    """A role: rules about resources only."""
    for i, rule in enumerate(obj.get("rules") or ()):
        yield from _policy_rule(f"rules[{i}]", rule, namespaced=True)


def cluster_role(obj: Object) -> Causes:
    """A cluster role: rules about resources or about other URLs, or made of other roles."""
    for i, rule in enumerate(obj.get("rules") or ()):
        yield from _policy_rule(f"rules[{i}]", rule, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        at = "aggregationRule.clusterRoleSelectors"
        chosen = aggregation.get("clusterRoleSelectors") or ()
        if not chosen:
            yield required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")
        for i, value in enumerate(chosen):
            wrong = list(selector(f"{at}[{i}]", value))
            yield from wrong
            if wrong:
                yield invalid(f"{at}[{i}]", None, "invalid label selector.")


def _policy_rule(at: str, rule: Spec, *, namespaced: bool) -> Causes:
    if not rule.get("verbs"):
        yield required(f"{at}.verbs", "verbs must contain at least one value")
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            yield invalid(f"{at}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid(f"{at}.nonResourceURLs", urls, why)
        return
    if not rule.get("apiGroups"):
        yield required(f"{at}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield required(f"{at}.resources", "resource rules must supply at least one resource")


def role_binding(obj: Object) -> Causes:
    """A role binding."""
    yield from _binding(obj, ("Role", "ClusterRole"), namespaced=True)


def cluster_role_binding(obj: Object) -> Causes:
    """A cluster role binding."""
    yield from _binding(obj, ("ClusterRole",), namespaced=False)


def _binding(obj: Object, kinds: tuple[str, ...], *, namespaced: bool) -> Causes:
    ref = obj.get("roleRef") or {}
    yield from one_of("roleRef.apiGroup", ref.get("apiGroup", _RBAC), (_RBAC,))
    yield from one_of("roleRef.kind", ref.get("kind", ""), kinds)
    if not ref.get("name"):
        yield required("roleRef.name")
    else:
        yield from each("roleRef.name", ref["name"], names.path_segment(ref["name"]))
    for i, subject in enumerate(obj.get("subjects") or ()):
        at = f"subjects[{i}]"
        kind, name, group = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", "")
        if not name:
            yield required(f"{at}.name")
        if kind == "ServiceAccount":
            if name:
                yield from each(f"{at}.name", name, names.dns_subdomain(name))
            if group:
                yield unsupported(f"{at}.apiGroup", group, ("",))
            if not namespaced and not subject.get("namespace"):
                yield required(f"{at}.namespace")
        elif kind in ("User", "Group"):
            yield from one_of(f"{at}.apiGroup", group, (_RBAC,))
        else:
            yield unsupported(f"{at}.kind", kind, ("ServiceAccount", "User", "Group"))


def role_binding_update(old: Object, new: Object) -> Causes:
    """A changed binding: the role it refers to stays."""
    yield from role_binding(new)
    yield from _same_role(old, new)


def cluster_role_binding_update(old: Object, new: Object) -> Causes:
    """A changed binding: the role it refers to stays."""
    yield from cluster_role_binding(new)
    yield from _same_role(old, new)


def _same_role(old: Object, new: Object) -> Causes:
    if old.get("roleRef") != new.get("roleRef"):
        ref = new.get("roleRef") or {}
        shown = {name: ref.get(name, "") for name in ("apiGroup", "kind", "name")}
        yield invalid("roleRef", internal(shown), "cannot change roleRef")


def lease(obj: Object) -> Causes:
    """A lease."""
    spec = _spec(obj)
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        yield invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    yield from not_negative("spec", spec, "leaseTransitions")


def priority_class(obj: Object) -> Causes:
    """A priority class."""
    name, value = (obj.get("metadata") or {}).get("name", ""), obj.get("value", 0)
    if name.startswith("system-"):
        if name not in ("system-node-critical", "system-cluster-critical"):
            why = "priority class names with 'system-' prefix are reserved for system use only. error: "
            yield forbidden("metadata.name", f"{why}{name} is not a known system priority class")
    elif value > 1_000_000_000:
        yield forbidden("value", "maximum allowed value of a user defined priority is 1000000000")
    policy = obj.get("preemptionPolicy", "Never")
    yield from one_of("preemptionPolicy", policy, ("PreemptLowerPriority", "Never"))


def priority_class_update(old: Object, new: Object) -> Causes:
    """Value and preemption policy stay."""
    if old.get("value", 0) != new.get("value", 0):
        yield forbidden("value", "may not be changed in an update.")
    yield from unchanged("preemptionPolicy", old.get("preemptionPolicy"), new.get("preemptionPolicy"))


def event(obj: Object) -> Causes:
    """An event of either version, in the stored form: it lies in the namespace of what it is about."""
    about = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace", "")
    own = (obj.get("metadata") or {}).get("namespace", "")
    field = "regarding" if "regarding" in obj else "involvedObject"
    if about != own and not (not about and own == "default"):
        yield invalid(f"{field}.namespace", about, "does not match event.namespace")


def event_new(obj: Object) -> Causes:
    """An event of events.k8s.io/v1: who saw it, and what was done."""
    if not obj.get("eventTime"):
        yield required("eventTime")
    else:
        name = obj.get("reportingController", "")
        if not name:
            yield required("reportingController")
        yield from each("reportingController", name, names.qualified_name(name)) if name else ()
        for part in ("reportingInstance", "action", "reason"):
            if not obj.get(part):
                yield required(part)
            elif len(obj[part]) > 128:
                yield invalid(part, "", "can have at most 128 characters")
    if obj.get("type", "") not in ("Normal", "Warning"):
        yield invalid("type", "", f"has invalid value: {obj.get('type', '')}")
    if len(obj.get("note", "")) > 1024:
        yield invalid("note", "", "can have at most 1024 characters")
    yield from event(obj)


def runtime_class(obj: Object) -> Causes:
    """A runtime class."""
    handler = obj.get("handler", "")
    yield from each("handler", handler, names.dns_label(handler))


def runtime_class_update(old: Object, new: Object) -> Causes:
    """The handler stays."""
    yield from runtime_class(new)
    yield from unchanged("handler", old.get("handler"), new.get("handler"))
