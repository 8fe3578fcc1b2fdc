"""The seam between the write path and the admission chain."""

from __future__ import annotations

from collections.abc import Mapping
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
    warnings: list[str] = field(default_factory=list)

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
        )


class Admits(Protocol):
    """The admission chain."""

    def admit(self, request: AdmissionRequest) -> Object:
        """The object with what admission adds. Raises Forbidden, Invalid."""

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden or Invalid for a write that may not happen."""
