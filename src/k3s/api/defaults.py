"""What the API fills in when a client left it out.

Three layers, applied to each struct from the outside in:

1. rules that look at other fields (`_RULES`), as upstream does in code;
2. plain values (`_VALUES`): struct -> field -> value, used when the field is missing or empty;
3. what the schema always sends (`Node.plan`): empty structs and zero values.

Structs are named by the end of their definition's name: `core.v1.Container`. Source of the values: the documentation of
each field and the recorded answers of upstream 1.36.
"""

from __future__ import annotations

from typing import Any

from k3s.api.defaulting import RULES, Rule
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.schema import Node

_RBAC = "rbac.authorization.k8s.io"
_CONTAINER = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_RBD = {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}
_SCALE_IO = {"storageMode": "ThinProvisioned", "fsType": "xfs"}
_MODE = {"defaultMode": 420}
_WEBHOOK = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "timeoutSeconds": 10,
}
_DEVICES = {"allocationMode": "ExactCount"}

_VALUES: dict[str, dict[str, Any]] = {
    "core.v1.PodSpec": {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
    "core.v1.Container": _CONTAINER,
    "core.v1.EphemeralContainer": _CONTAINER,
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.Probe": _PROBE,
    "core.v1.HTTPGetAction": {"path": "/", "scheme": "HTTP"},
    "core.v1.GRPCAction": {"service": ""},
    "core.v1.ObjectFieldSelector": {"apiVersion": "v1"},
    "core.v1.SecretVolumeSource": _MODE,
    "core.v1.ConfigMapVolumeSource": _MODE,
    "core.v1.DownwardAPIVolumeSource": _MODE,
    "core.v1.ProjectedVolumeSource": _MODE,
    "core.v1.ServiceAccountTokenProjection": {"expirationSeconds": 3600},
    "core.v1.HostPathVolumeSource": {"type": ""},
    "core.v1.ISCSIVolumeSource": {"iscsiInterface": "default"},
    "core.v1.ISCSIPersistentVolumeSource": {"iscsiInterface": "default"},
    "core.v1.RBDVolumeSource": _RBD,
    "core.v1.RBDPersistentVolumeSource": _RBD,
    "core.v1.AzureDiskVolumeSource": {
        "cachingMode": "ReadWrite",
        "kind": "Shared",
        "fsType": "ext4",
        "readOnly": False,
    },
    "core.v1.ScaleIOVolumeSource": _SCALE_IO,
    "core.v1.ScaleIOPersistentVolumeSource": _SCALE_IO,
    "core.v1.Secret": {"type": "Opaque"},
    "core.v1.NamespaceStatus": {"phase": "Active"},
    "core.v1.PersistentVolumeSpec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
    "core.v1.PersistentVolumeStatus": {"phase": "Pending"},
    "core.v1.PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"},
    "core.v1.PersistentVolumeClaimStatus": {"phase": "Pending"},
    "core.v1.EndpointPort": {"protocol": "TCP"},
    "core.v1.ServicePort": {"protocol": "TCP"},
    "core.v1.ServiceSpec": {"sessionAffinity": "None", "type": "ClusterIP"},
    "core.v1.ReplicationControllerSpec": {"replicas": 1},
    "apps.v1.DeploymentSpec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
    "apps.v1.DeploymentStrategy": {"type": "RollingUpdate"},
    "apps.v1.RollingUpdateDeployment": {"maxUnavailable": "25%", "maxSurge": "25%"},
    "apps.v1.ReplicaSetSpec": {"replicas": 1},
    "apps.v1.DaemonSetSpec": {"revisionHistoryLimit": 10},
    "apps.v1.DaemonSetUpdateStrategy": {"type": "RollingUpdate"},
    "apps.v1.RollingUpdateDaemonSet": {"maxUnavailable": 1, "maxSurge": 0},
    "apps.v1.StatefulSetSpec": {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "revisionHistoryLimit": 10,
        "persistentVolumeClaimRetentionPolicy": {},
    },
    "apps.v1.StatefulSetUpdateStrategy": {"type": "RollingUpdate"},
    "apps.v1.RollingUpdateStatefulSetStrategy": {"partition": 0},
    "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    "batch.v1.CronJobSpec": {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
    "batch.v1.PodFailurePolicyOnPodConditionsPattern": {"status": "True"},
    "autoscaling.v1.HorizontalPodAutoscalerSpec": {"minReplicas": 1},
    "autoscaling.v2.HorizontalPodAutoscalerSpec": {"minReplicas": 1},
    "networking.v1.IngressClassParametersReference": {"scope": "Cluster"},
    "networking.v1.NetworkPolicyPort": {"protocol": "TCP"},
    "discovery.v1.EndpointPort": {"name": "", "protocol": "TCP"},
    "rbac.v1.RoleRef": {"apiGroup": _RBAC},
    "storage.v1.StorageClass": {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
    "storage.v1.CSIDriverSpec": {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "volumeLifecycleModes": ["Persistent"],
        "requiresRepublish": False,
        "seLinuxMount": False,
    },
    "scheduling.v1.PriorityClass": {"preemptionPolicy": "PreemptLowerPriority"},
    "admissionregistration.v1.ValidatingWebhook": _WEBHOOK,
    "admissionregistration.v1.MutatingWebhook": {**_WEBHOOK, "reinvocationPolicy": "Never"},
    "admissionregistration.v1.RuleWithOperations": {"scope": "*"},
    "admissionregistration.v1.NamedRuleWithOperations": {"scope": "*"},
    "admissionregistration.v1.ServiceReference": {"port": 443},
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "admissionregistration.v1.MutatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "admissionregistration.v1.MatchResources": {
        "namespaceSelector": {},
        "objectSelector": {},
        "matchPolicy": "Equivalent",
    },
    "apiextensions.v1.ServiceReference": {"port": 443},
    "apiextensions.v1.CustomResourceDefinitionSpec": {"conversion": {"strategy": "None"}},
    "apiregistration.v1.ServiceReference": {"port": 443},
    "flowcontrol.v1.FlowSchemaSpec": {"matchingPrecedence": 1000},
    "flowcontrol.v1.LimitedPriorityLevelConfiguration": {"nominalConcurrencyShares": 30, "lendablePercent": 0},
    "flowcontrol.v1.ExemptPriorityLevelConfiguration": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
    "flowcontrol.v1.QueuingConfiguration": {"queues": 64, "handSize": 8, "queueLengthLimit": 50},
    "resource.v1.ExactDeviceRequest": _DEVICES,
    "resource.v1.DeviceSubRequest": _DEVICES,
    "authentication.v1.TokenRequestSpec": {"expirationSeconds": 3600},
}


