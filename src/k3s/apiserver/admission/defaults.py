"""The plugins of a cluster, in upstream's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from k3s.api.kinds import REGISTRY, Kind, Registry
from k3s.api.object import Object
from k3s.apiserver.admission import certificates, classes, pods
from k3s.apiserver.admission.chain import Chain
from k3s.apiserver.admission.escalation import Escalation
from k3s.apiserver.admission.limits import LimitRanger
from k3s.apiserver.admission.mutatingpolicies import MutatingPolicy
from k3s.apiserver.admission.namespaces import NamespaceLifecycle
from k3s.apiserver.admission.noderestriction import NodeRestriction
from k3s.apiserver.admission.podsecurity import PodSecurity
from k3s.apiserver.admission.quota import ResourceQuota
from k3s.apiserver.admission.serviceaccounts import ServiceAccount
from k3s.apiserver.admission.validatingpolicies import ValidatingPolicy
from k3s.apiserver.admission.webhookclient import WebhookClient
from k3s.apiserver.admission.webhooks import MutatingWebhook, ValidatingWebhook
from k3s.apiserver.authz import Authorizer
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader


def chain(
    reader: Reader,
    authorizer: Authorizer,
    clock: Clock,
    entropy: Entropy,
    registry: Registry = REGISTRY,
    convert: Callable[[Object, Kind], Object] = lambda obj, kind: obj,
) -> Chain:
    """The chain that k3s runs: upstream's default plugins and NodeRestriction."""
    policies = (reader, registry, convert, authorizer)
    hooks = (*policies, entropy, WebhookClient(reader))
    return Chain(
        [
            NamespaceLifecycle(),
            LimitRanger(reader),
            ServiceAccount(reader, entropy),
            NodeRestriction(reader, authorizer),
            classes.TaintNodesByCondition(),
            PodSecurity(reader),
            pods.Priority(reader),
            pods.DefaultTolerationSeconds(),
            classes.DefaultStorageClass(reader),
            classes.StorageObjectInUseProtection(),
            classes.PersistentVolumeClaimResize(reader),
            pods.RuntimeClass(reader),
            certificates.CertificateApproval(authorizer),
            certificates.CertificateSigning(authorizer),
            certificates.CertificateSubjectRestriction(),
            classes.DefaultIngressClass(reader),
            Escalation(authorizer),
            MutatingPolicy(*policies),
            MutatingWebhook(*hooks),
            ValidatingPolicy(*policies),
            ValidatingWebhook(*hooks),
            ResourceQuota(reader, clock),
        ]
    )
