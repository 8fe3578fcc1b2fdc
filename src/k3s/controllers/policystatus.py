"""Says in the status of each validating admission policy what does not fit the kinds that it names."""

from __future__ import annotations

from typing import Any

from k3s.api.kinds import Registry, builtin
from k3s.controllers.actions import NOTHING, Decision, Update
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World

POLICY = builtin("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")


def specs(registry: Registry) -> tuple[ControllerSpec, ...]:
    """The controller of a server that serves the kinds of `registry`."""

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides a policy, once for each generation of it."""
        policy = world.get(POLICY, key)
        if policy is None:
            return NOTHING
        generation, status = policy["metadata"].get("generation", 0), policy.get("status") or {}
        if status.get("observedGeneration", 0) >= generation:
            return NOTHING
        from k3s.api.cel import typecheck  # only who has policies pays for the engine

        found = typecheck.warnings(policy, registry)
        checked: dict[str, Any] = {"expressionWarnings": found} if found else {}
        told = {**status, "observedGeneration": generation, "typeChecking": checked}
        return Decision([Update(POLICY, {**policy, "status": told}, "status")])

    return (
        ControllerSpec(
            name="validatingadmissionpolicy-status-controller",
            decide=decide,
            kind=POLICY,
            account="validatingadmissionpolicy-status-controller",
        ),
    )
