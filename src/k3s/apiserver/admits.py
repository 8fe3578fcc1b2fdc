"""The seam between the write path and the admission chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.identity import User


@dataclass(slots=True)
class AdmissionRequest:
    """One write as admission sees it: CREATE, UPDATE, DELETE or CONNECT; `old` or `obj` is None where there is none."""

    operation: str
    kind: Kind
    subresource: str
    namespace: str
    name: str
    old: Object | None
    obj: Object | None
    user: User
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    #: What the answer's headers shall say; the write's own list.
    warnings: list[str] = field(default_factory=list)

    #: What the audit log shall say about this write, by `<plugin or policy>/<key>`.
    audit: dict[str, str] = field(default_factory=dict)
    #: What plugins have to remember between the rounds of one write (see `chain.Chain.admit`).
    state: dict[str, Any] = field(default_factory=dict)

    def with_object(self, obj: Object) -> AdmissionRequest:
        """The same request about what the object became."""
        return AdmissionRequest(
            self.operation,
            self.kind,
            self.subresource,
            self.namespace,
            self.name,
            self.old,
            obj,
            self.user,
            self.dry_run,
            self.options,
            self.warnings,
            self.audit,
            self.state,
        )


#: The one write path: kind, namespace, name, and what the object becomes (see `crud.Crud.commit`).
Commit = Callable[[Kind, str, str, Callable[["Object | None"], "Object | None"]], Awaitable[Any]]


class Admits(Protocol):
    """The admission chain."""

    #: Whether namespaces are made for who creates something in one that is absent (NamespaceAutoProvision).
    provisions: bool

    def attach(self, commit: Commit) -> None:
        """Hands over the write path, for what admission itself has to record."""

    async def admit(self, request: AdmissionRequest) -> Object:
        """The object with what admission adds. Raises Forbidden, Invalid."""

    async def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden or Invalid for a write that may not happen."""
