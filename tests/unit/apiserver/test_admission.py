"""The admission plugins, one by one, and what a compromised node may not write."""

from __future__ import annotations

import timeit
from typing import Any

import pytest
from tests.fakes.reader import FakeReader

from k3s.api.errors import ApiError, Forbidden, Invalid, NotFound
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.admission import defaults
from k3s.apiserver.admission.chain import Chain, NotYet
from k3s.apiserver.admission.noderestriction import forbidden_labels
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.identity import User, authenticated
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.aio import at_once
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy

ADMIN = authenticated("admin", "system:masters")
ALICE = authenticated("alice")
NODE = authenticated("system:node:n1", "system:nodes")
CORE = {"Pod", "Node", "ConfigMap", "Secret", "Namespace", "ServiceAccount", "PersistentVolumeClaim", "LimitRange"}


def obj(api_version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Object:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}


def pod(spec: Object | None = None, **metadata: Any) -> Object:
    wanted = {"containers": [{"name": "c", "image": "i"}], **(spec or {})}
    return obj("v1", "Pod", metadata.pop("name", "p"), "a", metadata=metadata, spec=wanted)


ACCOUNT = obj("v1", "ServiceAccount", "default", "a", metadata={"uid": "u"})
SPACE = obj("v1", "Namespace", "a")


class World:
    """A chain over objects."""

    def __init__(self, *objects: Object) -> None:
        self.reader = FakeReader([ACCOUNT, SPACE, *objects])
        node = NodeAuthorizer(self.reader, rbac_bootstrap.node_rules())
        self.authorizer = Authorizer(Rbac(self.reader), node)
        self.chain: Chain = defaults.chain(self.reader, self.authorizer, SystemClock(), SeededEntropy(1))

    def request(
        self,
        operation: str,
        new: Object | None,
        old: Object | None = None,
        user: User = ADMIN,
        subresource: str = "",
        kind: Kind | None = None,
    ) -> AdmissionRequest:
        shown = new or old
        assert shown is not None
        meta = (old or shown)["metadata"]
        kind = kind or builtin(shown["apiVersion"], shown["kind"])
        return AdmissionRequest(
            operation, kind, subresource, meta.get("namespace", ""), meta.get("name", ""), old, new, user
        )

    def create(self, new: Object, user: User = ADMIN, **more: Any) -> Object:
        request = self.request("CREATE", new, user=user, **more)
        admitted = at_once(self.chain.admit(request))
        at_once(self.chain.validate(request.with_object(admitted)))
        self.warnings = request.warnings
        return admitted

    def update(self, old: Object, new: Object, user: User = ADMIN, **more: Any) -> Object:
        request = self.request("UPDATE", new, old, user, **more)
        admitted = at_once(self.chain.admit(request))
        at_once(self.chain.validate(request.with_object(admitted)))
        return admitted

    def delete(self, old: Object, user: User = ADMIN) -> None:
        at_once(self.chain.validate(self.request("DELETE", None, old, user)))


def refusal(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*args, **named)
    return caught.value.message


# Pods