# Fields that are sent as null when there is nothing in them: lists without omitempty and times that are not pointers.
_NULLS: dict[str, tuple[str, ...]] = {
    "core.v1.LimitRangeSpec": ("limits",),
    "batch.v1.PodFailurePolicy": ("rules",),
    "storage.v1.CSINodeSpec": ("drivers",),
    "rbac.v1.Role": ("rules",),
    "rbac.v1.ClusterRole": ("rules",),
    "discovery.v1.EndpointSlice": ("endpoints", "ports"),
    "autoscaling.v2.HorizontalPodAutoscalerStatus": ("currentMetrics",),
    "core.v1.NamespaceCondition": ("lastTransitionTime",),
    "core.v1.EventSeries": ("lastObservedTime",),
    "events.v1.EventSeries": ("lastObservedTime",),
    "storage.v1.VolumeError": ("time",),
    "flowcontrol.v1.FlowSchemaCondition": ("lastTransitionTime",),
    "flowcontrol.v1.PriorityLevelConfigurationCondition": ("lastTransitionTime",),
    "core.v1.Event": ("eventTime", "firstTimestamp", "lastTimestamp"),
    "core.v1.NodeCondition": ("lastHeartbeatTime", "lastTransitionTime"),
    "core.v1.PodCondition": ("lastProbeTime", "lastTransitionTime"),
    "core.v1.ReplicationControllerCondition": ("lastTransitionTime",),
    "core.v1.PersistentVolumeClaimCondition": ("lastProbeTime", "lastTransitionTime"),
    "core.v1.ContainerStateRunning": ("startedAt",),
    "core.v1.ContainerStateTerminated": ("startedAt", "finishedAt"),
    "apps.v1.DeploymentCondition": ("lastUpdateTime", "lastTransitionTime"),
    "apps.v1.ReplicaSetCondition": ("lastTransitionTime",),
    "apps.v1.StatefulSetCondition": ("lastTransitionTime",),
    "apps.v1.DaemonSetCondition": ("lastTransitionTime",),
    "batch.v1.JobCondition": ("lastProbeTime", "lastTransitionTime"),
    "autoscaling.v2.HorizontalPodAutoscalerCondition": ("lastTransitionTime",),
    "certificates.v1.CertificateSigningRequestCondition": ("lastUpdateTime", "lastTransitionTime"),
    "apiextensions.v1.CustomResourceDefinitionCondition": ("lastTransitionTime",),
    "apiregistration.v1.APIServiceCondition": ("lastTransitionTime",),
    "authentication.v1.TokenRequestStatus": ("expirationTimestamp",),
    "meta.v1.Condition": ("lastTransitionTime",),
}


