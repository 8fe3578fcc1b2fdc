"""Which optional values say something when they are empty: text "", number 0, false.

The API's own structs hold some optional fields by value, where empty and missing are the same and are not sent, and
others by reference, where they differ. Schemas do not tell; these two tables do, by struct (`core.v1.PodSpec`).
Lists and maps are always held by value. Source: the Go types of the API and recorded answers of upstream 1.36.
"""

from __future__ import annotations

_NONE: frozenset[str] = frozenset()

# Texts held by reference: "" is another value than none. All other optional texts vanish when they are empty.
_TEXTS: dict[str, str] = {
    "admissionregistration.v1.MatchResources": "matchPolicy",
    "admissionregistration.v1.MutatingAdmissionPolicySpec": "failurePolicy",
    "admissionregistration.v1.MutatingWebhook": "failurePolicy matchPolicy reinvocationPolicy sideEffects",
    "admissionregistration.v1.NamedRuleWithOperations": "scope",
    "admissionregistration.v1.ParamRef": "parameterNotFoundAction",
    "admissionregistration.v1.RuleWithOperations": "scope",
    "admissionregistration.v1.ServiceReference": "path",
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": "failurePolicy",
    "admissionregistration.v1.ValidatingWebhook": "failurePolicy matchPolicy sideEffects",
    "admissionregistration.v1.Validation": "reason",
    "admissionregistration.v1.WebhookClientConfig": "url",
    "apiextensions.v1.CustomResourceDefinitionVersion": "deprecationWarning",
    "apiextensions.v1.JSONSchemaProps": "$ref x-kubernetes-list-type x-kubernetes-map-type",
    "apiextensions.v1.ServiceReference": "path",
    "apiextensions.v1.ValidationRule": "reason",
    "apiextensions.v1.WebhookClientConfig": "url",
    "autoscaling.v2.HPAScalingRules": "selectPolicy",
    "batch.v1.CronJobSpec": "timeZone",
    "batch.v1.JobSpec": "completionMode managedBy podReplacementPolicy",
    "batch.v1.JobStatus": "failedIndexes",
    "batch.v1.PodFailurePolicyOnExitCodesRequirement": "containerName",
    "batch.v1.SuccessPolicyRule": "succeededIndexes",
    "coordination.v1.LeaseSpec": "holderIdentity preferredHolder strategy",
    "core.v1.AppArmorProfile": "localhostProfile",
    "core.v1.AzureDiskVolumeSource": "cachingMode fsType kind",
    "core.v1.AzureFilePersistentVolumeSource": "secretNamespace",
    "core.v1.CSIVolumeSource": "fsType",
    "core.v1.ClusterTrustBundleProjection": "name signerName",
    "core.v1.Container": "restartPolicy",
    "core.v1.EndpointAddress": "nodeName",
    "core.v1.EndpointPort": "appProtocol",
    "core.v1.EphemeralContainer": "restartPolicy",
    "core.v1.GRPCAction": "service",
    "core.v1.GlusterfsPersistentVolumeSource": "endpointsNamespace",
    "core.v1.HostPathVolumeSource": "type",
    "core.v1.ISCSIPersistentVolumeSource": "initiatorName",
    "core.v1.ISCSIVolumeSource": "initiatorName",
    "core.v1.Lifecycle": "stopSignal",
    "core.v1.LoadBalancerIngress": "ipMode",
    "core.v1.LocalVolumeSource": "fsType",
    "core.v1.PersistentVolumeClaimSpec": "storageClassName volumeAttributesClassName volumeMode",
    "core.v1.PersistentVolumeClaimStatus": "currentVolumeAttributesClassName",
    "core.v1.PersistentVolumeSpec": "volumeAttributesClassName volumeMode",
    "core.v1.PodDNSConfigOption": "value",
    "core.v1.PodResourceClaim": "resourceClaimName resourceClaimTemplateName",
    "core.v1.PodResourceClaimStatus": "resourceClaimName",
    "core.v1.PodSecurityContext": "fsGroupChangePolicy seLinuxChangePolicy supplementalGroupsPolicy",
    "core.v1.PodSpec": "hostnameOverride preemptionPolicy runtimeClassName",
    "core.v1.PortStatus": "error",
    "core.v1.SeccompProfile": "localhostProfile",
    "core.v1.SecurityContext": "procMount",
    "core.v1.ServicePort": "appProtocol",
    "core.v1.ServiceSpec": "internalTrafficPolicy ipFamilyPolicy loadBalancerClass trafficDistribution",
    "core.v1.TopologySpreadConstraint": "nodeAffinityPolicy nodeTaintsPolicy",
    "core.v1.TypedLocalObjectReference": "apiGroup",
    "core.v1.TypedObjectReference": "apiGroup namespace",
    "core.v1.VolumeMount": "mountPropagation recursiveReadOnly",
    "core.v1.VolumeMountStatus": "recursiveReadOnly",
    "core.v1.WindowsSecurityContextOptions": "gmsaCredentialSpec gmsaCredentialSpecName runAsUserName",
    "discovery.v1.Endpoint": "hostname nodeName zone",
    "discovery.v1.EndpointPort": "appProtocol name protocol",
    "networking.v1.HTTPIngressPath": "pathType",
    "networking.v1.IngressClassParametersReference": "apiGroup namespace scope",
    "networking.v1.IngressPortStatus": "error",
    "networking.v1.IngressSpec": "ingressClassName",
    "networking.v1.NetworkPolicyPort": "protocol",
    "policy.v1.PodDisruptionBudgetSpec": "unhealthyPodEvictionPolicy",
    "resource.v1.AllocatedDeviceStatus": "shareID",
    "resource.v1.DeviceAttribute": "string version",
    "resource.v1.DeviceConstraint": "distinctAttribute matchAttribute",
    "resource.v1.DeviceRequestAllocationResult": "shareID",
    "resource.v1.Device": "nodeName",
    "resource.v1.ResourceSliceSpec": "nodeName",
    "scheduling.v1.PriorityClass": "preemptionPolicy",
    "storage.v1.CSIDriverSpec": "fsGroupPolicy",
    "storage.v1.StorageClass": "reclaimPolicy volumeBindingMode",
    "storage.v1.VolumeAttachmentSource": "persistentVolumeName",
    "meta.v1.DeleteOptions": "propagationPolicy",
    "meta.v1.Preconditions": "resourceVersion uid",
}

