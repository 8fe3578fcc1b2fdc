"""Rules for configuration, namespaces, nodes, limits, roles, leases and priorities.

Source: the API documentation of each kind; order and wording as recorded from upstream 1.36.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import meta, resources, scheduling
from k3s.api.validation.causes import (
    Causes,
    each,
    forbidden,
    internal,
    invalid,
    labels,
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
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        total += len(value.encode("utf-8", "surrogatepass")) if not value.isascii() else len(value)
    for key, value in binary.items():
        yield from each(f"binaryData[{key}]", key, names.config_map_key(key))
        total += _decoded_size(value)
    if total > _MAX_DATA:
        yield too_long("[]", _MAX_DATA)


def config_map_update(old: Object, new: Object) -> Causes:
    """A changed config map: an immutable one stays as it is."""
    yield from _frozen(old, new, "data", "binaryData")
    yield from config_map(new)


def _frozen(old: Object, new: Object, *fields: str) -> Causes:
    """Once an object is immutable, it stays so, and so do these of its fields."""
    for field in ("immutable", *fields) if old.get("immutable") else ():
        if (old.get(field) or None) != (new.get(field) or None):
            yield forbidden(field, "field is immutable when `immutable` is set")


# Secret type -> keys that it has to have.
_SECRET_KEYS = {
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}
_ACCOUNT = "kubernetes.io/service-account.name"


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
    if kind == "kubernetes.io/service-account-token" and not notes.get(_ACCOUNT):
        yield required(f"metadata.annotations[{_ACCOUNT}]")
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        yield required("data[username]")
        yield required("data[password]")
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data or (key == "ssh-privatekey" and not data[key]):
            yield required(f"data[{key}]")
        elif key.startswith(".docker"):
            yield from _json(f"data[{key}]", data[key])


_GO_KINDS = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def _json(field: str, text: str) -> Causes:
    """A JSON object, of which nothing is told."""
    from k3s.api import jsontext

    why = ""
    try:
        found = jsontext.value(base64.b64decode(text))
    except jsontext.Malformed as error:
        why = str(error)
    else:
        if found is not None and not isinstance(found, dict):
            why = f"json: cannot unmarshal {_GO_KINDS[type(found)]} into Go value of type map[string]interface {{}}"
    if why:
        yield invalid(field, "<secret contents redacted>", why)


def secret_update(old: Object, new: Object) -> Causes:
    """A changed secret: its type stays, and an immutable one altogether."""
    yield from unchanged("type", old.get("type"), new.get("type"))
    yield from _frozen(old, new, "data")
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


def runtime_class(obj: Object) -> Causes:
    """A runtime class."""
    handler = obj.get("handler", "")
    yield from each("handler", handler, names.dns_label(handler))
    overhead, where = obj.get("overhead"), obj.get("scheduling")
    if overhead is not None:
        yield from resources.requirements("overhead", {"limits": overhead.get("podFixed")})
    if where is not None:
        yield from labels("scheduling.nodeSelector", where.get("nodeSelector"))
        yield from scheduling.tolerations("scheduling.tolerations", where.get("tolerations") or ())


def runtime_class_update(old: Object, new: Object) -> Causes:
    """The handler stays; what else changes is not looked at."""
    yield from unchanged("handler", old.get("handler"), new.get("handler"))
