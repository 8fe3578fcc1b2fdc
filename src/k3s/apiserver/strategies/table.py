"""Which strategy belongs to which kind."""

from __future__ import annotations

from k3s.apiserver.strategies.core import ClaimStrategy, NamespaceStrategy, NodeStrategy, VolumeStrategy
from k3s.apiserver.strategies.others import (
    AutoscalerStrategy,
    DaemonSetStrategy,
    DefinitionStrategy,
    FlowStrategy,
    JobStrategy,
    LeaseStrategy,
    PriorityClassStrategy,
    SigningRequestStrategy,
    SliceStrategy,
)
from k3s.apiserver.strategies.pod import PodStrategy
from k3s.apiserver.strategy import Strategy

ROWS: dict[tuple[str, str], type[Strategy]] = {
    ("", "Namespace"): NamespaceStrategy,
    ("", "Node"): NodeStrategy,
    ("", "PersistentVolume"): VolumeStrategy,
    ("", "PersistentVolumeClaim"): ClaimStrategy,
    ("", "Pod"): PodStrategy,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): DefinitionStrategy,
    ("apps", "DaemonSet"): DaemonSetStrategy,
    ("autoscaling", "HorizontalPodAutoscaler"): AutoscalerStrategy,
    ("batch", "Job"): JobStrategy,
    ("certificates.k8s.io", "CertificateSigningRequest"): SigningRequestStrategy,
    ("coordination.k8s.io", "Lease"): LeaseStrategy,
    ("discovery.k8s.io", "EndpointSlice"): SliceStrategy,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): FlowStrategy,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): FlowStrategy,
    ("scheduling.k8s.io", "PriorityClass"): PriorityClassStrategy,
}
