"""ValidatingAdmissionPolicy: expressions refuse writes, warn of them, or note them for the audit log."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from k3s.api.kinds import Registry, builtin
from k3s.api.object import Object
from k3s.apiserver.admission import policies
from k3s.apiserver.admission.chain import CONNECT, CREATE, DELETE, UPDATE, Plugin
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes
from k3s.apiserver.conversion import Conversions

if TYPE_CHECKING:
    from k3s.apiserver.admission.validations import Validator
    from k3s.apiserver.cache import Reader

POLICY = builtin("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")
BINDING = builtin("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")


def _compiled(policy: Object) -> Validator:
    from k3s.apiserver.admission import validations

    return validations.Validator.of(policy)


class ValidatingPolicy(Plugin):
    """Evaluates every policy that is bound to a write."""

    name = "ValidatingAdmissionPolicy"
    resources = frozenset({"*"})
    validates = frozenset({CREATE, UPDATE, DELETE, CONNECT})

    def __init__(self, reader: Reader, registry: Registry, conversions: Conversions, authorizer: Authorizes) -> None:
        self._policies = policies.Policies((POLICY, BINDING), reader, registry, conversions, authorizer, _compiled)

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        found = self._policies.about(request)
        if not found:
            return None
        from k3s.apiserver.admission import validations

        return validations.evaluate(self._policies, found, request)
