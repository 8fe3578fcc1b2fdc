"""Nobody grants what he does not have: writes of roles and bindings are checked against the writer's own rules.

Source: "Privilege escalation prevention and bootstrapping" on the RBAC page of the Kubernetes documentation.
"""

from __future__ import annotations

from k3s.api import rbac
from k3s.api.errors import not_found
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizer, aggregate
from k3s.apiserver.identity import MASTERS
from k3s.apiserver.rbac import escalation

# What garbage collection changes, and what every write does.
_COLLECTED = frozenset({"ownerReferences", "finalizers", "managedFields", "resourceVersion"})


class Escalation(Plugin):
    """The checks for Role, ClusterRole, RoleBinding and ClusterRoleBinding; the verbs escalate and bind lift them."""

    name = "RBACEscalation"
    resources = frozenset(
        f"{plural}.{rbac.GROUP}" for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")
    )
    admits = frozenset({CREATE, UPDATE})

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def admit(self, request: AdmissionRequest) -> Object:
        """Changes nothing; checked here because a refusal comes before what validation would say."""
        assert request.obj is not None
        if MASTERS in request.user.groups:
            return request.obj
        if request.kind.plural.endswith("bindings"):
            self._binding(request, request.obj)
        else:
            self._role(request, request.obj)
        return request.obj

    def _role(self, request: AdmissionRequest, role: Object) -> None:
        # On creation nobody has the right for one name only.
        name = "" if request.operation == CREATE else role["metadata"].get("name", "")
        if _only_for_the_collector(request) or self._may(request, "escalate", request.kind.plural, name):
            return
        self._check(request, role.get("rules") or [])
        # What may gather anything, and undo what others tighten, takes every right.
        gathers = any((each or {}).get("aggregationRule") for each in (role, request.old))
        if gathers and self._lacks(request, rbac.EVERYTHING):
            raise refuse(request, "must have cluster-admin privileges to use the aggregationRule")

    def _binding(self, request: AdmissionRequest, binding: Object) -> None:
        if _only_for_the_collector(request):
            return
        ref = binding.get("roleRef") or {}
        plural = "clusterroles" if ref.get("kind") == "ClusterRole" else "roles"
        if self._may(request, "bind", plural, ref.get("name", "")):
            return
        rules = self._authorizer.rbac.role_rules(ref, request.namespace)
        if rules is None:
            raise not_found(rbac.GROUP, request.kind.plural, ref.get("name", ""))
        self._check(request, rules)

    def _may(self, request: AdmissionRequest, verb: str, plural: str, name: str) -> bool:
        asked = Attributes(request.user, verb, rbac.GROUP, "*", plural, namespace=request.namespace, name=name)
        return self._authorizer.authorize(asked).allowed

    def _lacks(self, request: AdmissionRequest, wanted: list[Object]) -> str:
        """Why the user may not hand out these rules; the empty string when it may."""
        held, unresolved = self._authorizer.rbac.rules_for(request.user, request.namespace)
        why = escalation(request.user, held, wanted)
        return f"{why}; resolution errors: [{aggregate(unresolved)}]" if why and unresolved else why

    def _check(self, request: AdmissionRequest, wanted: list[Object]) -> None:
        why = self._lacks(request, wanted)
        if why:
            raise refuse(request, why)


def _only_for_the_collector(request: AdmissionRequest) -> bool:
    """Whether an update changes nothing but what garbage collection needs. Labels count: roles are gathered by them."""

    def rest(obj: Object) -> Object:
        meta = {key: value for key, value in obj["metadata"].items() if key not in _COLLECTED}
        return {**obj, "metadata": meta}

    return bool(request.old and request.obj) and rest(request.old or {}) == rest(request.obj or {})
