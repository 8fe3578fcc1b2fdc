"""The roles and bindings that every cluster begins with, and how they are kept at start: added to, never taken from.

Upstream's are in `data/rbac.json`; k3s' own rows are here. Source of the reconciliation rules: "Auto-reconciliation" on
the RBAC page of the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from k3s.api import rbac
from k3s.api.kinds import Kind
from k3s.api.object import Object, decode
from k3s.apiserver import identity
from k3s.apiserver.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

_DATA = Path(__file__).with_name("data") / "rbac.json"
_KINDS = {kind.kind: kind for kind in (CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING)}
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}


class Change(NamedTuple):
    """What has to be written: `action` is create, update, or replace (delete and create: a roleRef cannot change)."""

    action: str
    kind: Kind
    obj: Object


def _rule(group: str, resources: Iterable[str], verbs: str) -> Object:
    return {"apiGroups": [group], "resources": list(resources), "verbs": verbs.split()}


def _binding_body(role: str, user: str) -> Object:
    subject = {"apiGroup": rbac.GROUP, "kind": "User", "name": user}
    return {"roleRef": {"apiGroup": rbac.GROUP, "kind": "ClusterRole", "name": role}, "subjects": [subject]}


# What the parts of an agent that are neither kubelet nor proxy read: the network, network policies and DNS.
_K3S_CONTROLLER_RULES = [
    _rule("", ["nodes"], "get list watch"),
    _rule("", ["namespaces", "services", "endpoints", "pods"], "get list watch"),
    _rule("discovery.k8s.io", ["endpointslices"], "get list watch"),
    _rule("networking.k8s.io", ["networkpolicies"], "get list watch"),
]

_OWN: tuple[tuple[str, str, str, Object], ...] = (
    ("ClusterRole", "", identity.K3S_CONTROLLER, {"rules": _K3S_CONTROLLER_RULES}),
    (
        "ClusterRoleBinding",
        "",
        identity.K3S_CONTROLLER,
        _binding_body(identity.K3S_CONTROLLER, identity.K3S_CONTROLLER),
    ),
    (
        "ClusterRoleBinding",
        "",
        "kube-apiserver-kubelet-admin",
        _binding_body("system:kubelet-api-admin", identity.KUBELET_CLIENT),
    ),
)


def objects() -> list[tuple[Kind, Object]]:
    """Every bootstrap object, roles first; aggregated roles already hold the rules of the roles they select."""
    made = []
    for kind_name, namespace, name, body in (*decode(_DATA.read_bytes()), *_OWN):
        made.append((_KINDS[kind_name], _object(_KINDS[kind_name], namespace, name, body)))
    filled = {role["metadata"]["name"]: role for role in rbac.aggregate([o for k, o in made if k is CLUSTER_ROLE])}
    return [(kind, filled.get(obj["metadata"]["name"], obj) if kind is CLUSTER_ROLE else obj) for kind, obj in made]


def node_rules() -> list[Object]:
    """The rules of the cluster role system:node, for the node authorizer."""
    for kind_name, _, name, body in decode(_DATA.read_bytes()):
        if kind_name == "ClusterRole" and name == "system:node":
            rules: list[Object] = body["rules"]
            return rules
    raise LookupError("Cannot find the cluster role system:node in data/rbac.json; generate the file again")


def changes(reader: Reader) -> list[Change]:
    """What to write so that every bootstrap object exists and has at least its rules, subjects, labels, annotations."""
    found = []
    for kind, wanted in objects():
        meta = wanted["metadata"]
        live = reader.get(kind, meta.get("namespace", ""), meta["name"])
        change = Change("create", kind, wanted) if live is None else reconciled(kind, live, wanted)
        if change is not None:
            found.append(change)
    return found


def reconciled(kind: Kind, live: Object, wanted: Object) -> Change | None:
    """How a live object has to change; None when it already has everything or its owner switched reconciling off."""
    meta = live["metadata"]
    if (meta.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    if live.get("roleRef") != wanted.get("roleRef"):
        return Change("replace", kind, wanted)
    new = {**live, "metadata": _with_meta(meta, wanted["metadata"])}
    if "roleRef" in wanted:
        new["subjects"] = _union(live.get("subjects") or [], wanted.get("subjects") or [])
    elif "aggregationRule" not in wanted:
        new["rules"] = [
            *(live.get("rules") or []),
            *rbac.compact(rbac.missing(live.get("rules") or [], wanted["rules"])),
        ]
    elif live.get("aggregationRule") is None:
        new["aggregationRule"] = wanted["aggregationRule"]
    same = new["metadata"] == meta and all((new.get(f) or None) == (live.get(f) or None) for f in _CONTENT)
    return None if same else Change("update", kind, new)


_CONTENT = ("rules", "subjects", "aggregationRule")


def _object(kind: Kind, namespace: str, name: str, body: Object) -> Object:
    meta: Object = {"name": name, **({"namespace": namespace} if namespace else {})}
    meta["labels"] = {**_LABELS, **body.get("labels", {})}
    meta["annotations"] = {AUTOUPDATE: "true"}
    rest = {key: value for key, value in body.items() if key != "labels"}
    if kind.kind.endswith("Role"):
        rest.setdefault("rules", [])
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **rest}


def _with_meta(live: Object, wanted: Object) -> Object:
    merged = dict(live)
    for field in ("labels", "annotations"):
        merged[field] = {**wanted[field], **(live.get(field) or {})}
    return merged


def _union(live: list[Object], wanted: list[Object]) -> list[Object]:
    return live + [subject for subject in wanted if subject not in live]
