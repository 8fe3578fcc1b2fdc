"""Acting as somebody else: what the Impersonate headers ask for, and which rights that takes.

Constrained modes come first: each wants the right to be that user (`impersonate:<mode>`) and the right to do this
request as such a user (`impersonate-on:<mode>:<verb>`). Who has neither may still have the right of old,
`impersonate`, which is for every request.

Source: "User impersonation" in the Kubernetes documentation, KEP-5284 (on by default at 1.36).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from k3s.api import names
from k3s.api.errors import BadRequest, Forbidden
from k3s.apiserver import identity
from k3s.apiserver.authz import Attributes, Decision, refusal
from k3s.apiserver.identity import User

_EXTRA = "impersonate-extra-"
_GROUP = "authentication.k8s.io"
_NODE_KEYS = "authentication.kubernetes.io/associated-node-keys"
# With so many parts to ask about, the right to all of them is asked for first.
_MANY = 4
_MOST_KNOWN = 1024


class Acting(NamedTuple):
    """Whom a request acts as, and the verb of the constrained mode that allowed it, empty for the right of old."""

    user: User
    constraint: str


class _Mode(NamedTuple):
    """`applies(wanted, sender)` says whether a mode is for them; the right of old has no name."""

    name: str
    applies: Callable[[User, User], bool]

    @property
    def verb(self) -> str:
        return f"impersonate:{self.name}" if self.name else "impersonate"


class Impersonation:
    """Decides whether senders may act as others; remembers which mode let a sender through the last time."""

    def __init__(self, authorize: Callable[[Attributes], Decision]) -> None:
        self._authorize = authorize
        self._last: dict[str, _Mode] = {}

    def acting(self, headers: Mapping[str, str], asked: Attributes) -> Acting | None:
        """Whom the request `asked` acts as; None when no header names anybody. Raises Forbidden, BadRequest, Pending.

        Header names are lower case, repeated headers joined by line feeds.
        """
        wanted = wanted_user(headers)
        if wanted is None:
            return None
        sender = asked.user
        last = self._last.get(sender.name)
        first: Forbidden | None = None
        for mode in (*((last,) if last else ()), *(mode for mode in _MODES if mode is not last)):
            if not mode.applies(wanted, sender):
                continue
            try:
                user = self._checked(mode, wanted, asked)
            except Forbidden as error:
                first = first or error
                continue
            if len(self._last) >= _MOST_KNOWN:
                self._last.clear()
            self._last[sender.name] = mode
            return Acting(user, mode.verb if mode.name else "")
        assert first is not None, "the right of old is asked for of everybody"
        raise first

    def _checked(self, mode: _Mode, wanted: User, asked: Attributes) -> User:
        """The user as it is to be, once every right is there."""
        sender = asked.user
        if mode.name == _ASSOCIATED:
            # One right serves the agents of all nodes: neither the node's name nor the pod's may matter to it.
            keys = {_NODE_KEYS: tuple(sorted(sender.extra))}
            sender = User(sender.name, sender.groups, sender.uid, keys)
        if mode.name:
            self._demand(asked._replace(user=sender, verb=f"impersonate-on:{mode.name}:{asked.verb}"))
        self._name(mode, wanted, sender)
        if wanted.uid:
            self._demand(_attributes(sender, mode.verb, _GROUP, "uids", wanted.uid))
        self._groups(mode, wanted.groups, sender)
        self._extra(mode, wanted.extra, sender)
        return User(wanted.name, _groups_of(wanted, node=bool(mode.name)), wanted.uid, wanted.extra)

    def _name(self, mode: _Mode, wanted: User, sender: User) -> None:
        group = _GROUP if mode.name else ""
        account, node = identity.service_account_of(wanted.name), _node(wanted)
        if account is not None:
            about = _attributes(sender, mode.verb, group, "serviceaccounts", account[1])
            self._demand(about._replace(namespace=account[0]))
        elif mode.name and node:
            name = "*" if mode.name == _ASSOCIATED else node
            self._demand(_attributes(sender, mode.verb, group, "nodes", name))
        else:
            self._demand(_attributes(sender, mode.verb, group, "users", wanted.name))

    def _groups(self, mode: _Mode, groups: Sequence[str], sender: User) -> None:
        about = _attributes(sender, mode.verb, _GROUP if mode.name else "", "groups", "")
        if mode.name and "" in groups:
            raise refusal(about, "impersonating the empty string group is not allowed")
        if mode.name and identity.MASTERS in groups:
            about = about._replace(name=identity.MASTERS)
            raise refusal(about, "impersonating the system:masters group is not allowed")
        if mode.name and len(groups) >= _MANY and self._authorize(about._replace(name="*")).allowed:
            return
        for group in groups:
            self._demand(about._replace(name=group))

    def _extra(self, mode: _Mode, extra: Mapping[str, tuple[str, ...]], sender: User) -> None:
        about = _attributes(sender, mode.verb, _GROUP, "userextras", "")
        if mode.name and extra:
            problem = _problem(extra)
            if problem:
                raise refusal(about, problem)
            many = max(len(extra), sum(map(len, extra.values()))) >= _MANY
            if many and self._authorize(about._replace(subresource="*", name="*")).allowed:
                return
        for key, values in extra.items():
            for value in values:
                self._demand(about._replace(subresource=key, name=value))

    def _demand(self, about: Attributes) -> None:
        decision = self._authorize(about)
        if not decision.allowed:
            raise refusal(about, ": ".join(filter(None, (decision.error, decision.reason))))


def wanted_user(headers: Mapping[str, str]) -> User | None:
    """The user that the headers name, with nothing added; None without one. Raises BadRequest for parts of nobody."""
    name, uid = (headers.get(f"impersonate-{part}", "").partition("\n")[0] for part in ("user", "uid"))
    groups = tuple(headers["impersonate-group"].split("\n")) if "impersonate-group" in headers else ()
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.startswith(_EXTRA):
            key = unquote(header.removeprefix(_EXTRA))
            extra[key] = (*extra.get(key, ()), *value.split("\n"))
    if name:
        return User(name, groups, uid, extra)
    if groups or uid or extra:
        raise BadRequest(f"requested {_go_user(groups, uid, extra)} without impersonating a user name")
    return None


# -- modes

_ASSOCIATED = "associated-node"


def _node(user: User) -> str:
    """The node that a user name stands for; empty for other users."""
    name = user.name.removeprefix(identity.NODE_PREFIX)
    return name if name != user.name and not names.dns_subdomain(name) else ""


def _only_named(wanted: User) -> bool:
    return not (wanted.uid or wanted.groups or wanted.extra)


def _is_beside(wanted: User, sender: User) -> bool:
    """Whether the sender is the service account of a pod on the node that it wants to be."""
    node = _node(wanted)
    beside = sender.extra.get(identity.NODE_NAME, ()) == (node,)
    return bool(node) and _only_named(wanted) and beside and identity.service_account_of(sender.name) is not None


def _is_account(wanted: User, sender: User) -> bool:
    return _only_named(wanted) and identity.service_account_of(wanted.name) is not None


def _is_other(wanted: User, sender: User) -> bool:
    return not _node(wanted) and identity.service_account_of(wanted.name) is None


_MODES = (
    _Mode(_ASSOCIATED, _is_beside),
    _Mode("arbitrary-node", lambda wanted, sender: bool(_node(wanted)) and _only_named(wanted)),
    _Mode("serviceaccount", _is_account),
    _Mode("user-info", _is_other),
    _Mode("", lambda wanted, sender: True),
)


def _attributes(sender: User, verb: str, group: str, resource: str, name: str) -> Attributes:
    return Attributes(sender, verb, group, "v1", resource, name=name)


def _groups_of(wanted: User, *, node: bool) -> tuple[str, ...]:
    """The groups of the user: those of service accounts and (constrained) nodes are known, unless others are given."""
    groups, account = wanted.groups, identity.service_account_of(wanted.name)
    if node and _node(wanted):
        groups = (identity.NODES,)
    if account is not None and not groups:
        groups = identity.service_account_groups(account[0])
    if wanted.name == identity.ANONYMOUS:
        return groups if identity.UNAUTHENTICATED in groups else (*groups, identity.UNAUTHENTICATED)
    if identity.UNAUTHENTICATED in groups:
        return groups
    return identity.with_authenticated(groups)


def _problem(extra: Mapping[str, tuple[str, ...]]) -> str:
    """What the constrained modes do not take of extra keys and values; the empty string for nothing."""
    for key, values in extra.items():
        if not key:
            return "impersonating the empty string key in extra is not allowed"
        domain, slash, path = key.partition("/")
        if not slash or not path or names.dns_subdomain(domain):
            why = f'extra.key: Invalid value: "{key}": must be a domain-prefixed path (such as "acme.io/foo")'
            return f"impersonating an invalid key in extra is not allowed: {why}"
        if key != key.lower():
            return f'impersonating a non-lowercase key in extra is not allowed: "{key}"'
        if "" in values:
            return "impersonating the empty string value in extra is not allowed"
    return ""


def _go_user(groups: Sequence[str], uid: str, extra: Mapping[str, tuple[str, ...]]) -> str:
    """The requested identity as upstream's message prints it."""
    shown = _go_list(groups) if groups else "[]string(nil)"
    pairs = ", ".join(f'"{key}":{_go_list(values)}' for key, values in sorted(extra.items()))
    more = f"{{{pairs}}}" if extra else "(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:"{uid}", Groups:{shown}, Extra:map[string][]string{more}}}'


def _go_list(values: Sequence[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"