def test_pod_gets_account_token_tolerations_and_priority() -> None:
    """A plain pod leaves admission as upstream's does."""
    before = pod()
    spec = World().create(before)["spec"]
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    assert volume["projected"]["defaultMode"] == 420
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": volume["name"], "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    ]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    assert [t["key"] for t in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert before == pod(), "the request's object was changed"


def test_token_is_not_mounted_twice_or_against_the_wish() -> None:
    """A container with something at the path keeps it; pod before account decides about mounting at all."""
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    own = {"name": "d", "volumeMounts": [{"name": "t", "mountPath": path}]}
    spec = World().create(pod({"containers": [own], "volumes": [{"name": "t", "emptyDir": {}}]}))["spec"]
    assert spec["volumes"] == [{"name": "t", "emptyDir": {}}]
    off = {**ACCOUNT, "automountServiceAccountToken": False, "imagePullSecrets": [{"name": "pull"}]}
    spec = World(off).create(pod())["spec"]
    assert "volumes" not in spec
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert World(off).create(pod({"automountServiceAccountToken": True}))["spec"]["volumes"]
    assert "volumes" not in World().create(pod({"automountServiceAccountToken": False}))["spec"]


def test_missing_accounts() -> None:
    """A missing account is refused; the default one is worth waiting for."""
    text = refusal(World().create, pod({"serviceAccountName": "nope"}))
    assert text == 'pods "p" is forbidden: error looking up service account a/nope: serviceaccount "nope" not found'
    world = World()
    world.reader.drop(builtin("v1", "ServiceAccount"), "a", "default")
    with pytest.raises(NotYet) as caught:
        world.create(pod())
    assert caught.value.awaited[1:] == ("a", "default")


def test_mirror_pods_reference_nothing() -> None:
    """A mirror pod may not name accounts or secrets, and gets no token."""
    mirror = {"annotations": {"kubernetes.io/config.mirror": "h"}}
    assert refusal(World().create, pod({"serviceAccountName": "s"}, **mirror)).endswith(
        "a mirror pod may not reference service accounts"
    )
    secret = {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}
    assert refusal(World().create, pod(secret, **mirror)).endswith("a mirror pod may not reference secrets")
    assert "volumes" not in World().create(pod(**mirror))["spec"]


def priority_class(name: str, value: int, **more: Any) -> Object:
    return obj("scheduling.k8s.io/v1", "PriorityClass", name, value=value, **more)


def test_priorities() -> None:
    """The class gives the number; a default class is used; contradictions are refused."""
    world = World(priority_class("high", 100, preemptionPolicy="Never"), priority_class("std", 5, globalDefault=True))
    high = world.create(pod({"priorityClassName": "high"}))["spec"]
    assert (high["priority"], high["preemptionPolicy"]) == (100, "Never")
    standard = world.create(pod())["spec"]
    assert (standard["priorityClassName"], standard["priority"]) == ("std", 5)
    assert refusal(world.create, pod({"priorityClassName": "x"})).endswith("no PriorityClass with name x was found")
    assert "must not be provided in pod spec; priority admission controller computed 100" in refusal(
        world.create, pod({"priorityClassName": "high", "priority": 1})
    )
    assert refusal(world.create, priority_class("two", 6, globalDefault=True)).endswith(
        "PriorityClass std is already marked as default. Only one default can exist"
    )


def test_tolerations_that_are_there_stay() -> None:
    """A toleration for the key or for everything is not doubled."""
    everything = [{"operator": "Exists"}]
    assert World().create(pod({"tolerations": everything}))["spec"]["tolerations"] == everything
    one = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}]
    keys = [t["key"] for t in World().create(pod({"tolerations": one}))["spec"]["tolerations"]]
    assert keys == ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]


def test_runtime_class() -> None:
    """Overhead and node selector come from the class; a missing one is refused."""
    found = obj(
        "node.k8s.io/v1",
        "RuntimeClass",
        "kata",
        overhead={"podFixed": {"cpu": "1"}},
        scheduling={"nodeSelector": {"kata": "yes"}},
    )
    spec = World(found).create(pod({"runtimeClassName": "kata", "nodeSelector": {"b": "c"}}))["spec"]
    assert spec["overhead"] == {"cpu": "1"}
    assert spec["nodeSelector"] == {"b": "c", "kata": "yes"}
    assert refusal(World().create, pod({"runtimeClassName": "kata"})).endswith(
        'pod rejected: RuntimeClass "kata" not found'
    )
    text = refusal(World(found).create, pod({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}))
    assert "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no" in text


# Limits (texts recorded from upstream)

RANGE = obj(
    "v1",
    "LimitRange",
    "lr",
    "a",
    spec={
        "limits": [
            {
                "type": "Container",
                "min": {"cpu": "100m"},
                "max": {"cpu": "1", "memory": "1Gi"},
                "default": {"cpu": "1", "memory": "1Gi"},
                "defaultRequest": {"cpu": "1", "memory": "1Gi"},
                "maxLimitRequestRatio": {"cpu": "2"},
            },
            {"type": "Pod", "max": {"cpu": "1500m"}},
        ]
    },
)


