"""What makes an object invalid, kind by kind: a table of small functions that yield causes.

    validate_create(kind, obj)              causes why a new object is refused; an empty list when it is sound
    validate_update(kind, old, new)         causes why a change is refused: immutable fields and the rules above

Objects have been pruned and defaulted before. Source: the API documentation of each kind; order and wording as
recorded from upstream 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from k3s.api import custom, schema
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.validation import (
    allocations,
    autoscaling,
    config,
    control,
    definitions,
    devices,
    events,
    flowcontrol,
    jobs,
    meta,
    networking,
    nodes,
    persistent,
    podchanges,
    pods,
    podstatus,
    quotas,
    resourceslices,
    services,
    slices,
    storageclasses,
    workloads,
)
from k3s.api.validation.causes import Cause

Create = Callable[[Object], Iterable[Cause]]
Update = Callable[[Object, Object], Iterable[Cause]]

_CREATE: dict[str, Create] = {
    "pods": pods.create,
    "podtemplates": workloads.pod_template,
    "replicationcontrollers": workloads.replication_controller,
    "deployments.apps": workloads.deployment,
    "replicasets.apps": workloads.replica_set,
    "statefulsets.apps": workloads.stateful_set,
    "daemonsets.apps": workloads.daemon_set,
    "controllerrevisions.apps": workloads.controller_revision,
    "jobs.batch": jobs.job,
    "cronjobs.batch": jobs.cron_job,
    "poddisruptionbudgets.policy": workloads.disruption_budget,
    "horizontalpodautoscalers.autoscaling": autoscaling.autoscaler,
    "services": services.service,
    "endpoints": services.endpoints,
    "endpointslices.discovery.k8s.io": slices.endpoint_slice,
    "ingresses.networking.k8s.io": networking.ingress,
    "ingressclasses.networking.k8s.io": networking.ingress_class,
    "networkpolicies.networking.k8s.io": networking.network_policy,
    "ipaddresses.networking.k8s.io": networking.ip_address,
    "servicecidrs.networking.k8s.io": networking.service_cidr,
    "configmaps": config.config_map,
    "secrets": config.secret,
    "namespaces": config.namespace,
    "nodes": nodes.node,
    "limitranges": quotas.limit_range,
    "resourcequotas": quotas.quota,
    "events": events.event,
    "events.events.k8s.io": events.event_new,
    "roles.rbac.authorization.k8s.io": config.role,
    "clusterroles.rbac.authorization.k8s.io": config.cluster_role,
    "rolebindings.rbac.authorization.k8s.io": config.role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": config.cluster_role_binding,
    "leases.coordination.k8s.io": config.lease,
    "priorityclasses.scheduling.k8s.io": config.priority_class,
    "runtimeclasses.node.k8s.io": config.runtime_class,
    "persistentvolumes": persistent.volume,
    "persistentvolumeclaims": persistent.claim,
    "storageclasses.storage.k8s.io": storageclasses.storage_class,
    "csidrivers.storage.k8s.io": storageclasses.csi_driver,
    "csinodes.storage.k8s.io": storageclasses.csi_node,
    "volumeattachments.storage.k8s.io": storageclasses.attachment,
    "csistoragecapacities.storage.k8s.io": storageclasses.capacity,
    "volumeattributesclasses.storage.k8s.io": storageclasses.attributes_class,
    "customresourcedefinitions.apiextensions.k8s.io": definitions.create,
    **control.CREATE,
}

# Kinds whose changes follow further rules; the others are looked at as if they were new.
_UPDATE: dict[str, Update] = {
    "pods": podchanges.update,
    "deployments.apps": workloads.deployment_update,
    "replicasets.apps": workloads.replica_set_update,
    "statefulsets.apps": workloads.stateful_set_update,
    "daemonsets.apps": workloads.daemon_set_update,
    "controllerrevisions.apps": workloads.controller_revision_update,
    "jobs.batch": jobs.job_update,
    "cronjobs.batch": jobs.cron_job_update,
    "services": services.update,
    "endpointslices.discovery.k8s.io": slices.endpoint_slice_update,
    "ingresses.networking.k8s.io": networking.ingress_update,
    "ingressclasses.networking.k8s.io": networking.ingress_class_update,
    "networkpolicies.networking.k8s.io": networking.network_policy_update,
    "ipaddresses.networking.k8s.io": networking.ip_address_update,
    "servicecidrs.networking.k8s.io": networking.service_cidr_update,
    "configmaps": config.config_map_update,
    "secrets": config.secret_update,
    "nodes": nodes.update,
    "resourcequotas": quotas.quota_update,
    "rolebindings.rbac.authorization.k8s.io": config.role_binding_update,
    "clusterrolebindings.rbac.authorization.k8s.io": config.cluster_role_binding_update,
    "events.events.k8s.io": events.event_new_update,
    "priorityclasses.scheduling.k8s.io": config.priority_class_update,
    "runtimeclasses.node.k8s.io": config.runtime_class_update,
    "persistentvolumes": persistent.volume_update,
    "persistentvolumeclaims": persistent.claim_update,
    "storageclasses.storage.k8s.io": storageclasses.storage_class_update,
    "csidrivers.storage.k8s.io": storageclasses.csi_driver_update,
    "csinodes.storage.k8s.io": storageclasses.csi_node_update,
    "csistoragecapacities.storage.k8s.io": storageclasses.capacity_update,
    "volumeattachments.storage.k8s.io": storageclasses.attachment_update,
    "volumeattributesclasses.storage.k8s.io": storageclasses.attributes_class_update,
    "customresourcedefinitions.apiextensions.k8s.io": definitions.update,
    "resourceclaims.resource.k8s.io": devices.claim_update,
    "resourceclaimtemplates.resource.k8s.io": devices.claim_update,
    "resourceslices.resource.k8s.io": resourceslices.resource_slice_update,
    # What may change depends on the path: its strategy's business.
    "certificatesigningrequests.certificates.k8s.io": lambda old, new: (),
}

_STATUS: dict[str, Create] = {
    "apiservices.apiregistration.k8s.io": control.api_service_status,
    "poddisruptionbudgets.policy": workloads.disruption_budget_status,
    "flowschemas.flowcontrol.apiserver.k8s.io": flowcontrol.status,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": flowcontrol.status,
    "persistentvolumeclaims": persistent.claim_status,
    "namespaces": config.namespace_status,
    "resourcequotas": quotas.quota_status,
    "ingresses.networking.k8s.io": networking.balancer_status,
    "services": services.status,
    "horizontalpodautoscalers.autoscaling": autoscaling.status,
}


# Kinds of whose status some parts stay.
_STATUS_UPDATE: dict[str, Update] = {
    "pods": podstatus.status,
    "nodes": nodes.change,
    "jobs.batch": jobs.status,
    "resourceclaims.resource.k8s.io": allocations.claim_status,
    "deployments.apps": partial(workloads.status, "Deployment"),
    "replicasets.apps": partial(workloads.status, "ReplicaSet"),
    "statefulsets.apps": partial(workloads.status, "StatefulSet"),
    "daemonsets.apps": partial(workloads.status, "DaemonSet"),
    "replicationcontrollers": partial(workloads.status, "ReplicationController"),
}


def validate_create(kind: Kind, obj: Object) -> list[Cause]:
    """Why a new object is refused; an empty list when it is sound."""
    causes = list(meta.create(kind, obj))
    check = _CREATE.get(kind.qualified)
    if kind.custom:
        causes += schema.validate(kind, obj) + _scale(kind, obj)
    elif check is not None:
        causes += check(obj)
    elif kind.kind == "Scale":
        causes += workloads.scale(obj)
    return causes


def validate_update(kind: Kind, old: Object, new: Object) -> list[Cause]:
    """Why a change is refused; an empty list when it is sound.

    That the metadata's own immutable fields (uid, creationTimestamp, …) stay is the generic update's business.
    """
    causes: list[Cause] = []
    if old.get("metadata") != new.get("metadata"):
        causes += meta.changed(kind, new)
    if kind.custom:
        return causes + schema.validate(kind, new, old) + _scale(kind, new)
    if new.get("status") != old.get("status"):
        status, moved = _STATUS.get(kind.qualified), _STATUS_UPDATE.get(kind.qualified)
        if status is not None:
            causes += status(new)
        elif moved is not None:
            causes += moved(old, new)
    if all(new.get(field) == old.get(field) for field in new.keys() | old.keys() if field not in _NOT_CONTENT):
        return causes
    change, check = _UPDATE.get(kind.qualified), _CREATE.get(kind.qualified)
    if change is not None:
        causes += change(old, new)
    elif check is not None:
        causes += check(new)
    return causes


def _scale(kind: Kind, obj: Object) -> list[Cause]:
    part = kind.subresources.get("scale")
    return custom.scale(part.paths, obj) if part is not None else []


# What can differ without a rule of the kind's own being touched.
_NOT_CONTENT = frozenset({"metadata", "status"})
