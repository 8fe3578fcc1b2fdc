"""May this user do that? The two questions' types; the answers come from RBAC and the node rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from k3s.apiserver.identity import User


class Decision(NamedTuple):
    """Allowed or not; `reason` is what an audit log or a review shows."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked: a verb on a resource, or on a path when `is_resource` is false."""

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    is_resource: bool = True
    fields: str = ""
    labels: str = ""


class Authorizes(Protocol):
    """What can answer: the whole Authorizer, or one part of it."""

    def authorize(self, attributes: Attributes) -> Decision:
        """Whether the request may go on; synchronous and free of effects."""
