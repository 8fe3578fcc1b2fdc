"""Defaults that depend on other fields: struct -> rule, a pure function from the struct to the struct.

Source: the API documentation of each field and the recorded answers of upstream 1.36.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from k3s.api import quantity
from k3s.api.object import Object, evolve

Rule = Callable[[Object], Object]
RULES: dict[str, Rule] = {}
_RBAC = "rbac.authorization.k8s.io"
_MAX_INT32 = 2147483647


def _rule(*structs: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for struct in structs:
            RULES[struct] = rule
        return rule

    return register


def _missing(obj: Object, **values: Any) -> Object:
    """`obj` with those values whose field is missing or empty text."""
    added = {field: value for field, value in values.items() if obj.get(field) in (None, "")}
    return {**obj, **added} if added else obj


@_rule("core.v1.Container", "core.v1.EphemeralContainer")
def _container(obj: Object) -> Object:
    return _pull_policy(obj, "imagePullPolicy", str(obj.get("image", "")))


@_rule("core.v1.ImageVolumeSource")
def _image_volume(obj: Object) -> Object:
    return _pull_policy(obj, "pullPolicy", str(obj.get("reference", "")))


def _pull_policy(obj: Object, field: str, image: str) -> Object:
    tag = image.rpartition("/")[2].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    return _missing(obj, **{field: "Always" if latest else "IfNotPresent"})


@_rule("core.v1.Pod")
def _pod(obj: Object) -> Object:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return obj
    changed = _missing(spec, enableServiceLinks=True)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        changed = {**changed, "terminationGracePeriodSeconds": 1}
    for field in ("containers", "initContainers"):
        containers = spec.get(field)
        if containers and any("limits" in (c.get("resources") or {}) for c in containers):
            filled = [_requests_from_limits(c) for c in containers]
            if any(a is not b for a, b in zip(filled, containers, strict=True)):
                changed = {**changed, field: filled}
    resources = spec.get("resources") or {}
    if resources.get("limits") and (full := _whole(changed)) is not resources:
        changed = {**changed, "resources": full}
    return {**obj, "spec": changed} if changed is not spec else obj


def _whole(spec: Object) -> Object:
    """The resources of a pod with limits of its own: it requests what its containers do together, or its limits."""
    resources = spec["resources"]
    filled = {name: text for name, text in {**resources["limits"], **_together(spec)}.items() if _for_a_whole(name)}
    own = resources.get("requests") or {}
    return resources if filled.keys() <= own.keys() else {**resources, "requests": {**filled, **own}}


def _for_a_whole(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def _together(spec: Object) -> dict[str, str]:
    """What the containers request: all that run at once, and no less than what runs before them."""
    total: dict[str, str] = {}
    for container in spec.get("containers") or ():
        total = _summed(total, container)
    beside: dict[str, str] = {}
    most: dict[str, str] = {}
    for container in spec.get("initContainers") or ():
        at_once = _summed(beside, container)
        if container.get("restartPolicy") == "Always":
            total, beside = _summed(total, container), at_once
        most = _greatest(most, at_once)
    return _greatest(total, most)


def _summed(total: dict[str, str], container: Object) -> dict[str, str]:
    asked = (container.get("resources") or {}).get("requests") or {}
    return total | {name: quantity.add(total[name], text) if name in total else text for name, text in asked.items()}


def _greatest(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    more = {name: text for name, text in other.items() if name not in one or quantity.compare(text, one[name]) > 0}
    return one | more


def _requests_from_limits(container: Object) -> Object:
    resources = container.get("resources") or {}
    if not resources.get("limits"):
        return container
    full = _with_requests(resources)
    return container if full is resources else {**container, "resources": full}


def _with_requests(resources: Object) -> Object:
    if resources["limits"].keys() <= (resources.get("requests") or {}).keys():
        return resources
    return {**resources, "requests": {**resources["limits"], **(resources.get("requests") or {})}}


@_rule("core.v1.PodSpec")
def _pod_spec(obj: Object) -> Object:
    account = obj.get("serviceAccountName") or obj.get("serviceAccount")
    if account and not account == obj.get("serviceAccountName") == obj.get("serviceAccount"):
        obj = {**obj, "serviceAccountName": account, "serviceAccount": account}
    if obj.get("hostNetwork"):
        for field in ("containers", "initContainers"):
            if any(c.get("ports") for c in obj.get(field) or ()):
                obj = {**obj, field: [_host_ports(c) for c in obj[field]]}
    return obj


def _host_ports(container: Object) -> Object:
    ports = container.get("ports")
    if not ports:
        return container
    return {
        **container,
        "ports": [p if p.get("hostPort") else {**p, "hostPort": p.get("containerPort", 0)} for p in ports],
    }


@_rule("core.v1.Volume")
def _volume(obj: Object) -> Object:
    return obj if len(obj) > 1 else {**obj, "emptyDir": {}}


@_rule("core.v1.Secret")
def _secret(obj: Object) -> Object:
    plain = obj.get("stringData")
    if plain is None:
        return obj
    data = {**(obj.get("data") or {})}
    for key, text in plain.items():
        data[key] = base64.b64encode(text.encode()).decode()
    rest = {field: value for field, value in obj.items() if field != "stringData"}
    return {**rest, "data": data} if data else rest


@_rule("core.v1.Namespace")
def _namespace(obj: Object) -> Object:
    name = (obj.get("metadata") or {}).get("name")
    if not name or ((obj["metadata"].get("labels") or {}).get("kubernetes.io/metadata.name")) == name:
        return obj
    return evolve(obj, ("metadata", "labels", "kubernetes.io/metadata.name"), name)


@_rule("core.v1.ServiceSpec")
def _service(obj: Object) -> Object:
    kind = obj.get("type") or "ClusterIP"
    if obj.get("sessionAffinity") == "ClientIP":
        if (obj.get("sessionAffinityConfig") or {}).get("clientIP", {}).get("timeoutSeconds") is None:
            obj = {**obj, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}
    elif "sessionAffinityConfig" in obj and obj.get("sessionAffinity") in (None, "", "None"):
        obj = {field: value for field, value in obj.items() if field != "sessionAffinityConfig"}
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and obj.get("externalIPs")):
        obj = _missing(obj, externalTrafficPolicy="Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        obj = _missing(obj, internalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        obj = _missing(obj, allocateLoadBalancerNodePorts=True)
    return obj


@_rule("core.v1.ServicePort")
def _service_port(obj: Object) -> Object:
    if obj.get("targetPort") in (None, 0, ""):
        return {**obj, "targetPort": obj.get("port", 0)}
    return obj


@_rule("core.v1.LimitRangeItem")
def _limit_range_item(obj: Object) -> Object:
    if obj.get("type") != "Container":
        return obj
    default = {**(obj.get("max") or {}), **(obj.get("default") or {})}
    request = {**(obj.get("min") or {}), **default, **(obj.get("defaultRequest") or {})}
    if default:
        obj = {**obj, "default": default}
    return {**obj, "defaultRequest": request} if request else obj


@_rule("core.v1.ReplicationController")
def _replication_controller(obj: Object) -> Object:
    spec = obj.get("spec") or {}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if not labels:
        return obj
    if not spec.get("selector"):
        obj = evolve(obj, ("spec", "selector"), labels)
    if not (obj.get("metadata") or {}).get("labels"):
        obj = evolve(obj, ("metadata", "labels"), labels)
    return obj


@_rule("batch.v1.Job")
def _job(obj: Object) -> Object:
    spec = obj.get("spec") or {}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not (obj.get("metadata") or {}).get("labels"):
        obj = evolve(obj, ("metadata", "labels"), labels)
    added: Object = {}
    if "completions" not in spec and "parallelism" not in spec:
        added["completions"] = 1
    spec = _missing(
        {**spec, **added},
        parallelism=1,
        backoffLimit=_MAX_INT32 if "backoffLimitPerIndex" in spec else 6,
        completionMode="NonIndexed",
        suspend=False,
        manualSelector=False,
        podReplacementPolicy="Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed",
    )
    return {**obj, "spec": spec}


@_rule("apps.v1.DeploymentStrategy", "apps.v1.DaemonSetUpdateStrategy", "apps.v1.StatefulSetUpdateStrategy")
def _strategy(obj: Object) -> Object:
    if obj.get("type") in (None, "", "RollingUpdate") and "rollingUpdate" not in obj:
        return {**obj, "rollingUpdate": {}}
    return obj


@_rule("apps.v1.StatefulSetSpec")
def _stateful_set(obj: Object) -> Object:
    claims = obj.get("volumeClaimTemplates")
    if not claims or all("kind" in claim for claim in claims):
        return obj
    typed = [{"kind": "PersistentVolumeClaim", "apiVersion": "v1", **claim} for claim in claims]
    return {**obj, "volumeClaimTemplates": typed}


@_rule("autoscaling.v2.HorizontalPodAutoscalerSpec")
def _autoscaler(obj: Object) -> Object:
    if obj.get("metrics"):
        return obj
    target = {"type": "Utilization", "averageUtilization": 80}
    return {**obj, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}


_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


@_rule("autoscaling.v2.HorizontalPodAutoscalerBehavior")
def _behavior(obj: Object) -> Object:
    up = {**_UP, **(obj.get("scaleUp") or {})}
    down = {**_DOWN, **(obj.get("scaleDown") or {})}
    return {**obj, "scaleUp": up, "scaleDown": down}


@_rule("networking.v1.NetworkPolicySpec")
def _network_policy(obj: Object) -> Object:
    if obj.get("policyTypes"):
        return obj
    return {**obj, "policyTypes": ["Ingress", "Egress"] if obj.get("egress") else ["Ingress"]}


@_rule("rbac.v1.Subject")
def _subject(obj: Object) -> Object:
    return _missing(obj, apiGroup=_RBAC) if obj.get("kind") in ("User", "Group") else obj


@_rule("apiextensions.v1.CustomResourceDefinitionNames")
def _crd_names(obj: Object) -> Object:
    kind = str(obj.get("kind", ""))
    return _missing(obj, singular=kind.lower(), listKind=f"{kind}List") if kind else obj


@_rule("flowcontrol.v1.LimitResponse")
def _limit_response(obj: Object) -> Object:
    return {**obj, "queuing": {}} if obj.get("type") == "Queue" and "queuing" not in obj else obj


@_rule("resource.v1.ExactDeviceRequest", "resource.v1.DeviceSubRequest")
def _device_request(obj: Object) -> Object:
    counted = obj.get("allocationMode") in (None, "", "ExactCount")
    return {**obj, "count": 1} if counted and not obj.get("count") else obj
