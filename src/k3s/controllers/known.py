"""The built-in kinds that controllers read and write, under short names."""

from __future__ import annotations

from k3s.api.kinds import builtin

CONFIG_MAP = builtin("v1", "ConfigMap")
ENDPOINTS = builtin("v1", "Endpoints")
EVENT = builtin("v1", "Event")
NAMESPACE = builtin("v1", "Namespace")
NODE = builtin("v1", "Node")
CLAIM = builtin("v1", "PersistentVolumeClaim")
POD = builtin("v1", "Pod")
QUOTA = builtin("v1", "ResourceQuota")
REPLICATION_CONTROLLER = builtin("v1", "ReplicationController")
SERVICE = builtin("v1", "Service")
SECRET = builtin("v1", "Secret")
SERVICE_ACCOUNT = builtin("v1", "ServiceAccount")
CONTROLLER_REVISION = builtin("apps/v1", "ControllerRevision")
DAEMON_SET = builtin("apps/v1", "DaemonSet")
DEPLOYMENT = builtin("apps/v1", "Deployment")
REPLICA_SET = builtin("apps/v1", "ReplicaSet")
STATEFUL_SET = builtin("apps/v1", "StatefulSet")
JOB = builtin("batch/v1", "Job")
CRON_JOB = builtin("batch/v1", "CronJob")
LEASE = builtin("coordination.k8s.io/v1", "Lease")
BUDGET = builtin("policy/v1", "PodDisruptionBudget")
ENDPOINT_SLICE = builtin("discovery.k8s.io/v1", "EndpointSlice")
CLUSTER_ROLE = builtin("rbac.authorization.k8s.io/v1", "ClusterRole")
API_SERVICE = builtin("apiregistration.k8s.io/v1", "APIService")
CUSTOM_RESOURCE = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
