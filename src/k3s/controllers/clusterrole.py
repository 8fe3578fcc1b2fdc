"""Fills ClusterRoles that are made of others (aggregationRule): admin, edit and view among them."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import rbac
from k3s.api.object import Object
from k3s.controllers.actions import Decision, Update
from k3s.controllers.known import CLUSTER_ROLE
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

# All roles are decided together: each depends on every other one.
_KEY = "all"


def decide(key: str, world: World, now: float) -> Decision:
    """Decides all roles."""
    return Decision([Update(CLUSTER_ROLE, role) for role in rbac.aggregate(world.list(CLUSTER_ROLE))])


def _all(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    return (_KEY,)


SPECS = (
    ControllerSpec(
        name="clusterrole-aggregation-controller",
        decide=decide,
        watches=(Watch(CLUSTER_ROLE, _all),),
        account="clusterrole-aggregation-controller",
    ),
)