def containers(*resources: Object) -> Object:
    return {"containers": [{"name": f"c{i}", "image": "i", "resources": found} for i, found in enumerate(resources)]}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            containers({"limits": {"cpu": "2", "memory": "1Mi"}, "requests": {"cpu": "1", "memory": "1Mi"}}),
            "[maximum cpu usage per Container is 1, but limit is 2, "
            "maximum cpu usage per Pod is 1500m, but limit is 2]",
        ),
        (
            containers({"limits": {"cpu": "50m", "memory": "2Gi"}, "requests": {"cpu": "50m", "memory": "2Gi"}}),
            "[minimum cpu usage per Container is 100m, but request is 50m, "
            "maximum memory usage per Container is 1Gi, but limit is 2Gi]",
        ),
        (
            containers({"limits": {"cpu": "900m", "memory": "1Mi"}, "requests": {"cpu": "100m"}}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 9.000000",
        ),
        (
            containers(*[{"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1"}}] * 2),
            "maximum cpu usage per Pod is 1500m, but limit is 2",
        ),
    ],
)
def test_limit_violations(spec: Object, text: str) -> None:
    """Bounds of containers and pods, in upstream's words."""
    assert refusal(World(RANGE).create, pod(spec)) == f'pods "p" is forbidden: {text}'


def test_limit_defaults() -> None:
    """Defaults are filled in, and a note says so."""
    made = World(RANGE).create(pod())
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    )


# Classes and finalizers


def test_defaults_of_claims_and_ingresses() -> None:
    """Default classes: the newest wins; finalizers protect what is in use; new nodes are tainted."""

    def storage(name: str, stamp: str) -> Object:
        marked = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}, "creationTimestamp": stamp}
        return obj("storage.k8s.io/v1", "StorageClass", name, metadata=marked, provisioner="p")

    world = World(storage("old", "2020-01-01T00:00:00Z"), storage("new", "2021-01-01T00:00:00Z"))
    claim = obj("v1", "PersistentVolumeClaim", "c", "a", spec={"resources": {"requests": {"storage": "1Gi"}}})
    made = world.create(claim)
    assert made["spec"]["storageClassName"] == "new"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    empty = {**claim, "spec": {**claim["spec"], "storageClassName": ""}}
    assert world.create(empty)["spec"]["storageClassName"] == ""
    node = world.create(obj("v1", "Node", "n9", spec={}))
    assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    bigger = {**made, "spec": {**made["spec"], "resources": {"requests": {"storage": "2Gi"}}}}
    assert "Only bound persistent volume claims" in refusal(world.update, made, bigger)
    bound = {**made, "status": {"phase": "Bound"}}
    assert "only dynamically provisioned pvc can be resized" in refusal(world.update, bound, bigger)


def test_namespaces_that_stay() -> None:
    """default, kube-system and kube-public are not deleted, not even by an admin."""
    for name in ("default", "kube-system", "kube-public"):
        text = refusal(World().delete, obj("v1", "Namespace", name))
        assert text == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    World().delete(SPACE)


# Nodes

MIRROR_META = {
    "annotations": {"kubernetes.io/config.mirror": "h"},
    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": True}],
}
LIVE_NODE = obj("v1", "Node", "n1", metadata={"uid": "nu", "labels": {"kubernetes.io/hostname": "n1"}}, spec={})


def mirror(spec: Object | None = None, **changes: Any) -> Object:
    return pod({"nodeName": "n1", **(spec or {})}, **{**MIRROR_META, **changes})


