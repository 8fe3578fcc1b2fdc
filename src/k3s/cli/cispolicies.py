"""What of a cluster's policies somebody should look at (CIS benchmark, section 5): pure functions of its objects.

The benchmark leaves these to a person. Roles that come with every cluster, and what is in kube-system, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k3s.api.object import Object, get

_BOOTSTRAPPING = "kubernetes.io/bootstrapping"
_LEVELS = ("privileged", "baseline", "restricted")
_LABEL = "pod-security.kubernetes.io/enforce"
_OWN = frozenset({"kube-system", "kube-public", "kube-node-lease"})
#: What is read of a cluster: api version and kind.
KINDS = (
    ("v1", "Namespace"),
    ("v1", "Pod"),
    ("v1", "ServiceAccount"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)


@dataclass(frozen=True, slots=True)
class State:
    """The objects of a cluster by kind, and the server's effective settings."""

    objects: Mapping[str, list[Object]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of(self, *kinds: str) -> Iterator[Object]:
        """The objects of these kinds."""
        for kind in kinds:
            yield from self.objects.get(kind, ())

    def pods(self) -> Iterator[Object]:
        """The pods of users."""
        return (pod for pod in self.of("Pod") if pod["metadata"]["namespace"] not in _OWN)


Look = Callable[[State], Iterable[str]]


def _named(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _is_upstreams(obj: Object) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return _BOOTSTRAPPING in labels or obj["metadata"].get("namespace") in _OWN or _named(obj).startswith("system:")


def _roles(state: State) -> Iterator[Object]:
    return (role for role in state.of("ClusterRole", "Role") if not _is_upstreams(role))


def granting(verbs: frozenset[str], resources: frozenset[str]) -> Look:
    """Roles with one of these verbs on one of these resources."""

    def look(state: State) -> Iterable[str]:
        def grants(rule: Object) -> bool:
            of_rule = set(rule.get("resources") or ())
            about = "*" in resources or "*" in of_rule or not resources.isdisjoint(of_rule)
            return about and not (verbs | {"*"}).isdisjoint(rule.get("verbs") or ())

        return (_named(role) for role in _roles(state) if any(grants(rule) for rule in role.get("rules") or ()))

    return look


def wildcards(state: State) -> Iterable[str]:
    """Roles that name all verbs, resources or groups."""
    parts = ("verbs", "resources", "apiGroups", "nonResourceURLs")
    return (
        _named(role)
        for role in _roles(state)
        if any("*" in (rule.get(part) or ()) for rule in role.get("rules") or () for part in parts)
    )


def admins(state: State) -> Iterable[str]:
    """Who has the role cluster-admin besides the administrator that every cluster has."""
    for binding in state.of("ClusterRoleBinding", "RoleBinding"):
        if binding["roleRef"]["name"] == "cluster-admin" and not _is_upstreams(binding):
            subjects = ", ".join(str(subject.get("name")) for subject in binding.get("subjects") or ())
            yield f"{_named(binding)} ({subjects})"


def masters(state: State) -> Iterable[str]:
    """Bindings of the group system:masters besides the one that every cluster has."""
    for binding in state.of("ClusterRoleBinding", "RoleBinding"):
        names = [subject.get("name") for subject in binding.get("subjects") or ()]
        if "system:masters" in names and not _is_upstreams(binding):
            yield _named(binding)


def mounted_tokens(state: State) -> Iterable[str]:
    """Pods that mount a token."""
    return (_named(pod) for pod in state.pods() if _mounts(state, pod))


def default_accounts(state: State) -> Iterable[str]:
    """Pods that mount a token of the account `default`."""
    own = (pod for pod in state.pods() if pod["spec"].get("serviceAccountName") in (None, "", "default"))
    return (_named(pod) for pod in own if _mounts(state, pod))


def _mounts(state: State, pod: Object) -> bool:
    said = pod["spec"].get("automountServiceAccountToken")
    if said is not None:
        return bool(said)
    name = pod["spec"].get("serviceAccountName") or "default"
    wanted = f"{pod['metadata']['namespace']}/{name}"
    account = next((a for a in state.of("ServiceAccount") if _named(a) == wanted), {})
    return account.get("automountServiceAccountToken") is not False


def below(level: str) -> Look:
    """Namespaces of users whose pods need not keep to a level: by label, or by the server's default."""

    def look(state: State) -> Iterable[str]:
        default = get(state.settings.get("pod-security"), "defaults", "enforce") or "privileged"
        for namespace in state.of("Namespace"):
            labels = namespace["metadata"].get("labels") or {}
            found = labels.get(_LABEL, default)
            known = found if found in _LEVELS else "restricted"
            if _named(namespace) not in _OWN and _LEVELS.index(known) < _LEVELS.index(level):
                yield _named(namespace)

    return look


def without_network_policy(state: State) -> Iterable[str]:
    """Namespaces that have pods and no network policy."""
    guarded = {policy["metadata"]["namespace"] for policy in state.of("NetworkPolicy")}
    return sorted({pod["metadata"]["namespace"] for pod in state.pods()} - guarded)


def _containers(pod: Object) -> Iterator[Object]:
    for part in ("initContainers", "containers"):
        yield from pod["spec"].get(part) or ()


def secrets_in_environments(state: State) -> Iterable[str]:
    """Pods that get Secrets in their environment."""

    def has(container: Object) -> bool:
        single = any(get(one, "valueFrom", "secretKeyRef") for one in container.get("env") or ())
        return single or any(one.get("secretRef") for one in container.get("envFrom") or ())

    return (_named(pod) for pod in state.pods() if any(has(container) for container in _containers(pod)))


def without_seccomp(state: State) -> Iterable[str]:
    """Pods with a container that no seccomp profile is named for."""
    return (_named(pod) for pod in state.pods() if not _has_profile(pod))


def _has_profile(pod: Object) -> bool:
    path = ("securityContext", "seccompProfile", "type")
    good = ("RuntimeDefault", "Localhost")
    return get(pod["spec"], *path) in good or all(get(container, *path) in good for container in _containers(pod))


def without_context(state: State) -> Iterable[str]:
    """Pods with a container that has no security context."""
    return (_named(pod) for pod in state.pods() if not all(c.get("securityContext") for c in _containers(pod)))


def in_default(state: State) -> Iterable[str]:
    """Pods in the namespace default."""
    return (_named(pod) for pod in state.pods() if pod["metadata"]["namespace"] == "default")
