"""NamespaceLifecycle: the namespaces that a cluster cannot do without are not deleted.

That nothing is created in a namespace that is absent or going is checked by the write path itself, for every kind.
"""

from __future__ import annotations

from k3s.apiserver.admission.chain import DELETE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle(Plugin):
    """Refuses to delete default, kube-system and kube-public."""

    name = "NamespaceLifecycle"
    resources = frozenset({"namespaces"})
    validates = frozenset({DELETE})

    def validate(self, request: AdmissionRequest) -> None:
        if request.name in IMMORTAL and not request.subresource:
            raise refuse(request, "this namespace may not be deleted")
