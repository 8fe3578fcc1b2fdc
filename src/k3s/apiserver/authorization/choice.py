"""The authorizer that a configuration asks for; the parts of the others are not loaded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.authorization.settings import DEFAULT, AuthorizationSettings
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.cache import Cache
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.presence import name_of
from k3s.apiserver.rbac import Rbac
from k3s.base.clock import Clock
from k3s.base.metrics import Registry

#: A service: see `run.supervisor`.
Run = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


def authorizer(
    cache: Cache, given: AuthorizationSettings, clock: Clock, metrics: Registry, host: str
) -> tuple[Authorizer, Run | None]:
    """The authorizer, and the service that it needs. Raises OSError, ValueError for the kubeconfig of a webhook."""
    rbac, node = Rbac(cache), NodeAuthorizer(cache, rbac_bootstrap.node_rules())
    if given == DEFAULT:
        return Authorizer(rbac, node), None
    from k3s.apiserver.authorization.meters import Meters
    from k3s.apiserver.authorization.modes import Modes

    modes = Modes(rbac, node, given, clock, Meters(metrics, name_of(host)))
    return modes, modes.run
