"""What objects use of a quota, which quotas count them, what is refused: as upstream's evaluators say."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import quota
from k3s.api.kinds import builtin
from k3s.api.object import Object

POD = builtin("v1", "Pod")
CLAIM = builtin("v1", "PersistentVolumeClaim")
SERVICE = builtin("v1", "Service")
CONFIG_MAP = builtin("v1", "ConfigMap")
DEPLOYMENT = builtin("apps/v1", "Deployment")


def container(name: str = "c", requests: Object | None = None, limits: Object | None = None, **more: Any) -> Object:
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def pod(*containers: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers) or [container()], **spec}}


def shown(usage: quota.Usage) -> dict[str, str]:
    return {name: str(amount) for name, amount in usage.items()}


def of(hard: Object, used: Object | None = None, **spec: Any) -> Object:
    zero = dict.fromkeys(hard, "0") | (used or {})
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": zero}}


def refusal(subject: Object, new: Object, kind: Any = POD, old: Object | None = None, subresource: str = "") -> str:
    with pytest.raises(quota.Exceeded) as caught:
        quota.charged([subject], quota.Write(kind, subresource, old, new, 0))
    return str(caught.value)


def used(subject: Object, new: Object, kind: Any = POD, old: Object | None = None) -> Object:
    (after,) = quota.charged([subject], quota.Write(kind, "", old, new, 0))
    found: Object = after["status"]["used"]
    return found


def test_a_pod_uses_its_containers_sidecars_init_peak_and_overhead() -> None:
    """Requests count under three names, limits under one; huge pages and devices as requests."""
    main = container(requests={"cpu": "100m", "example.com/gpu": "1", "hugepages-2Mi": "4Mi"}, limits={"cpu": "1"})
    init = [container("s", {"cpu": "50m"}, restartPolicy="Always"), container("i", {"cpu": "300m", "memory": "1Gi"})]
    found = shown(quota.usage(POD, pod(main, initContainers=init, overhead={"cpu": "10m"}), 0))
    assert found == {
        "count/pods": "1",
        "pods": "1",
        "cpu": "360m",
        "requests.cpu": "360m",
        "limits.cpu": "1010m",
        "memory": "1Gi",
        "requests.memory": "1Gi",
        "hugepages-2Mi": "4Mi",
        "requests.hugepages-2Mi": "4Mi",
        "requests.example.com/gpu": "1",
    }


@pytest.mark.parametrize(
    ("status", "meta", "ended"),
    [
        ({"phase": "Succeeded"}, {}, True),
        ({"phase": "Running"}, {}, False),
        ({}, {"deletionTimestamp": "1970-01-01T00:00:10Z", "deletionGracePeriodSeconds": 30}, False),
        ({}, {"deletionTimestamp": "1970-01-01T00:00:10Z", "deletionGracePeriodSeconds": 5}, True),
    ],
)
def test_an_ended_pod_is_only_an_object(status: Object, meta: Object, ended: bool) -> None:
    """A pod that ended, or whose grace period is over at 20 s, frees everything but count/pods."""
    subject = {**pod(), "status": status, "metadata": {"name": "p", **meta}}
    assert ("pods" not in quota.usage(POD, subject, 20.0)) is ended


def test_services_count_ports_by_type() -> None:
    """Node ports count as asked for, explicit ones alone when a load balancer allocates none."""
    ports = [{"port": 1}, {"port": 2, "nodePort": 30000}]
    found = [
        shown(quota.usage(SERVICE, {"spec": {"ports": ports, **spec}}, 0))
        for spec in (
            {"type": "ClusterIP"},
            {"type": "NodePort"},
            {"type": "LoadBalancer"},
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
        )
    ]
    assert [f["services.nodeports"] for f in found] == ["0", "2", "2", "1"]
    assert [f["services.loadbalancers"] for f in found] == ["0", "0", "1", "1"]


def test_claims_count_by_class_and_by_what_they_were_given() -> None:
    """A class has names of its own; a fraction of a byte is rounded up, an allocation above the request counts."""
    claim = {"metadata": {}, "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}
    found = shown(quota.usage(CLAIM, {**claim, "status": {"allocatedResources": {"storage": "2Gi"}}}, 0))
    assert found["requests.storage"] == found["gold.storageclass.storage.k8s.io/requests.storage"] == "2Gi"
    assert found["gold.storageclass.storage.k8s.io/persistentvolumeclaims"] == "1"
    odd = {"metadata": {}, "spec": {"resources": {"requests": {"storage": "1500m"}}}}
    assert shown(quota.usage(CLAIM, odd, 0))["requests.storage"] == "2"


@pytest.mark.parametrize(
    ("scopes", "spec", "counted"),
    [
        ([{"scopeName": "Terminating", "operator": "Exists"}], {"activeDeadlineSeconds": 0}, True),
        ([{"scopeName": "Terminating", "operator": "Exists"}], {}, False),
        ([{"scopeName": "NotTerminating", "operator": "Exists"}], {}, True),
        ([{"scopeName": "BestEffort", "operator": "Exists"}], {}, True),
        ([{"scopeName": "NotBestEffort", "operator": "Exists"}], {}, False),
        ([{"scopeName": "PriorityClass", "operator": "Exists"}], {}, False),
        ([{"scopeName": "PriorityClass", "operator": "DoesNotExist"}], {}, True),
        ([{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}], {"priorityClassName": "a"}, True),
        ([{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}], {"priorityClassName": "b"}, False),
        ([{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["a"]}], {"priorityClassName": "b"}, True),
        ([{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["a"]}], {}, True),
        ([{"scopeName": "CrossNamespacePodAffinity", "operator": "Exists"}], {}, False),
        (
            [{"scopeName": "CrossNamespacePodAffinity", "operator": "Exists"}],
            {
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaceSelector": {}}]}
                }
            },
            True,
        ),
        (
            [{"scopeName": "BestEffort", "operator": "Exists"}, {"scopeName": "Terminating", "operator": "Exists"}],
            {},
            False,
        ),
    ],
)
def test_scopes(scopes: list[Object], spec: Object, counted: bool) -> None:
    """All scopes of a quota have to fit a pod."""
    subject = of({"pods": "5"}, scopeSelector={"matchExpressions": scopes})
    assert used(subject, pod(**spec)) == {"pods": "1" if counted else "0"}


def test_attribute_classes_are_scopes_of_claims() -> None:
    """The class asked for, the one in use and the one on the way all count."""
    scope = {"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["fast"]}]}
    subject = of({"persistentvolumeclaims": "5"}, scopeSelector=scope)
    claim = {"metadata": {}, "spec": {"volumeAttributesClassName": "slow"}}
    assert used(subject, claim, CLAIM) == {"persistentvolumeclaims": "0"}
    moving = {**claim, "status": {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "fast"}}}
    assert used(subject, moving, CLAIM) == {"persistentvolumeclaims": "1"}


def test_texts_of_refusals() -> None:
    """Names are in order; only what is exceeded is told; a missing use is unknown."""
    hard = {"requests.cpu": "1", "limits.memory": "1Gi", "pods": "1"}
    assert refusal(of(hard), pod()) == "failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    big = pod(container(requests={"cpu": "2"}, limits={"memory": "1Gi"}))
    assert refusal(of(hard), big) == (
        "exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1"
    )
    unknown = of({"pods": "1", "count/pods": "2"})
    unknown["status"]["used"] = {"pods": "0"}
    assert refusal(unknown, pod()) == "status unknown for quota: q, resources: count/pods,pods"
    assert used(of({"count/deployments.apps": "1"}), {"metadata": {}}, DEPLOYMENT) == {"count/deployments.apps": "1"}
    assert used(of({"configmaps": "1"}), {"metadata": {}}, CONFIG_MAP) == {"configmaps": "1"}
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    whole = pod(container(), resources=resources)
    assert used(of(hard), whole) == {"requests.cpu": "1", "limits.memory": "1Gi", "pods": "1"}


def test_an_update_costs_its_difference() -> None:
    """More is charged, less is left to the controller; what enters a scope is charged whole."""
    hard = {"services.nodeports": "2", "services": "1"}
    plain = {"spec": {"type": "ClusterIP", "ports": [{"port": 1}]}}
    open_ = {"spec": {"type": "NodePort", "ports": [{"port": 1}]}}
    start = of(hard, {"services": "1"})
    assert used(start, open_, SERVICE, plain) == {"services.nodeports": "1", "services": "1"}
    assert used(of(hard, {"services": "1", "services.nodeports": "1"}), plain, SERVICE, open_) == {
        "services.nodeports": "1",
        "services": "1",
    }
    many = {"spec": {"type": "NodePort", "ports": [{"port": n} for n in range(3)]}}
    assert refusal(start, many, SERVICE, plain) == (
        "exceeded quota: q, requested: services.nodeports=3, used: services.nodeports=0, limited: services.nodeports=2"
    )
    grown = {"metadata": {}, "spec": {"resources": {"requests": {"storage": "3Gi"}}}}
    small = {"metadata": {}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    tight = of({"requests.storage": "2Gi"}, {"requests.storage": "1Gi"})
    assert "requested: requests.storage=2Gi" in refusal(tight, grown, CLAIM, small)
    after = quota.charged([tight], quota.Write(CLAIM, "status", small, grown, 0))
    assert after[0]["status"]["used"] == {"requests.storage": "3Gi"}, "a status is told, not refused"


def test_total_has_an_amount_for_every_limit() -> None:
    """What nothing uses is zero; objects out of scope do not count."""
    subject = of({"pods": "9", "secrets": "1", "requests.cpu": "1"}, scopes=["NotBestEffort"])
    pods = [pod(container(requests={"cpu": "100m"})), pod(container(requests={"cpu": "200m"})), pod()]
    found = quota.total(subject, [(POD, pods), (builtin("v1", "Secret"), [{"metadata": {}}])], 0)
    assert shown(found) == {"pods": "2", "secrets": "0", "requests.cpu": "300m"}
