"""Role-based access: an index from subjects to the rules of their bindings, rebuilt when a role or binding changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from k3s.api import rbac
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.authz import Attributes, Decision, aggregate
from k3s.apiserver.identity import User, service_account_of

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

ROLE = builtin("rbac.authorization.k8s.io/v1", "Role")
ROLE_BINDING = builtin("rbac.authorization.k8s.io/v1", "RoleBinding")
CLUSTER_ROLE = builtin("rbac.authorization.k8s.io/v1", "ClusterRole")
CLUSTER_ROLE_BINDING = builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")

_TABLES_LIMIT = 4096

SubjectKey = tuple[str, str, str]  # kind, namespace of a service account, name


class Binding(NamedTuple):
    """One subject's binding: the rules it gives and how a review explains it; `error` when its role is missing."""

    rules: Sequence[Object]
    reason: str
    error: str


class Grants:
    """The rules of one user in one place (the cluster or a namespace), by resource and in order of binding."""

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self.bindings = bindings
        self._by_resource: dict[str, list[tuple[Object, str]]] = {}
        self._paths: list[tuple[Object, str]] = []
        self._named: set[str] = set()
        for binding in bindings:
            for rule in binding.rules:
                for resource in rule.get("resources") or ():
                    self._by_resource.setdefault(resource, []).append((rule, binding.reason))
                    if rule.get("resourceNames"):
                        self._named.add(resource)
                if rule.get("nonResourceURLs"):
                    self._paths.append((rule, binding.reason))

    def reason(self, asked: Attributes) -> str:
        """Why the request is allowed; the empty string when no rule allows it."""
        if not asked.is_resource:
            return next((why for rule, why in self._paths if rbac.allows_path(rule, asked.verb, asked.path)), "")
        resource = _with_subresource(asked)
        for key in _ways(asked):
            for rule, why in self._by_resource.get(key, ()):
                if rbac.allows_resource(rule, asked.verb, asked.group, resource, asked.name):
                    return why
        return ""

    def by_name(self, asked: Attributes) -> bool:
        """Whether a rule about this resource is for objects of some names only."""
        return not self._named.isdisjoint(_ways(asked))


def _with_subresource(asked: Attributes) -> str:
    return f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource


def _ways(asked: Attributes) -> tuple[str, ...]:
    """The ways in which a rule can be about the resource."""
    return _with_subresource(asked), rbac.ALL, f"*/{asked.subresource}" if asked.subresource else ""