OWNER = MIRROR_META["ownerReferences"][0]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (pod({"nodeName": "n1"}), "can only create mirror pods"),
        (mirror({"nodeName": "n2"}), "with spec.nodeName set to itself"),
        (mirror(ownerReferences=[]), "with an owner reference set to itself"),
        (mirror(ownerReferences=[OWNER, OWNER]), "with a single owner reference"),
        (mirror(ownerReferences=[{**OWNER, "name": "n2"}]), "with an owner reference set to itself"),
        (mirror(ownerReferences=[{**OWNER, "controller": False}]), "with a controller owner reference"),
        (mirror(ownerReferences=[{**OWNER, "blockOwnerDeletion": True}]), "must not set blockOwnerDeletion"),
        (mirror(ownerReferences=[{**OWNER, "uid": "x"}]), "UID mismatch"),
        (mirror({"serviceAccountName": "s"}), "service account"),
        (mirror({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), "secrets"),
        (mirror({"volumes": [{"name": "v", "configMap": {"name": "s"}}]}), "configmaps"),
        (mirror({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "s"}}]}), "persistentvolumeclaims"),
        (mirror({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
        (mirror({"volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {}}]}}]}), "other API"),
        (mirror({"resourceClaims": [{"name": "x", "resourceClaimName": "y"}]}), "resourceclaims"),
    ],
)
def test_node_creates_mirror_pods_only(made: Object, why: str) -> None:
    """A node shows its static pods and cannot pull anything to itself by one."""
    world = World(LIVE_NODE, obj("v1", "ServiceAccount", "s", "a"))
    assert why in refusal(world.create, made, NODE)
    world.create(mirror(), NODE)


def test_node_touches_its_own_pods_only() -> None:
    """Status, deletion and eviction of a pod elsewhere are refused; labels do not change through status."""
    world = World()
    own, other = pod({"nodeName": "n1"}, uid="1"), pod({"nodeName": "n2"}, uid="1")
    running = {"status": {"phase": "Running"}}
    world.update(own, {**own, **running}, NODE, subresource="status")
    assert refusal(world.update, other, {**other, **running}, NODE, subresource="status") == (
        'pods "p" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself'
    )
    labelled = {**own, "metadata": {**own["metadata"], "labels": {"a": "b"}}}
    assert "cannot update labels through pod status" in refusal(world.update, own, labelled, NODE, subresource="status")
    assert "can only create and delete mirror pods" in refusal(world.update, own, labelled, NODE)
    assert "only 'status' and 'eviction' are allowed" in refusal(
        world.update, own, labelled, NODE, subresource="ephemeralcontainers"
    )
    world.delete(own, NODE)
    assert "can only delete pods with spec.nodeName set to itself" in refusal(world.delete, other, NODE)


def token_request(**ref: str) -> Object:
    spec = {"boundObjectRef": ref} if ref else {}
    return obj("authentication.k8s.io/v1", "TokenRequest", "default", "a", spec=spec)


def test_node_requests_tokens_for_its_pods_only() -> None:
    """A token needs a pod of this node, by name and uid, and an audience that the pod asks for."""
    projected = {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}]}
    world = World(pod({"nodeName": "n1", **projected}, uid="1"), pod({"nodeName": "n2"}, name="q", uid="2"))
    kind = builtin("v1", "ServiceAccount")

    def ask(spec: Object) -> None:
        world.create(spec, NODE, subresource="token", kind=kind)

    own = token_request(kind="Pod", apiVersion="v1", name="p", uid="1")
    ask(own)
    ask({**own, "spec": {**own["spec"], "audiences": ["vault"]}})
    for bad, why in (
        (token_request(), "node requested token not bound to a pod"),
        (token_request(kind="Secret", apiVersion="v1", name="p", uid="1"), "not bound to a pod"),
        (token_request(kind="Pod", apiVersion="v1", name="p"), "without a uid"),
        (token_request(kind="Pod", apiVersion="v1", name="p", uid="9"), "does not match the UID in record"),
        (token_request(kind="Pod", apiVersion="v1", name="q", uid="2"), "scheduled on a different node"),
        ({**own, "spec": {**own["spec"], "audiences": ["bank"]}}, 'audience "bank" not found in pod spec volume'),
    ):
        assert why in refusal(ask, bad)
    with pytest.raises(NotFound, match='pod "x" not found'):
        ask(token_request(kind="Pod", apiVersion="v1", name="x", uid="1"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}, "is not allowed to modify taints"),
        ({"metadata": {"labels": {"node-role.kubernetes.io/master": ""}}}, "is not allowed to modify labels"),
        ({"metadata": {"labels": {"x.node-restriction.kubernetes.io/y": "1"}}}, "is not allowed to modify labels"),
        ({"metadata": {"ownerReferences": [{"name": "x"}]}}, "is not allowed to modify ownerReferences"),
        ({"metadata": {"labels": {"own": "label", "kubelet.kubernetes.io/x": "1"}}}, ""),
        ({"metadata": {"name": "n2"}}, 'is not allowed to modify node "n2"'),
    ],
)
def test_node_changes_itself_within_bounds(change: Object, why: str) -> None:
    """Taints, reserved labels and owners of a node are not the node's business."""
    old: Object = {**LIVE_NODE, "metadata": {**LIVE_NODE["metadata"], "labels": {}}}
    if "name" in change.get("metadata", {}):
        old = {**old, "metadata": {**old["metadata"], "name": "n2"}}
    new = {**old, **change, "metadata": {**old["metadata"], **change.get("metadata", {})}}
    if why:
        assert why in refusal(World().update, old, new, NODE)
    else:
        World().update(old, new, NODE)


