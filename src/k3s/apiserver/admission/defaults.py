"""The plugins of a cluster, in upstream's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s.api.kinds import REGISTRY, Kind, Registry
from k3s.api.object import Object
from k3s.apiserver.admission import certificates, classes, general, podresize, podrules, pods
from k3s.apiserver.admission.chain import Chain, PatientChain, Plugin
from k3s.apiserver.admission.escalation import Escalation
from k3s.apiserver.admission.limits import LimitRanger
from k3s.apiserver.admission.mutatingpolicies import MutatingPolicy
from k3s.apiserver.admission.namespaces import NamespaceLifecycle
from k3s.apiserver.admission.noderestriction import NodeRestriction
from k3s.apiserver.admission.podsecurity import PodSecurity
from k3s.apiserver.admission.quota import ResourceQuota
from k3s.apiserver.admission.serviceaccounts import ServiceAccount
from k3s.apiserver.admission.settings import UNSAID, Settings
from k3s.apiserver.admission.validatingpolicies import ValidatingPolicy
from k3s.apiserver.admission.webhookclient import WebhookClient
from k3s.apiserver.admission.webhooks import MutatingWebhook, ValidatingWebhook
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.conversion import Conversions
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader

Convert = Callable[[Object, Kind], Object]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What plugins need from outside."""

    reader: Reader
    authorizer: Authorizer
    clock: Clock
    entropy: Entropy
    registry: Registry
    convert: Convert
    settings: Settings


def chain(
    reader: Reader,
    authorizer: Authorizer,
    clock: Clock,
    entropy: Entropy,
    registry: Registry = REGISTRY,
    convert: Convert = lambda obj, kind: obj,
    settings: Settings = UNSAID,
) -> Chain:
    """The chain that k3s runs: upstream's default plugins and NodeRestriction, or those of the settings.

    What RBAC says of roles is no plugin that could be disabled.
    """
    around = Surroundings(reader, authorizer, clock, entropy, registry, convert, settings)
    made: list[Plugin] = [
        make(around) for name, make in _PLUGINS if name in settings.enabled or name == Escalation.name
    ]
    return PatientChain(made) if authorizer.asks else Chain(made)


def _conversions(around: Surroundings) -> Conversions:
    return Conversions(around.registry, around.convert, WebhookClient(around.reader), around.entropy)


def _validating_policy(around: Surroundings) -> Plugin:
    return ValidatingPolicy(around.reader, around.registry, _conversions(around), around.authorizer)


def _mutating_policy(around: Surroundings) -> Plugin:
    return MutatingPolicy(around.reader, around.registry, _conversions(around), around.authorizer)


def _webhook(plugin: type[MutatingWebhook | ValidatingWebhook]) -> Callable[[Surroundings], Plugin]:
    def make(a: Surroundings) -> Plugin:
        return plugin(a.reader, a.registry, _conversions(a), a.authorizer, a.entropy, WebhookClient(a.reader))

    return make


def _selectors(around: Surroundings) -> Plugin:
    allowed = around.settings.of("PodNodeSelector").get("podNodeSelectorPluginConfig") or {}
    return podrules.PodNodeSelector(around.reader, allowed)


def _tolerations(around: Surroundings) -> Plugin:
    given = around.settings.of("PodTolerationRestriction")
    return podrules.PodTolerationRestriction(around.reader, given.get("default") or [], given.get("whitelist") or [])


def _images(around: Surroundings) -> Plugin:
    from k3s.apiserver.admission import imagepolicy

    settings = imagepolicy.configured(around.settings.of(imagepolicy.NAME))
    return imagepolicy.from_settings(settings, around.clock, around.entropy)


# In upstream's order.
_PLUGINS: tuple[tuple[str, Callable[[Surroundings], Plugin]], ...] = (
    ("AlwaysAdmit", lambda a: general.AlwaysAdmit()),
    ("NamespaceAutoProvision", lambda a: general.NamespaceAutoProvision()),
    ("NamespaceLifecycle", lambda a: NamespaceLifecycle()),
    ("NamespaceExists", lambda a: general.NamespaceExists()),
    ("LimitPodHardAntiAffinityTopology", lambda a: podrules.LimitPodHardAntiAffinityTopology()),
    ("LimitRanger", lambda a: LimitRanger(a.reader)),
    ("ServiceAccount", lambda a: ServiceAccount(a.reader, a.entropy)),
    ("NodeRestriction", lambda a: NodeRestriction(a.reader, a.authorizer)),
    ("TaintNodesByCondition", lambda a: classes.TaintNodesByCondition()),
    ("AlwaysPullImages", lambda a: podrules.AlwaysPullImages()),
    ("ImagePolicyWebhook", _images),
    ("PodSecurity", lambda a: PodSecurity(a.reader, a.settings.of("PodSecurity"))),
    ("PodNodeSelector", _selectors),
    ("Priority", lambda a: pods.Priority(a.reader)),
    ("DefaultTolerationSeconds", lambda a: pods.DefaultTolerationSeconds()),
    ("PodTolerationRestriction", _tolerations),
    ("EventRateLimit", lambda a: general.EventRateLimit(a.settings.of("EventRateLimit").get("limits") or (), a.clock)),
    ("ExtendedResourceToleration", lambda a: podrules.ExtendedResourceToleration()),
    ("DefaultStorageClass", lambda a: classes.DefaultStorageClass(a.reader)),
    ("StorageObjectInUseProtection", lambda a: classes.StorageObjectInUseProtection()),
    (
        "OwnerReferencesPermissionEnforcement",
        lambda a: general.OwnerReferencesPermissionEnforcement(a.authorizer, a.registry),
    ),
    ("PersistentVolumeClaimResize", lambda a: classes.PersistentVolumeClaimResize(a.reader)),
    ("RuntimeClass", lambda a: pods.RuntimeClass(a.reader)),
    ("CertificateApproval", lambda a: certificates.CertificateApproval(a.authorizer)),
    ("CertificateSigning", lambda a: certificates.CertificateSigning(a.authorizer)),
    ("CertificateSubjectRestriction", lambda a: certificates.CertificateSubjectRestriction()),
    ("DefaultIngressClass", lambda a: classes.DefaultIngressClass(a.reader)),
    ("DenyServiceExternalIPs", lambda a: general.DenyServiceExternalIPs()),
    ("PodTopologyLabels", lambda a: podrules.PodTopologyLabels(a.reader)),
    ("PodResizeValidator", lambda a: podresize.PodResizeValidator(a.reader)),
    (Escalation.name, lambda a: Escalation(a.authorizer)),
    ("MutatingAdmissionPolicy", _mutating_policy),
    ("MutatingAdmissionWebhook", _webhook(MutatingWebhook)),
    ("ValidatingAdmissionPolicy", _validating_policy),
    ("ValidatingAdmissionWebhook", _webhook(ValidatingWebhook)),
    (
        "ResourceQuota",
        lambda a: ResourceQuota(a.reader, a.clock, a.settings.of("ResourceQuota").get("limitedResources") or ()),
    ),
    ("AlwaysDeny", lambda a: general.AlwaysDeny()),
)