class Rbac:
    """Answers from the roles and bindings that the reader shows; the index follows their versions."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._version: tuple[int, int, int, int] | None = None
        self._cluster: dict[SubjectKey, list[tuple[str, Binding]]] = {}
        self._spaces: dict[str, dict[SubjectKey, list[tuple[str, Binding]]]] = {}
        self._tables: dict[tuple[str, tuple[str, ...], str], Grants] = {}

    def version(self) -> tuple[int, int, int, int]:
        """Changes whenever a role or binding does."""
        version = self._reader.version
        return version(CLUSTER_ROLE), version(CLUSTER_ROLE_BINDING), version(ROLE), version(ROLE_BINDING)

    def authorize(self, asked: Attributes) -> Decision:
        """Allowed when a rule of one of the user's bindings allows it; a binding without its role is told as reason."""
        errors: list[str] = []
        for grants in self._grants(asked.user, asked.namespace if asked.is_resource else ""):
            reason = grants.reason(asked)
            if reason:
                return Decision(True, reason)
            errors.extend(binding.error for binding in grants.bindings if binding.error)
        return Decision(False, f"RBAC: {aggregate(errors)}" if errors else "")

    def by_name(self, asked: Attributes) -> bool:
        """Whether the answer may differ between objects of the same resource."""
        return any(g.by_name(asked) for g in self._grants(asked.user, asked.namespace if asked.is_resource else ""))

    def rules_for(self, user: User, namespace: str) -> tuple[list[Object], list[str]]:
        """Every rule that the user has in a namespace, and what could not be resolved."""
        bindings = [binding for grants in self._grants(user, namespace) for binding in grants.bindings]
        rules = [rule for binding in bindings for rule in binding.rules]
        return rules, [binding.error for binding in bindings if binding.error]

    def role_rules(self, ref: Object, namespace: str) -> list[Object] | None:
        """The rules of the role that a roleRef names; None when there is no such role."""
        role = self._role(ref, namespace)
        return None if role is None else role.get("rules") or []

    def _grants(self, user: User, namespace: str) -> Iterator[Grants]:
        version = self.version()
        if version != self._version:
            self._build()
            self._version = version
        yield self._table(user, "")
        if namespace and namespace in self._spaces:
            yield self._table(user, namespace)

    def _table(self, user: User, namespace: str) -> Grants:
        key = (user.name, user.groups, namespace)
        grants = self._tables.get(key)
        if grants is None:
            bound = self._spaces[namespace] if namespace else self._cluster
            found: dict[str, Binding] = {}
            for subject in subject_keys(user):
                for name, binding in bound.get(subject, ()):
                    found.setdefault(name, binding)
            if len(self._tables) >= _TABLES_LIMIT:
                self._tables.clear()
            grants = self._tables[key] = Grants([found[name] for name in sorted(found)])
        return grants

    def _build(self) -> None:
        self._tables.clear()
        self._cluster = {}
        self._spaces = {}
        for binding in self._reader.list(CLUSTER_ROLE_BINDING):
            self._add(self._cluster, binding, "ClusterRoleBinding", "")
        for binding in self._reader.list(ROLE_BINDING):
            namespace = binding["metadata"]["namespace"]
            self._add(self._spaces.setdefault(namespace, {}), binding, "RoleBinding", namespace)

    def _add(
        self, index: dict[SubjectKey, list[tuple[str, Binding]]], binding: Object, kind: str, namespace: str
    ) -> None:
        ref, name = binding.get("roleRef") or {}, binding["metadata"]["name"]
        role = self._role(ref, namespace)
        rules: Sequence[Object] = (role.get("rules") or ()) if role else ()
        error = "" if role else f'{str(ref.get("kind", "")).lower()}.{rbac.GROUP} "{ref.get("name", "")}" not found'
        shown = f"{name}/{namespace}" if namespace else name
        for subject in binding.get("subjects") or ():
            key = subject_key(subject, namespace)
            of = f'{key[0]} "{key[2]}{"/" + key[1] if key[1] else ""}"'
            reason = f'RBAC: allowed by {kind} "{shown}" of {ref.get("kind")} "{ref.get("name")}" to {of}'
            index.setdefault(key, []).append((name, Binding(rules, reason, error)))

    def _role(self, ref: Object, namespace: str) -> Object | None:
        name = ref.get("name", "")
        if ref.get("kind") == "ClusterRole":
            return self._reader.get(CLUSTER_ROLE, "", name)
        return self._reader.get(ROLE, namespace, name) if namespace else None


def subject_key(subject: Object, namespace: str) -> SubjectKey:
    """The key of a binding's subject; a service account without a namespace is of the binding's."""
    kind = subject.get("kind", "")
    space = (subject.get("namespace") or namespace) if kind == "ServiceAccount" else ""
    return kind, space, subject.get("name", "")


def subject_keys(user: User) -> Iterator[SubjectKey]:
    """The subjects that a user is: by name, by each group, and as the service account."""
    yield "User", "", user.name
    for group in user.groups:
        yield "Group", "", group
    account = service_account_of(user.name)
    if account is not None:
        yield "ServiceAccount", *account


def escalation(user: User, held: Sequence[Object], wanted: Sequence[Object]) -> str:
    """Why `user` may not hand out `wanted` while having `held`; the empty string when it may."""
    lacking = rbac.missing(held, wanted)
    if not lacking:
        return ""
    listed = "\n".join(sorted({rbac.describe(rule) for rule in rbac.compact(lacking)}))
    return (
        f'user "{user.name}" (groups={rbac.quoted(user.groups)}) is attempting to grant RBAC permissions '
        f"not currently held:\n{listed}"
    )