def test_labels_a_kubelet_may_set() -> None:
    """The allow-list of kubelet labels."""
    labels = {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/anything",
        "a.node.kubernetes.io/x",
        "example.com/x",
        "plain",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/other",
        "k8s.io/x",
        "notkubernetes.io/x",
    }
    assert forbidden_labels(labels) == {"node-role.kubernetes.io/control-plane", "kubernetes.io/other", "k8s.io/x"}


def test_node_leases() -> None:
    """A node writes its own lease in its own namespace."""
    own = obj("coordination.k8s.io/v1", "Lease", "n1", "kube-node-lease")
    World().create(own, NODE)
    assert "same name as the requesting node" in refusal(
        World().create, obj("coordination.k8s.io/v1", "Lease", "n2", "kube-node-lease"), NODE
    )
    assert "system namespace" in refusal(World().create, obj("coordination.k8s.io/v1", "Lease", "n1", "a"), NODE)


# Escalation

RBAC = "rbac.authorization.k8s.io/v1"
MANAGER = [
    obj(
        RBAC,
        "Role",
        "mgr",
        "a",
        rules=[
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
        ],
    ),
    obj(
        RBAC,
        "RoleBinding",
        "b",
        "a",
        roleRef={"kind": "Role", "name": "mgr", "apiGroup": "rbac.authorization.k8s.io"},
        subjects=[{"kind": "User", "name": "alice"}],
    ),
]


def role(name: str, *rules: Object, **more: Any) -> Object:
    return obj(RBAC, "Role", name, "a", rules=list(rules), **more)


def ask(resources: str, verbs: str, group: str = "") -> Object:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


def test_nobody_grants_what_he_lacks() -> None:
    """Roles with more than the writer holds are refused, with the list of what is missing."""
    # The verbs escalate and bind come with `*` on roles: take them away.
    manager = {
        **MANAGER[0],
        "rules": [{**MANAGER[0]["rules"][0], "verbs": ["create", "update"]}, MANAGER[0]["rules"][1]],
    }
    world = World(manager, MANAGER[1])
    world.create(role("ok", ask("configmaps", "get")), ALICE)
    assert refusal(world.create, role("bad", ask("secrets", "get"), ask("configmaps", "delete")), ALICE) == (
        'roles.rbac.authorization.k8s.io "bad" is forbidden: user "alice" (groups=["system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["configmaps"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}'
    )
    old = role("ok", ask("configmaps", "get"))
    for worse in (
        ask("*", "*", "*"),
        ask("configmaps", "*"),
        ask("*", "get"),
        {"nonResourceURLs": ["/x"], "verbs": ["get"]},
    ):
        assert "not currently held" in refusal(world.update, old, role("ok", worse), ALICE)
    world.update(
        role("x", ask("secrets", "get")), role("x", ask("secrets", "get"), metadata={"labels": {"l": "v"}}), ALICE
    )
    world.create(role("bad", ask("*", "*", "*")), ADMIN)


def bind(name: str, kind: str, role_name: str) -> Object:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role_name}
    return obj(RBAC, "RoleBinding", name, "a", roleRef=ref, subjects=[{"kind": "User", "name": "bob"}])


def test_bindings_are_checked_too() -> None:
    """A binding hands out its role: the writer must hold all of it, or have the verb bind."""
    manager = {**MANAGER[0], "rules": [{**MANAGER[0]["rules"][0], "verbs": ["create"]}, MANAGER[0]["rules"][1]]}
    big = obj(RBAC, "ClusterRole", "big", rules=[ask("secrets", "get")])
    world = World(manager, MANAGER[1], big, role("small", ask("configmaps", "get")))
    world.create(bind("b1", "Role", "small"), ALICE)
    assert "not currently held" in refusal(world.create, bind("b2", "ClusterRole", "big"), ALICE)
    assert refusal(world.create, bind("b3", "Role", "nope"), ALICE) == (
        'rolebindings.rbac.authorization.k8s.io "nope" not found'
    )
    lift = {**ask("clusterroles", "bind", "rbac.authorization.k8s.io"), "resourceNames": ["big"]}
    world.reader.put({**manager, "rules": [*manager["rules"], lift]})
    world.create(bind("b2", "ClusterRole", "big"), ALICE)