def apply(node: Node, kind: Kind, obj: Object, known: Object | None = None) -> Object:
    """See `k3s.api.schema.defaults`."""
    return _object(node, obj, known) if kind.definition else _custom(node, obj)


def _short(definition: str) -> str:
    return ".".join(definition.split(".")[-3:])


_CONTAINERS = (dict, list)
_NOTHING: Object = {}
_Rules = tuple[Rule | None, tuple[tuple[str, Any], ...], tuple[str, ...]]
_compiled: dict[str, _Rules] = {}


def _rules(node: Node) -> _Rules:
    found = _compiled.get(node.definition)
    if found is None:
        short = _short(node.definition)
        found = (RULES.get(short), tuple(_VALUES.get(short, {}).items()), _NULLS.get(short, ()))
        _compiled[node.definition] = found
    return found


def _object(node: Node, obj: Object, known: Any = None) -> Object:
    before = known if known.__class__ is dict else _NOTHING
    rule, values, nulls = _rules(node)
    out = rule(obj) if rule is not None else obj
    added: Object = {}
    for field, value in values:
        if out.get(field) in (None, ""):
            added[field] = value
    for field in nulls:
        if field not in out:
            added[field] = None
    for field, value in node.plan:
        if field not in out and field not in added:
            added[field] = {} if isinstance(value, Node) else value
    fields = node.fields
    for field, value in out.items():
        if value.__class__ not in _CONTAINERS or value is (was := before.get(field)):
            continue
        child = fields.get(field)
        if child is not None:
            new = _value(child, value, was)
            if new is not value:
                added[field] = new
    for field, value in list(added.items()):
        child = fields.get(field)
        if child is not None and field not in out and value.__class__ in _CONTAINERS:
            added[field] = _value(child, value)
    return {**out, **added} if added else out


def _value(node: Node, value: Any, known: Any = None) -> Any:
    if node.type == "object" and value.__class__ is dict:
        return _object(node, value, known)
    items = node.items() if node.type in ("array", "map") else None
    if items is None or items.type not in ("object", "array", "map"):
        return value
    if value.__class__ is list:
        done = {id(element) for element in known} if known.__class__ is list else ()
        new_list = [element if id(element) in done else _value(items, element) for element in value]
        return value if all(a is b for a, b in zip(new_list, value, strict=True)) else new_list
    if value.__class__ is dict:
        new = {key: _value(items, element) for key, element in value.items()}
        return value if all(new[key] is element for key, element in value.items()) else new
    return value


def _custom(node: Node, obj: Object) -> Object:
    """Defaults of a custom schema: every property with one, where its parent is there."""
    added: Object = {}
    for field, child in node.fields.items():
        if field in obj:
            new = _custom_value(child, obj[field])
            if new is not obj[field]:
                added[field] = new
        elif child.default is not None:
            added[field] = _custom_value(child, child.default)
    return {**obj, **added} if added else obj


def _custom_value(node: Node, value: Any) -> Any:
    if value.__class__ is dict and node.type == "object":
        return _custom(node, value)
    items = node.items() if node.type in ("array", "map") else None
    if items is None:
        return value
    if value.__class__ is list:
        return [_custom_value(items, element) for element in value]
    if value.__class__ is dict:
        return {key: _custom_value(items, element) for key, element in value.items()}
    return value
