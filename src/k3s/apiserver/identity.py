"""Who a request comes from: users and groups, with the well-known ones of the API.

Source: the "Authenticating" page of the Kubernetes documentation for system names; k3s' token users for `k3s:*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k3s.api.object import Object

# Groups
MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
NODES = "system:nodes"
MONITORING = "system:monitoring"
SERVICE_ACCOUNTS = "system:serviceaccounts"
SERVICE_ACCOUNTS_OF = "system:serviceaccounts:"
BOOTSTRAPPERS = "system:bootstrappers"
K3S_SERVER = "k3s:server"
K3S_AGENT = "k3s:agent"

# Users
ANONYMOUS = "system:anonymous"
APISERVER = "system:apiserver"
ADMIN = "system:admin"
CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
K3S_CONTROLLER = "system:k3s-controller"
KUBELET_CLIENT = "kube-apiserver"
NODE_PREFIX = "system:node:"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
BOOTSTRAP_PREFIX = "system:bootstrap:"

# Keys of `User.extra`
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated (or anonymous) identity. `extra` must not be changed; it does not count for equality."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


def authenticated(name: str, *groups: str) -> User:
    """The user `name` in `groups` and system:authenticated."""
    return User(name, with_authenticated(groups, name))


def with_authenticated(groups: tuple[str, ...], name: str = "") -> tuple[str, ...]:
    """`groups` with system:authenticated at the end, once; but not for the anonymous user, or whoever is said not to be
    authenticated: a proxy or a webhook may tell of such (upstream's group adder)."""
    if name == ANONYMOUS or AUTHENTICATED in groups or UNAUTHENTICATED in groups:
        return groups
    return (*groups, AUTHENTICATED)


def shown(user: User) -> Object:
    """A user as the UserInfo type shows one; empty parts are left out."""
    found: Object = {"username": user.name} if user.name else {}
    if user.uid:
        found["uid"] = user.uid
    if user.groups:
        found["groups"] = list(user.groups)
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra.items()}
    return found


def anonymous() -> User:
    """The user of a request without credentials."""
    return User(ANONYMOUS, (UNAUTHENTICATED,))


def service_account_name(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"


def service_account_of(user_name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user name stands for; None for other users."""
    if not user_name.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, _, name = user_name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
    return (namespace, name) if namespace and name and ":" not in name else None


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """The groups of every service account of a namespace."""
    return (SERVICE_ACCOUNTS, SERVICE_ACCOUNTS_OF + namespace, AUTHENTICATED)


def node_of(user: User) -> str:
    """The node that a kubelet speaks for: `system:node:<name>` in group system:nodes; otherwise the empty string."""
    if user.name.startswith(NODE_PREFIX) and NODES in user.groups:
        return user.name.removeprefix(NODE_PREFIX)
    return ""
