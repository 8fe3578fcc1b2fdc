"""Which writes a webhook or a policy is about: rules, selectors, and other versions of the same kind.

Source: "Matching requests" in the Kubernetes documentation of dynamic admission control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from k3s.api.errors import not_found
from k3s.api.kinds import Kind, Registry, builtin
from k3s.api.object import Object
from k3s.api.selectors import LabelSelector, from_object
from k3s.apiserver.admits import AdmissionRequest

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

NAMESPACE = builtin("v1", "Namespace")
GROUP = "admissionregistration.k8s.io"
_POLICIES = frozenset(
    f"{side}{what}.{GROUP}"
    for side in ("mutating", "validating")
    for what in ("admissionpolicies", "admissionpolicybindings")
)
# What would lock everybody out if it could be refused by what it configures.
NO_WEBHOOKS = _POLICIES | {f"{side}webhookconfigurations.{GROUP}" for side in ("mutating", "validating")}
# For policies also the questions who somebody is and what he may do, without which nothing works.
NO_POLICIES = _POLICIES | {
    *(f"{what}reviews.authentication.k8s.io" for what in ("selfsubject", "token")),
    *(f"{what}subjectaccessreviews.authorization.k8s.io" for what in ("local", "self", "")),
    "selfsubjectrulesreviews.authorization.k8s.io",
}
# A part of a write that was told of already: the pod that a Binding was posted for.
_WITHIN = ("UPDATE", "binding")
T = TypeVar("T")


def covers(rule: Object, kind: Kind, operation: str, subresource: str) -> bool:
    """Whether a rule names a kind's resource, in this version and with this operation."""
    return (
        _among(rule.get("operations"), operation)
        and _among(rule.get("apiGroups"), kind.group)
        and _among(rule.get("apiVersions"), kind.version)
        and any(_names(pattern, kind.plural, subresource) for pattern in rule.get("resources") or ())
        and _in_scope(rule.get("scope") or "*", kind)
    )


def _among(values: Sequence[str] | None, wanted: str) -> bool:
    return bool(values) and ("*" in values or wanted in values)  # type: ignore[operator]


def _names(pattern: str, plural: str, subresource: str) -> bool:
    resource, _, part = pattern.partition("/")
    return resource in ("*", plural) and part in ("*", subresource)


def _in_scope(scope: str, kind: Kind) -> bool:
    return scope == "*" or kind.namespaced == (scope == "Namespaced")


def covering(
    rules: Iterable[Object], registry: Registry, kind: Kind, operation: str, subresource: str, policy: str
) -> Kind | None:
    """The version of `kind` that a rule names: its own first, another one if the match policy is Equivalent."""
    found = list(rules)
    if any(covers(rule, kind, operation, subresource) for rule in found):
        return kind
    if policy == "Exact" or not kind.storage_prefix:
        return None
    others = [
        other
        for other in registry.all()
        if other.storage_prefix == kind.storage_prefix
        and other is not kind
        and (not subresource or subresource in other.subresources)
    ]
    for rule in found:
        for other in others:
            if covers(rule, other, operation, subresource):
                return other
    return None


@dataclass(frozen=True, slots=True)
class Selectors:
    """A namespaceSelector and an objectSelector."""

    namespace: LabelSelector
    object: LabelSelector

    @classmethod
    def of(cls, holder: Mapping[str, Any]) -> Selectors:
        """Those of a webhook, or of a policy's match resources; absent ones take everything."""
        return cls(from_object(holder.get("namespaceSelector") or {}), from_object(holder.get("objectSelector") or {}))

    def match(self, request: AdmissionRequest, reader: Reader) -> bool:
        """Whether a write is selected. Raises NotFound for a namespace that is not there."""
        wanted = self.namespace
        concerned = not wanted.is_everything and (request.namespace or request.kind.qualified == "namespaces")
        if concerned and not wanted.matches(_namespace_labels(request, reader)):
            return False
        chosen = self.object
        both = [obj["metadata"] for obj in (request.obj, request.old) if obj and "metadata" in obj]
        return chosen.is_everything or any(chosen.matches(meta.get("labels")) for meta in both)


def _namespace_labels(request: AdmissionRequest, reader: Reader) -> Mapping[str, str] | None:
    """The labels of a write's namespace, as they will be when it is the namespace that is written."""
    if request.kind.qualified == "namespaces" and not request.subresource:
        own: Mapping[str, str] | None = ((request.obj or request.old or {}).get("metadata") or {}).get("labels")
        return own
    found = reader.get(NAMESPACE, "", request.namespace)
    if found is None:
        raise not_found("", "namespaces", request.namespace)
    labels: Mapping[str, str] | None = found["metadata"].get("labels")
    return labels


class Index(Generic[T]):
    """Compiled configurations, made again when one of their kinds changed; and who among them is about a write.

    Without an object of the first kind there is no configuration. `compiled` makes them all, `about` tells the version
    of a kind in which one of them wants to see a write, or None; of the `exempt` kinds nobody is told.
    """

    def __init__(
        self,
        reader: Reader,
        kinds: Sequence[Kind],
        compiled: Callable[[], list[T]],
        about: Callable[[T, Kind, str, str], Kind | None],
        exempt: frozenset[str],
    ) -> None:
        self._version = reader.version
        self._first, self._others = kinds[0], tuple(kinds[1:])
        self._compiled = compiled
        self._about = about
        self._exempt = exempt
        self._seen: list[int] = [0 for _ in kinds]
        self._all: list[T] = []
        self._found: dict[tuple[Kind, str, str], list[tuple[T, Kind]]] = {}

    def all(self) -> list[T]:
        """Every compiled configuration, as things are now. Where there is none, this costs one look-up."""
        seen = self._seen
        if self._version(self._first) != seen[0] or (self._all and self._versions() != seen):
            self._seen = self._versions()
            self._all = self._compiled()
            self._found = {}
        return self._all

    def _versions(self) -> list[int]:
        return [self._version(kind) for kind in (self._first, *self._others)]

    def about(self, kind: Kind, operation: str, subresource: str) -> list[tuple[T, Kind]]:
        """Those that are about such a write, each with the version of the kind that it wants to see."""
        if not self.all() or kind.qualified in self._exempt or (operation, subresource) == _WITHIN:
            return []
        key = (kind, operation, subresource)
        found = self._found.get(key)
        if found is None:
            made = [(one, self._about(one, kind, operation, subresource)) for one in self._all]
            found = self._found[key] = [(one, seen) for one, seen in made if seen is not None]
        return found
