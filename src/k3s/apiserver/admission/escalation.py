"""Nobody grants what he does not have: writes of roles and bindings are checked against the writer's own rules.

Source: "Privilege escalation prevention and bootstrapping" on the RBAC page of the Kubernetes documentation.
"""

from __future__ import annotations

from k3s.api import rbac
from k3s.api.errors import not_found
from k3s.api.object import Object
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizer
from k3s.apiserver.identity import MASTERS
from k3s.apiserver.rbac import escalation


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
        old = request.old or {}
        fields = ("rules", "aggregationRule")
        if request.operation == UPDATE and all((role.get(f) or None) == (old.get(f) or None) for f in fields):
            return
        if self._may(request, "escalate", request.kind.plural, role["metadata"].get("name", "")):
            return
        if role.get("aggregationRule"):
            self._check(request, rbac.EVERYTHING)
        self._check(request, role.get("rules") or [])

    def _binding(self, request: AdmissionRequest, binding: Object) -> None:
        old = request.old or {}
        unchanged = all((binding.get(f) or None) == (old.get(f) or None) for f in ("subjects", "roleRef"))
        if request.operation == UPDATE and unchanged:
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
        asked = Attributes(
            request.user, verb, rbac.GROUP, request.kind.version, plural, namespace=request.namespace, name=name
        )
        return self._authorizer.authorize(asked).allowed

    def _check(self, request: AdmissionRequest, wanted: list[Object]) -> None:
        held, unresolved = self._authorizer.rbac.rules_for(request.user, request.namespace)
        why = escalation(request.user, held, wanted)
        if why and unresolved:
            why += f"; resolution errors: {rbac.quoted(unresolved)}"
        if why:
            raise refuse(request, why)
