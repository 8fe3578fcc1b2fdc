"""Warnings: what is allowed but deserves one."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import kinds
from k3s.api.kinds import builtin
from k3s.api.validation.advice import advise


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec}}


def _template(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "d"}, "spec": {"template": {"metadata": {}, "spec": spec}}}


POD, DEPLOYMENT = builtin("v1", "Pod"), builtin("apps/v1", "Deployment")
ARCH = {"beta.kubernetes.io/arch": "amd64"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"nodeSelector": ARCH}, "spec.nodeSelector[beta.kubernetes.io/arch]"),
        ({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "r", "rbd": {}}]}, "spec.volumes[1].rbd"),
        ({"volumes": [{"name": "s", "storageos": {}}]}, "spec.volumes[0].storageOS"),
        ({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}, "spec.hostAliases[1].ip"),
        ({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "spec.imagePullSecrets[1].name"),
        ({"imagePullSecrets": [{}]}, "spec.imagePullSecrets[0].name"),
        ({"topologySpreadConstraints": [{"topologyKey": "z"}]}, "spec.topologySpreadConstraints[0].labelSelector"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds"),
        ({"overhead": {"memory": "1m"}}, "spec.overhead[memory]"),
    ],
)
def test_pods_and_templates_are_told_of_the_same_fields(spec: dict[str, Any], field: str) -> None:
    """One rule for a pod and for a template, whose fields are found further down."""
    assert [text.partition(": ")[0] for text in advise(POD, _pod(**spec))] == [field]
    assert [text.partition(": ")[0] for text in advise(DEPLOYMENT, _template(**spec))] == [f"spec.template.{field}"]


def test_containers_are_told_of_what_they_define_twice() -> None:
    """Variables and ports; a variable that builds on its own earlier value is fine."""
    container = {
        "name": "c",
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}],
    }
    assert [text.partition(": ")[0] for text in advise(POD, _pod(containers=[container]))] == [
        "spec.containers[0].env[1]",
        "spec.containers[0].ports[1]",
    ]
    extended = {"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A):2"}]}
    assert advise(POD, _pod(containers=[extended])) == []


def test_bytes_come_whole() -> None:
    """Memory and storage in fractions of a byte; processors are no bytes."""
    resources = {
        "limits": {"memory": "1500m", "cpu": "1500m"},
        "requests": {"memory": "0.5", "ephemeral-storage": "1Gi"},
    }
    container = {"name": "c", "resources": resources}
    assert [text.partition(": ")[0] for text in advise(POD, _pod(containers=[container]))] == [
        "spec.containers[0].resources.limits[memory]",
        "spec.containers[0].resources.requests[memory]",
    ]


# Ports of two containers, and what is said of the second.
_PORTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "duplicate port definition with spec.containers[0].ports[0]"),
    ({"hostPort": 1}, {}, "overlapping port definition with spec.containers[0].ports[0]"),
    (
        {"hostPort": 1, "hostIP": "1.1.1.1"},
        {"hostPort": 1},
        "dangerously ambiguous port definition with spec.containers[0].ports[0]",
    ),
    (
        {"containerPort": 81},
        {"hostIP": "1.1.1.1"},
        "hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.1.1.1}",
    ),
]


@pytest.mark.parametrize(("first", "second", "text"), _PORTS)
def test_ports_that_get_in_each_others_way(first: dict[str, Any], second: dict[str, Any], text: str) -> None:
    """Also those of different containers; not the same number with different protocols."""
    ports = [{"containerPort": 80, "protocol": "TCP", **more} for more in (first, second)]
    pod = _pod(containers=[{"name": "a", "ports": ports[:1]}, {"name": "b", "ports": ports[1:]}])
    assert advise(POD, pod) == [f"spec.containers[1].ports[0]: {text}"]
    ports[1] = {**ports[1], "protocol": "UDP", "hostIP": ""}
    assert not advise(POD, pod | {"spec": {"containers": [{"name": "a", "ports": ports}]}})


def test_only_what_changed_is_told_of() -> None:
    """A change of a pod warns of nothing but addresses of its status."""
    pod = _pod(nodeSelector=ARCH)
    assert advise(POD, {**pod, "metadata": {"name": "p", "labels": {"a": "b"}}}, pod) == []
    assert advise(POD, pod, _pod()) == []
    told = {**pod, "status": {"podIPs": [{"ip": "2001:DB8::1"}], "hostIPs": [{"ip": "10.0.0.1"}]}}
    (warning,) = advise(POD, told, pod)
    assert warning.startswith('status.podIPs[0].ip: IPv6 address "2001:DB8::1" should be')
    assert advise(POD, {**told, "metadata": {"name": "p", "labels": {}}}, told) == []


def test_names_that_are_no_labels() -> None:
    """What is made from the name of a pod or of a deployment is a DNS label."""
    assert "the Pod's hostname" in advise(POD, {**_pod(), "metadata": {"name": "a.b"}})[0]
    assert "Pod names and hostnames" in advise(DEPLOYMENT, {**_template(), "metadata": {"name": "a.b"}})[0]


@pytest.mark.parametrize(
    ("kind", "obj", "word"),
    [
        (("v1", "Service"), {"spec": {"type": "ClusterIP", "externalName": "a.b"}}, "spec.externalName is ignored"),
        (("v1", "Service"), {"spec": {"clusterIP": "None", "externalIPs": ["1.1.1.1"]}}, "spec.externalIPs is ignored"),
        (
            ("v1", "Service"),
            {"spec": {"type": "ExternalName", "externalName": "a", "externalIPs": ["1.1.1.1"]}},
            'spec.externalIPs is ignored when spec.type is "ExternalName"',
        ),
        (
            ("v1", "Service"),
            {"spec": {"externalIPs": ["fd00::0"]}},
            'spec.externalIPs[0]: IPv6 address "fd00::0" should be in RFC 5952 canonical format ("fd00::")',
        ),
        (
            ("v1", "Service"),
            {"spec": {"loadBalancerSourceRanges": ["10.0.0.1/8"]}},
            'spec.loadBalancerSourceRanges[0]: CIDR value "10.0.0.1/8" is ambiguous in this context '
            '(should be "10.0.0.0/8" or "10.0.0.1/32"?)',
        ),
        (("apps/v1", "StatefulSet"), {"spec": {"revisionHistoryLimit": -1}}, "spec.revisionHistoryLimit: a negative"),
        (
            ("batch/v1", "Job"),
            {"spec": {"completionMode": "Indexed", "completions": 100001, "parallelism": 10001}},
            "spec: In Indexed Jobs with",
        ),
        (("v1", "PersistentVolume"), {"spec": {"persistentVolumeReclaimPolicy": "Recycle"}}, "Recycle"),
        (("v1", "PersistentVolume"), {"spec": {"glusterfs": {}}}, "spec.glusterfs: deprecated"),
        (("v1", "PersistentVolumeClaim"), {"spec": {"resources": {"requests": {"storage": "1m"}}}}, "[storage]"),
        (("storage.k8s.io/v1", "CSIDriver"), {"spec": {"tokenRequests": [{}]}}, "serviceAccountTokenInSecrets"),
    ],
)
def test_other_kinds(kind: tuple[str, str], obj: dict[str, Any], word: str) -> None:
    """One warning each, and none for the same kind without the field."""
    (text,) = advise(builtin(*kind), {"metadata": {"name": "x"}, **obj})
    assert word in text
    assert advise(builtin(*kind), {"metadata": {"name": "x"}, "spec": {}}) == []


def test_finalizers_of_custom_objects_should_have_a_domain() -> None:
    """Only new ones are told of, and no standard one."""
    kind = kinds.make("g.io", "v1", "Thing", "things", namespaced=True, custom=True)
    old = {"metadata": {"name": "x", "finalizers": ["old"]}}
    new = {"metadata": {"name": "x", "finalizers": ["orphan", "old", "b", "g.io/a", "a"]}}
    assert [text.partition(": prefer")[0] for text in advise(kind, new, old)] == [
        'metadata.finalizers: "a"',
        'metadata.finalizers: "b"',
    ]
    assert len(advise(kind, new)) == 3
    assert not advise(POD, {**_pod(), "metadata": {"name": "p", "finalizers": ["a"]}})
