"""May this user do that? The question, the answer, and the authorizer that asks RBAC and the node rules in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from k3s.api.errors import Forbidden, forbidden
from k3s.api.object import Object
from k3s.apiserver.identity import MASTERS, User, node_of

if TYPE_CHECKING:
    from k3s.apiserver.nodeauthz import NodeAuthorizer
    from k3s.apiserver.rbac import Rbac
    from k3s.apiserver.request import Target

_MEMO_LIMIT = 8192


class Decision(NamedTuple):
    """Allowed or not; `reason` is what an audit log or a review shows.

    `denied` is a refusal that no further authorizer may overrule; `error` says what kept one from answering.
    """

    allowed: bool
    reason: str = ""
    denied: bool = False
    error: str = ""


class Rules(NamedTuple):
    """A user's rules, what could not be resolved of them, and whether there may be more."""

    rules: list[Object]
    errors: list[str]
    incomplete: bool = False


_MASTERS = Decision(True)
#: Why the rules of a node are never complete.
NO_NODE_RULES = "node authorizer does not support user rule resolution"


class Attributes(NamedTuple):
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


def attributes_of(user: User, target: Target) -> Attributes:
    """What a request asks of the authorizer."""
    info, query = target.info, target.query
    return Attributes(
        user,
        info.verb,
        info.group,
        info.version,
        info.resource,
        info.subresource,
        info.namespace,
        info.name,
        info.path,
        info.is_resource,
        query.get("fieldSelector", ""),
        query.get("labelSelector", ""),
    )


class Authorizes(Protocol):
    """What can answer: the whole Authorizer, or one part of it."""

    def authorize(self, attributes: Attributes) -> Decision:
        """Whether the request may go on; synchronous and free of effects. Raises Pending where others are asked."""


class Authorizer:
    """system:masters, then each authorizer in turn; remembers answers until a role or binding changes.

    Answers for nodes are not remembered: they follow the pods, which change all the time.
    """

    #: Whether answers may have to be waited for: `authorize` then raises Pending.
    asks: ClassVar[bool] = False

    def __init__(self, rbac: Rbac, node: NodeAuthorizer | None = None) -> None:
        self.rbac = rbac
        self._node = node
        self._memo: dict[tuple[object, ...], Decision] = {}
        # Whether the answer depends on the object's name: mostly not, and then one answer serves all objects.
        self._by_name: dict[tuple[object, ...], bool] = {}
        self._version: object = None

    def authorize(self, attributes: Attributes) -> Decision:
        """Whether the request may go on, and why or why not."""
        user = attributes.user
        if MASTERS in user.groups:
            return _MASTERS
        version = self.rbac.version()
        if version != self._version:
            self._memo.clear()
            self._by_name.clear()
            self._version = version
        if self._node is not None and node_of(user):
            return self._of_node(self._node, attributes)
        key: tuple[object, ...] = (
            user.name,
            user.groups,
            attributes.verb,
            attributes.group,
            attributes.resource,
            attributes.subresource,
            attributes.namespace,
            attributes.path if not attributes.is_resource else None,
        )
        by_name = self._by_name.get(key)
        if by_name is None:
            by_name = self._by_name[key] = self.rbac.by_name(attributes)
        if by_name:
            key = (*key, attributes.name)
        decision = self._memo.get(key)
        if decision is None:
            decision = self.rbac.authorize(attributes)
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
                self._by_name.clear()
            self._memo[key] = decision
        return decision

    def _of_node(self, node: NodeAuthorizer, attributes: Attributes) -> Decision:
        first = node.authorize(attributes)
        if first.allowed:
            return first
        second = self.rbac.authorize(attributes)
        if second.allowed:
            return second
        return Decision(False, "\n".join(reason for reason in (first.reason, second.reason) if reason))

    def demand(self, attributes: Attributes) -> None:
        """Raises Forbidden, worded as upstream, unless the request is allowed."""
        decision = self.authorize(attributes)
        if not decision.allowed:
            raise refusal(attributes, decision.reason)

    def rules_for(self, user: User, namespace: str) -> Rules:
        """The user's rules in a namespace."""
        rules, errors = self.rbac.rules_for(user, namespace)
        if self._node is not None and node_of(user):
            return Rules(rules, [NO_NODE_RULES, *errors], True)
        return Rules(rules, errors)


def refusal(asked: Attributes, reason: str = "") -> Forbidden:
    """The Forbidden error of a request that was not allowed."""
    why = f": {reason}" if reason else ""
    if not asked.is_resource:
        return Forbidden(f'forbidden: User "{asked.user.name}" cannot {asked.verb} path "{asked.path}"{why}', {})
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    place = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    text = (
        f'User "{asked.user.name}" cannot {asked.verb} resource "{resource}" in API group "{asked.group}" {place}{why}'
    )
    return forbidden(asked.group, asked.resource, asked.name, text)


def aggregate(errors: Sequence[str]) -> str:
    """Several errors as one text: `a`, or `[a, b]`."""
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