# Pod security (texts recorded from upstream)


def labelled(**labels: str) -> Object:
    named = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
    return obj("v1", "Namespace", "a", metadata={"labels": named})


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"hostNetwork": True, "hostPID": True, "volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
            'host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "h")',
        ),
        (
            {
                "containers": [
                    {
                        "name": "c",
                        "securityContext": {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}},
                        "ports": [{"containerPort": 1, "hostPort": 1}],
                    }
                ]
            },
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in '
            "securityContext.capabilities.add), "
            'hostPort (container "c" uses hostPort 1), '
            'privileged (container "c" must not set securityContext.privileged=true)',
        ),
        (
            {
                "securityContext": {
                    "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
                    "seccompProfile": {"type": "Unconfined"},
                }
            },
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined"), '
            "forbidden sysctls (kernel.msgmax)",
        ),
    ],
)
def test_baseline(spec: Object, text: str) -> None:
    """What the baseline standard refuses."""
    world = World(labelled(enforce="baseline"))
    wanted = {"automountServiceAccountToken": False, **spec}
    assert (
        refusal(world.create, pod(wanted)) == f'pods "p" is forbidden: violates PodSecurity "baseline:latest": {text}'
    )


def test_restricted_warns() -> None:
    """What the restricted standard warns of, at the version that the label names."""
    world = World(labelled(warn="restricted", warn_version="v1.30"))
    world.create(pod({"hostNetwork": True, "automountServiceAccountToken": False}))
    assert world.warnings == [
        'would violate PodSecurity "restricted:v1.30": host namespaces (hostNetwork=true), '
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type '
        'to "RuntimeDefault" or "Localhost")'
    ]


def test_restricted_accepts_a_careful_pod() -> None:
    """A pod that gives up what it does not need passes, with its token volume."""
    careful = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    World(labelled(enforce="restricted")).create(pod(careful))


def test_unknown_level_is_the_strictest() -> None:
    """A level that nobody knows is refused when set, and read as restricted when it is there."""
    with pytest.raises(Invalid, match="must be one of privileged, baseline, restricted"):
        World().create(labelled(enforce="strict"))
    assert "restricted:latest" in refusal(World(labelled(enforce="strict")).create, pod())


# Certificates


def test_signers() -> None:
    """Approving and signing take leave for the signer; a request for system:masters is refused."""
    from k3s.cluster import pki

    request = obj(
        "certificates.k8s.io/v1", "CertificateSigningRequest", "c", spec={"signerName": "example.com/x", "request": ""}
    )
    approved = {**request, "status": {"conditions": [{"type": "Approved"}]}}
    for subresource, verb in (("approval", "approve"), ("status", "sign")):
        text = refusal(World().update, request, approved, ALICE, subresource=subresource)
        assert text.endswith(f'user not permitted to {verb} requests with signerName "example.com/x"')
        World().update(request, approved, ADMIN, subresource=subresource)
    import base64

    pem = pki.new_request(pki.new_key(), pki.Subject("me", ("system:masters",)))
    spec = {"signerName": "kubernetes.io/kube-apiserver-client", "request": base64.b64encode(pem).decode()}
    assert "with system:masters group is not allowed" in refusal(World().create, {**request, "spec": spec}, ALICE)


@pytest.mark.slow
def test_cost_without_plugins() -> None:
    """A ConfigMap passes the chain in under 5 µs (doubled for a busy machine), though five plugins look for rules."""
    world = World()
    request = world.request("CREATE", obj("v1", "ConfigMap", "c", "a"))

    def through() -> None:
        at_once(world.chain.admit(request))
        at_once(world.chain.validate(request))

    cost = min(timeit.repeat(through, number=5000, repeat=5)) / 5000
    print(f"{cost * 1e6:.2f} µs")
    assert cost < 10e-6
    assert issubclass(NotYet, Forbidden)