_READ_ONLY = "readOnly"
_CONTAINER = "stdin stdinOnce tty"
_ISCSI = "chapAuthDiscovery chapAuthSession readOnly"
_OBSERVED = "observedGeneration"
_SCALE_IO = "readOnly sslEnabled"

# Flags and counts held by value: false and 0 are the same as none. All other optional ones are held by reference.
_NUMBERS: dict[str, str] = {
    "admissionregistration.v1.ValidatingAdmissionPolicyStatus": _OBSERVED,
    "apiextensions.v1.CustomResourceColumnDefinition": "priority",
    "apiextensions.v1.CustomResourceDefinitionSpec": "preserveUnknownFields",
    "apiextensions.v1.CustomResourceDefinitionStatus": _OBSERVED,
    "apiextensions.v1.CustomResourceDefinitionVersion": "deprecated",
    "apiextensions.v1.JSONSchemaProps": (
        "exclusiveMaximum exclusiveMinimum nullable uniqueItems x-kubernetes-embedded-resource "
        "x-kubernetes-int-or-string"
    ),
    "apiregistration.v1.APIServiceSpec": "insecureSkipTLSVerify",
    "apps.v1.DaemonSetSpec": "minReadySeconds",
    "apps.v1.DaemonSetStatus": "numberAvailable numberUnavailable observedGeneration updatedNumberScheduled",
    "apps.v1.DeploymentSpec": "minReadySeconds paused",
    "apps.v1.DeploymentStatus": (
        "availableReplicas observedGeneration readyReplicas replicas unavailableReplicas updatedReplicas"
    ),
    "apps.v1.ReplicaSetSpec": "minReadySeconds",
    "apps.v1.ReplicaSetStatus": "availableReplicas fullyLabeledReplicas observedGeneration readyReplicas",
    "apps.v1.StatefulSetSpec": "minReadySeconds",
    "apps.v1.StatefulSetStatus": "currentReplicas observedGeneration readyReplicas updatedReplicas",
    "authentication.v1.TokenReviewStatus": "authenticated",
    "authorization.v1.SubjectAccessReviewStatus": "denied",
    "autoscaling.v1.ScaleSpec": "replicas",
    "autoscaling.v2.HorizontalPodAutoscalerStatus": "currentReplicas",
    "batch.v1.JobStatus": "active failed succeeded",
    "core.v1.AWSElasticBlockStoreVolumeSource": "partition readOnly",
    "core.v1.AzureFilePersistentVolumeSource": _READ_ONLY,
    "core.v1.AzureFileVolumeSource": _READ_ONLY,
    "core.v1.CephFSPersistentVolumeSource": _READ_ONLY,
    "core.v1.CephFSVolumeSource": _READ_ONLY,
    "core.v1.CinderPersistentVolumeSource": _READ_ONLY,
    "core.v1.CinderVolumeSource": _READ_ONLY,
    "core.v1.CSIPersistentVolumeSource": _READ_ONLY,
    "core.v1.Container": _CONTAINER,
    "core.v1.ContainerImage": "sizeBytes",
    "core.v1.ContainerPort": "hostPort",
    "core.v1.ContainerStateTerminated": "signal",
    "core.v1.EphemeralContainer": _CONTAINER,
    "core.v1.Event": "count",
    "core.v1.EventSeries": "count",
    "core.v1.FCVolumeSource": _READ_ONLY,
    "core.v1.FlexPersistentVolumeSource": _READ_ONLY,
    "core.v1.FlexVolumeSource": _READ_ONLY,
    "core.v1.GCEPersistentDiskVolumeSource": "partition readOnly",
    "core.v1.GlusterfsPersistentVolumeSource": _READ_ONLY,
    "core.v1.GlusterfsVolumeSource": _READ_ONLY,
    "core.v1.ISCSIPersistentVolumeSource": _ISCSI,
    "core.v1.ISCSIVolumeSource": _ISCSI,
    "core.v1.NFSVolumeSource": _READ_ONLY,
    "core.v1.NodeSpec": "unschedulable",
    "core.v1.PersistentVolumeClaimVolumeSource": _READ_ONLY,
    "core.v1.PodCondition": _OBSERVED,
    "core.v1.PodSpec": "hostIPC hostNetwork hostPID",
    "core.v1.PodStatus": _OBSERVED,
    "core.v1.PortworxVolumeSource": _READ_ONLY,
    "core.v1.Probe": "failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds",
    "core.v1.QuobyteVolumeSource": _READ_ONLY,
    "core.v1.RBDPersistentVolumeSource": _READ_ONLY,
    "core.v1.RBDVolumeSource": _READ_ONLY,
    "core.v1.ReplicationControllerSpec": "minReadySeconds",
    "core.v1.ReplicationControllerStatus": ("availableReplicas fullyLabeledReplicas observedGeneration readyReplicas"),
    "core.v1.ScaleIOPersistentVolumeSource": _SCALE_IO,
    "core.v1.ScaleIOVolumeSource": _SCALE_IO,
    "core.v1.ServicePort": "nodePort",
    "core.v1.ServiceSpec": "healthCheckNodePort publishNotReadyAddresses",
    "core.v1.StorageOSPersistentVolumeSource": _READ_ONLY,
    "core.v1.StorageOSVolumeSource": _READ_ONLY,
    "core.v1.VolumeMount": _READ_ONLY,
    "core.v1.VolumeMountStatus": _READ_ONLY,
    "events.v1.Event": "deprecatedCount",
    "flowcontrol.v1.ResourcePolicyRule": "clusterScope",
    "meta.v1.Condition": _OBSERVED,
    "meta.v1.ObjectMeta": "generation",
    "networking.v1.ServiceBackendPort": "number",
    "policy.v1.PodDisruptionBudgetStatus": _OBSERVED,
    "resource.v1.DeviceSubRequest": "count",
    "resource.v1.ExactDeviceRequest": "count",
    "scheduling.v1.PriorityClass": "globalDefault",
}


def texts_kept(struct: str) -> frozenset[str]:
    """The optional text fields of a struct whose empty value is kept."""
    return frozenset(_TEXTS[struct].split()) if struct in _TEXTS else _NONE


def numbers_dropped(struct: str) -> frozenset[str]:
    """The optional flags and counts of a struct that are not sent when they are false or 0."""
    return frozenset(_NUMBERS[struct].split()) if struct in _NUMBERS else _NONE
