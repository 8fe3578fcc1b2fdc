"""The table of controllers: everything that runs, in one list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo

from k3s.api.kinds import Registry
from k3s.controllers import (
    bootstraptokens,
    clusterrole,
    cronjob,
    daemonset,
    deployment,
    disruption,
    endpoints,
    endpointslice,
    endpointslice_mirror,
    gc,
    job,
    job_ending,
    kubernetes_endpoints,
    legacytokens,
    namespace,
    node_ipam,
    node_lifecycle,
    observers,
    podgc,
    policystatus,
    replicaset,
    resourcequota,
    root_ca,
    serviceaccount,
    serviceaccount_token,
    statefulset,
)
from k3s.controllers.spec import ControllerSpec


@dataclass(frozen=True, slots=True)
class Settings:
    """What controllers have to be told.

    `root_ca`: the PEM bundle for pods. `api_addresses`, `api_port`: where the API server is reached from pods.
    `cluster_cidrs`: the networks of which each node gets a part, `node_mask` of the size of that part by family.
    `most_ended_pods`: how many pods that have ended are kept. `sign` makes the token of a Secret for a ServiceAccount.
    `local_zone` answers in which zone CronJobs without one are.
    `unused_tokens_s`: after how long such a token that nobody uses is marked, and after how long again removed.
    """

    root_ca: str
    api_addresses: tuple[str, ...] = ()
    api_port: int = 6443
    cluster_cidrs: tuple[str, ...] = ("10.42.0.0/16",)
    node_mask_v4: int = 24
    node_mask_v6: int = 64
    most_ended_pods: int = podgc.MOST_ENDED
    sign: serviceaccount_token.Sign | None = None
    local_zone: Callable[[], tzinfo] = lambda: UTC
    unused_tokens_s: float = legacytokens.UNUSED_S


def controllers(settings: Settings, registry: Registry) -> tuple[ControllerSpec, ...]:
    """All controllers of a server that serves the kinds of `registry`."""
    published: tuple[ControllerSpec, ...] = ()
    if settings.api_addresses:
        published = kubernetes_endpoints.specs(settings.api_addresses, settings.api_port)
    owners = observers.Owners(registry)
    return (
        *namespace.specs(observers.contents(registry)),
        *gc.specs(registry, owners.look_up, owners.died),
        *serviceaccount.SPECS,
        *root_ca.specs(settings.root_ca),
        *(serviceaccount_token.specs(settings.sign, settings.root_ca) if settings.sign is not None else ()),
        *legacytokens.specs(settings.unused_tokens_s),
        *bootstraptokens.SPECS,
        *deployment.SPECS,
        *replicaset.SPECS,
        *daemonset.SPECS,
        *statefulset.SPECS,
        *job.SPECS,
        *job_ending.SPECS,
        *cronjob.specs(settings.local_zone),
        *disruption.specs(registry),
        *endpointslice.SPECS,
        *endpoints.SPECS,
        *endpointslice_mirror.SPECS,
        *node_lifecycle.SPECS,
        *node_ipam.specs(settings.cluster_cidrs, settings.node_mask_v4, settings.node_mask_v6),
        *podgc.specs(settings.most_ended_pods),
        *policystatus.specs(registry),
        *resourcequota.SPECS,
        *clusterrole.SPECS,
        *published,
    )
