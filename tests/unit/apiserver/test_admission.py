"""The admission plugins, one by one."""

from __future__ import annotations

import timeit
from typing import Any

import pytest
from tests.unit.apiserver.admission_world import ACCOUNT, ADMIN, ALICE, SPACE, World, at_once, obj, pod, refusal

from k3s.api.errors import Forbidden
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.admission.chain import NotYet

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
    more = role("x", ask("secrets", "get"))
    world.update(more, role("x", ask("secrets", "get"), metadata={"finalizers": ["a/b"]}), ALICE)
    # By labels, roles are gathered into others.
    labelled = role("x", ask("secrets", "get"), metadata={"labels": {"l": "v"}})
    assert "not currently held" in refusal(world.update, more, labelled, ALICE)
    world.create(role("bad", ask("*", "*", "*")), ADMIN)
    # The right to escalate some role by name makes no new one.
    lift = {**ask("roles", "escalate", "rbac.authorization.k8s.io"), "resourceNames": ["x", "y"]}
    world.reader.put({**manager, "rules": [*manager["rules"], lift]})
    world.update(more, labelled, ALICE)
    assert "not currently held" in refusal(world.create, role("y", ask("secrets", "get")), ALICE)
    # What could not be looked up is told.
    world.reader.put(bind("b", "Role", "gone") | {"subjects": MANAGER[1]["subjects"]})
    world.reader.put(obj(RBAC, "RoleBinding", "c", "a", **{k: MANAGER[1][k] for k in ("roleRef", "subjects")}))
    assert refusal(world.create, role("bad", ask("secrets", "get")), ALICE).endswith(
        'Verbs:["get"]}; resolution errors: [role.rbac.authorization.k8s.io "gone" not found]'
    )


def test_gathering_roles_takes_every_right() -> None:
    """An aggregationRule may gather anything: to set one, to change a role that has one, and to take one away."""
    held = ask("clusterroles", "create update", "rbac.authorization.k8s.io")
    mine = obj(RBAC, "ClusterRole", "mine", rules=[held])
    bound = obj(RBAC, "ClusterRoleBinding", "mine", roleRef=bind("", "ClusterRole", "mine")["roleRef"])
    bound["subjects"] = MANAGER[1]["subjects"]
    world = World(mine, bound)
    plain = obj(RBAC, "ClusterRole", "all", rules=[])
    gathering = {**plain, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    why = "must have cluster-admin privileges to use the aggregationRule"
    assert why in refusal(world.create, gathering, ALICE)
    for old, new in ((plain, gathering), (gathering, plain)):
        assert why in refusal(world.update, old, new, ALICE)
        world.update(old, new, ADMIN)
    world.create(plain, ALICE)


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
    """A ConfigMap passes the chain for what twenty calls of a coroutine that does nothing cost, 6 µs here, though
    a dozen plugins could have something to say."""
    world = World()
    request = world.request("CREATE", obj("v1", "ConfigMap", "c", "a"))

    async def nothing() -> None:
        return None

    def through() -> None:
        at_once(world.chain.admit(request))
        at_once(world.chain.validate(request))

    def yardstick() -> None:
        for _ in range(20):
            at_once(nothing())

    # In turn, so that a busy machine slows both.
    pairs = [(timeit.timeit(through, number=1000), timeit.timeit(yardstick, number=1000)) for _ in range(15)]
    ratio = min(cost for cost, _ in pairs) / min(cost for _, cost in pairs)
    print(f"{min(cost for cost, _ in pairs) * 1e3:.2f} µs, {ratio:.2f} of the yardstick")
    assert ratio < 1
    assert issubclass(NotYet, Forbidden)
