"""Who may do what: RBAC, the node rules, refusals in upstream's words, and attempts to get more than one has."""

from __future__ import annotations

import timeit

import pytest
from tests.fakes.reader import FakeReader

from k3s.api.errors import Forbidden
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.authz import Attributes, Authorizer, Decision
from k3s.apiserver.identity import User, authenticated
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import ROLE_BINDING, Rbac

RBAC = "rbac.authorization.k8s.io/v1"
ALICE = authenticated("alice")
BOB = authenticated("bob", "devs")
NODE = authenticated("system:node:n1", "system:nodes")


def role(name: str, namespace: str, *rules: Object) -> Object:
    kind, meta = ("Role", {"name": name, "namespace": namespace}) if namespace else ("ClusterRole", {"name": name})
    return {"apiVersion": RBAC, "kind": kind, "metadata": meta, "rules": list(rules)}


def binding(name: str, namespace: str, role_kind: str, role_name: str, *subjects: Object) -> Object:
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role_name}
    return {"apiVersion": RBAC, "kind": kind, "metadata": meta, "roleRef": ref, "subjects": list(subjects)}


def rule(groups: str, resources: str, verbs: str, *names: str) -> Object:
    made: Object = {"apiGroups": groups.split(","), "resources": resources.split(","), "verbs": verbs.split(",")}
    return {**made, "resourceNames": list(names)} if names else made


USER_ALICE = {"kind": "User", "name": "alice"}
DEVS = {"kind": "Group", "name": "devs"}


def authorizer(*objects: Object) -> Authorizer:
    reader = FakeReader(objects)
    return Authorizer(Rbac(reader), NodeAuthorizer(reader, rbac_bootstrap.node_rules()))


def cluster() -> Authorizer:
    """An authorizer over the bootstrap roles of a new cluster."""
    return authorizer(*(obj for _, obj in rbac_bootstrap.objects()))


def asks(user: User, verb: str, resource: str, namespace: str = "", name: str = "", **more: str) -> Attributes:
    plural, _, subresource = resource.partition("/")
    return Attributes(
        user, verb, more.get("group", ""), "v1", plural, subresource, namespace, name, fields=more.get("fields", "")
    )


def test_role_opens_its_namespace_only() -> None:
    """A role in one namespace opens nothing in another and nothing cluster-wide."""
    chief = authorizer(role("r", "a", rule("", "configmaps", "get,list")), binding("b", "a", "Role", "r", USER_ALICE))
    assert chief.authorize(asks(ALICE, "get", "configmaps", "a", "x")) == Decision(
        True,
        'RBAC: allowed by RoleBinding "b/a" of Role "r" to User "alice"',
    )
    for asked in (
        asks(ALICE, "get", "configmaps", "b", "x"),
        asks(ALICE, "list", "configmaps"),
        asks(ALICE, "watch", "configmaps", "a"),
        asks(ALICE, "get", "secrets", "a", "x"),
        asks(ALICE, "get", "configmaps/status", "a", "x"),
        asks(ALICE, "get", "configmaps", "a", "x", group="apps"),
        asks(BOB, "get", "configmaps", "a", "x"),
        asks(User("ALICE"), "get", "configmaps", "a", "x"),
    ):
        assert not chief.authorize(asked).allowed, asked


@pytest.mark.parametrize(
    ("given", "asked", "allowed"),
    [
        (rule("", "*", "get"), asks(BOB, "get", "pods", "a", "x"), True),
        (rule("", "*", "get"), asks(BOB, "get", "pods/log", "a", "x"), True),
        (rule("", "pods", "get"), asks(BOB, "get", "pods/log", "a", "x"), False),
        (rule("", "pods/*", "get"), asks(BOB, "get", "pods/log", "a", "x"), False),
        (rule("", "*/log", "get"), asks(BOB, "get", "pods/log", "a", "x"), True),
        (rule("", "*/log", "get"), asks(BOB, "get", "pods", "a", "x"), False),
        (rule("*", "pods", "*"), asks(BOB, "explode", "pods", "a", group="any"), True),
        (rule("", "pods", "get", "x"), asks(BOB, "get", "pods", "a", "x"), True),
        (rule("", "pods", "get", "x"), asks(BOB, "get", "pods", "a", "y"), False),
        (rule("", "pods", "list", "x"), asks(BOB, "list", "pods", "a"), False),
        (rule("", "pods", "create", "x"), asks(BOB, "create", "pods", "a"), False),
        (rule("", "pods", ""), asks(BOB, "get", "pods", "a", "x"), False),
        ({"resources": ["pods"], "verbs": ["get"]}, asks(BOB, "get", "pods", "a", "x"), False),
        ({"verbs": ["*"], "apiGroups": ["*"]}, asks(BOB, "get", "pods", "a", "x"), False),
    ],
)
def test_rule_matching(given: Object, asked: Attributes, allowed: bool) -> None:
    """Wildcards, subresources and names of rules, one by one."""
    chief = authorizer(role("r", "", given), binding("b", "", "ClusterRole", "r", DEVS))
    assert chief.authorize(asked).allowed is allowed


def test_answers_for_one_name_are_not_given_for_another() -> None:
    """What is remembered of a user with rules for some names holds for these names only, by each way to the rule."""
    for resources in ("pods", "*"):
        given = role("r", "", rule("", resources, "get", "x")), role("s", "a", rule("", "secrets", "get"))
        bound = binding("b", "", "ClusterRole", "r", DEVS), binding("c", "a", "Role", "s", DEVS)
        chief = authorizer(*given, *bound)
        for name, allowed in (("x", True), ("y", False), ("x", True), ("", False)):
            assert chief.authorize(asks(BOB, "get", "pods", "a", name)).allowed is allowed
        assert all(chief.authorize(asks(BOB, "get", "secrets", "a", name)).allowed for name in "xy")
        assert not chief.authorize(asks(BOB, "get", "secrets", "b", "y")).allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/metrics", "/metrics", True),
        ("/metrics", "/metrics/x", False),
        ("/metrics/*", "/metrics/x", True),
        ("/metrics*", "/metricsx", True),
        ("*", "/anything", True),
        ("/m*s", "/metrics", False),
    ],
)
def test_path_matching(url: str, path: str, allowed: bool) -> None:
    """A pattern for paths may end in a star, nothing else."""
    paths = {"nonResourceURLs": [url], "verbs": ["get"]}
    chief = authorizer(role("r", "", paths), binding("b", "", "ClusterRole", "r", DEVS))
    assert chief.authorize(Attributes(BOB, "get", path=path, is_resource=False)).allowed is allowed
    assert not chief.authorize(Attributes(BOB, "post", path=path, is_resource=False)).allowed


def test_paths_need_a_cluster_binding() -> None:
    """A path is no part of a namespace: a role binding does not open it."""
    paths = {"nonResourceURLs": ["*"], "verbs": ["*"]}
    chief = authorizer(role("r", "", paths), binding("b", "a", "ClusterRole", "r", DEVS))
    asked = Attributes(BOB, "get", path="/metrics", is_resource=False, namespace="a")
    assert not chief.authorize(asked).allowed


def test_answers_follow_changes() -> None:
    """A binding that is added or removed counts at once, remembered answers or not."""
    reader = FakeReader([role("r", "a", rule("", "pods", "get"))])
    chief = Authorizer(Rbac(reader))
    asked = asks(ALICE, "get", "pods", "a", "x")
    assert not chief.authorize(asked).allowed
    reader.put(binding("b", "a", "Role", "r", USER_ALICE))
    assert chief.authorize(asked).allowed
    reader.put(role("r", "a", rule("", "pods", "list")))
    assert not chief.authorize(asked).allowed
    reader.put(role("r", "a", rule("", "pods", "get")))
    reader.drop(ROLE_BINDING, "a", "b")
    assert not chief.authorize(asked).allowed


def test_service_account_subjects() -> None:
    """A service account is bound by namespace and name; a user cannot be mistaken for it."""
    subject = {"kind": "ServiceAccount", "name": "s"}
    chief = authorizer(role("r", "a", rule("", "pods", "get")), binding("b", "a", "Role", "r", subject))
    ours = User("system:serviceaccount:a:s", ("system:serviceaccounts",))
    assert chief.authorize(asks(ours, "get", "pods", "a", "x")).allowed
    for name in ("s", "system:serviceaccount:b:s", "system:serviceaccount:a:s:x", "system:serviceaccount:a:"):
        assert not chief.authorize(asks(User(name), "get", "pods", "a", "x")).allowed, name


def test_missing_role_is_told() -> None:
    """A binding to a role that is not there opens nothing and says so."""
    chief = authorizer(binding("c", "a", "ClusterRole", "nope", {"kind": "User", "name": "bob"}))
    with pytest.raises(Forbidden) as caught:
        chief.demand(asks(BOB, "get", "configmaps", "a", "x"))
    assert caught.value.message == (
        'configmaps "x" is forbidden: User "bob" cannot get resource "configmaps" in API group "" '
        'in the namespace "a": RBAC: clusterrole.rbac.authorization.k8s.io "nope" not found'
    )


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            asks(ALICE, "list", "pods", "x"),
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "x"',
        ),
        (
            asks(ALICE, "update", "deployments/scale", "x", "d", group="apps"),
            'deployments.apps "d" is forbidden: User "alice" cannot update resource "deployments/scale" '
            'in API group "apps" in the namespace "x"',
        ),
        (
            asks(ALICE, "get", "nodes", "", "n"),
            'nodes "n" is forbidden: User "alice" cannot get resource "nodes" in API group "" at the cluster scope',
        ),
        (
            Attributes(ALICE, "get", path="/metrics", is_resource=False),
            'forbidden: User "alice" cannot get path "/metrics"',
        ),
    ],
)
def test_refusals_as_upstream(asked: Attributes, text: str) -> None:
    """The words of a refusal."""
    with pytest.raises(Forbidden) as caught:
        cluster().demand(asked)
    assert caught.value.message == text


def test_bootstrap_roles() -> None:
    """What a new cluster lets everybody, nobody and its own components do."""
    chief = cluster()
    admin = authenticated("system:admin", "system:masters")
    assert chief.authorize(asks(admin, "anything", "at", "all")).allowed
    anonymous = User("system:anonymous", ("system:unauthenticated",))
    for path, allowed in (("/livez", True), ("/version", True), ("/api", False), ("/metrics", False)):
        assert chief.authorize(Attributes(anonymous, "get", path=path, is_resource=False)).allowed is allowed, path
    assert chief.authorize(Attributes(ALICE, "get", path="/apis", is_resource=False)).allowed
    scheduler = authenticated("system:kube-scheduler")
    assert chief.authorize(asks(scheduler, "create", "pods/binding", "x", "p")).allowed
    assert not chief.authorize(asks(scheduler, "get", "secrets", "x", "s")).allowed
    apiserver = authenticated("kube-apiserver")
    assert chief.authorize(asks(apiserver, "get", "nodes/log", "", "n")).allowed
    rules, errors, incomplete = chief.rules_for(ALICE, "default")
    assert not incomplete
    assert chief.rules_for(NODE, "default")[1:] == (["node authorizer does not support user rule resolution"], True)
    assert not errors
    assert rbac_bootstrap.objects()[0][1]["metadata"]["labels"]
    assert any("selfsubjectreviews" in found.get("resources", ()) for found in rules)


def test_aggregated_roles_are_filled_at_start() -> None:
    """admin, edit and view hold the rules of the roles that they select from the first moment."""
    by_name = {obj["metadata"]["name"]: obj for kind, obj in rbac_bootstrap.objects() if kind.kind == "ClusterRole"}
    for name in ("admin", "edit", "view"):
        assert len(by_name[name]["rules"]) > 5, name


def test_bootstrap_is_reconciled() -> None:
    """A start creates what is missing, adds lost rules, keeps added ones, and leaves what says autoupdate=false."""
    reader = FakeReader(obj for _, obj in rbac_bootstrap.objects())
    assert rbac_bootstrap.changes(reader) == []
    view = next(obj for _, obj in rbac_bootstrap.objects() if obj["metadata"]["name"] == "system:node")
    own = rule("", "unicorns", "get")
    reader.put({**view, "rules": [own, *view["rules"][1:]]})
    (change,) = rbac_bootstrap.changes(reader)
    assert change.action == "update"
    assert own in change.obj["rules"]
    assert len(change.obj["rules"]) == len(view["rules"]) + 1
    meta = {**view["metadata"], "annotations": {rbac_bootstrap.AUTOUPDATE: "false"}}
    reader.put({**view, "metadata": meta, "rules": []})
    assert rbac_bootstrap.changes(reader) == []


# Nodes


def pod(name: str, node: str, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": f"uid-{name}"},
        "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [], **spec},
    }


SECRET_VOLUME = [{"name": "v", "secret": {"secretName": "s"}}]
PROJECTED = [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}}]
ENV = [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": SECRET_VOLUME},
        {"volumes": PROJECTED},
        {"containers": ENV},
        {"initContainers": ENV},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]},
        {"imagePullSecrets": [{"name": "s"}]},
    ],
)
def test_node_reads_what_its_pods_use(spec: Object) -> None:
    """Every way to refer to a secret opens it to the pod's node, and to no other."""
    chief = authorizer(pod("p", "n1", **spec), pod("q", "n2"))
    assert chief.authorize(asks(NODE, "get", "secrets", "a", "s")).allowed
    other = authenticated("system:node:n2", "system:nodes")
    decision = chief.authorize(asks(other, "get", "secrets", "a", "s"))
    assert decision == Decision(False, "no relationship found between node 'n2' and this object")


def test_relation_ends_with_the_pod() -> None:
    """A secret closes when the pod that opened it goes, moves, or is replaced by another of its name."""
    reader = FakeReader([pod("p", "n1", volumes=SECRET_VOLUME)])
    chief = Authorizer(Rbac(reader), NodeAuthorizer(reader, []))
    asked = asks(NODE, "get", "secrets", "a", "s")
    assert chief.authorize(asked).allowed
    assert chief.authorize(asked).allowed
    reader.put({**pod("p", "n1"), "metadata": {"name": "p", "namespace": "a", "uid": "another"}})
    assert not chief.authorize(asked).allowed
    reader.put(pod("p", "n2", volumes=SECRET_VOLUME))
    assert not chief.authorize(asked).allowed


_OWN_VERBS = ("get", "update", "patch", "delete")


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (asks(NODE, "list", "secrets", "a"), False),
        (asks(NODE, "watch", "secrets"), False),
        (asks(NODE, "update", "secrets", "a", "s"), False),
        (asks(NODE, "delete", "secrets", "a", "s"), False),
        (asks(NODE, "get", "secrets", "b", "s"), False),
        (asks(NODE, "get", "configmaps", "a", "s"), False),
        (asks(NODE, "get", "nodes", "", "n1"), True),
        (asks(NODE, "get", "nodes", "", "n2"), False),
        (asks(NODE, "list", "nodes"), False),
        (asks(NODE, "delete", "nodes", "", "n1"), False),
        (asks(NODE, "get", "nodes/proxy", "", "n1"), False),
        (asks(NODE, "create", "serviceaccounts/token", "a", "default"), True),
        (asks(NODE, "create", "serviceaccounts/token", "a", "admin"), False),
        (asks(NODE, "create", "serviceaccounts/token", "kube-system", "default"), False),
        (asks(NODE, "update", "serviceaccounts", "a", "default"), False),
        (asks(NODE, "get", "pods", "a", "p"), True),
        (asks(NODE, "get", "pods", "a", "q"), False),
        (asks(NODE, "list", "pods"), False),
        (asks(NODE, "list", "pods", fields="spec.nodeName=n1"), True),
        (asks(NODE, "watch", "pods", fields="spec.nodeName==n1,status.phase!=Failed"), True),
        (asks(NODE, "list", "pods", fields="spec.nodeName=n2"), False),
        (asks(NODE, "list", "pods", fields="spec.nodeName!=n1"), False),
        (asks(NODE, "list", "pods", fields="xspec.nodeName=n1"), False),
        (asks(NODE, "watch", "pods", "a", "p"), True),
        (asks(NODE, "watch", "pods", "a", "q"), False),
        (asks(NODE, "patch", "pods", "a", "p"), False),
        (asks(NODE, "get", "persistentvolumeclaims/status", "a", "c"), False),
        (asks(NODE, "patch", "persistentvolumeclaims/status", "a", "c"), True),
        *((asks(NODE, verb, "resourceslices", "", "n1", group="resource.k8s.io"), True) for verb in _OWN_VERBS),
        *((asks(NODE, verb, "resourceslices", "", "n2", group="resource.k8s.io"), False) for verb in _OWN_VERBS),
        (asks(NODE, "get", "resourceslices/status", "", "n1", group="resource.k8s.io"), False),
        (asks(NODE, "list", "resourceslices", group="resource.k8s.io"), False),
        (asks(NODE, "list", "resourceslices", group="resource.k8s.io", fields="spec.nodeName=n1"), True),
        (asks(NODE, "get", "resourceclaims", "a", "extended", group="resource.k8s.io"), True),
        (asks(NODE, "get", "resourceclaims", "a", "others", group="resource.k8s.io"), False),
        (asks(NODE, "get", "serviceaccounts", "a", "default"), True),
        (asks(NODE, "get", "serviceaccounts", "a", "admin"), False),
        (asks(NODE, "create", "serviceaccounts/token", "a"), False),
        (asks(NODE, "create", "pods/exec", "a", "p"), False),
        (asks(NODE, "create", "pods/binding", "a", "p"), False),
        (asks(NODE, "get", "leases", "kube-node-lease", "n1", group="coordination.k8s.io"), True),
        (asks(NODE, "get", "leases", "kube-node-lease", "n2", group="coordination.k8s.io"), False),
        (asks(NODE, "get", "leases", "kube-system", "n1", group="coordination.k8s.io"), False),
        (asks(NODE, "list", "leases", "kube-node-lease", group="coordination.k8s.io"), False),
        (asks(NODE, "list", "deployments", "a", group="apps"), False),
        (asks(NODE, "create", "clusterrolebindings", group="rbac.authorization.k8s.io"), False),
        (asks(NODE, "impersonate", "users", "", "system:admin"), False),
        (asks(authenticated("system:node:n1"), "get", "secrets", "a", "s"), False),
        (asks(authenticated("n1", "system:nodes"), "get", "secrets", "a", "s"), False),
        (asks(authenticated("system:node:", "system:nodes"), "get", "secrets", "a", "s"), False),
    ],
)
def test_node_gets_nothing_more(asked: Attributes, allowed: bool) -> None:
    """What a stolen kubelet certificate is good for, and what not."""
    bootstrap = [obj for _, obj in rbac_bootstrap.objects()]
    claim = {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}
    own = {**pod("p", "n1", volumes=[*SECRET_VOLUME, claim])}
    own["status"] = {"extendedResourceClaimStatus": {"resourceClaimName": "extended"}}
    slices = (
        {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": n}, "spec": {"nodeName": n}}
        for n in ("n1", "n2")
    )
    chief = authorizer(*bootstrap, own, pod("q", "n2"), *slices)
    assert chief.authorize(asked).allowed is allowed


def test_mirror_pods_open_nothing() -> None:
    """A node makes mirror pods itself, so naming a secret in one does not open it."""
    mirror = pod("p", "n1", volumes=SECRET_VOLUME)
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert not authorizer(mirror).authorize(asks(NODE, "get", "secrets", "a", "s")).allowed


@pytest.mark.parametrize(
    ("source", "opened"),
    [
        ({"csi": {"nodeStageSecretRef": {"namespace": "storage", "name": "key"}}}, True),
        ({"csi": {"nodePublishSecretRef": {"namespace": "storage", "name": "key"}}}, True),
        ({"csi": {"nodeExpandSecretRef": {"namespace": "storage", "name": "key"}}}, True),
        # Controllers take these, and no node.
        ({"csi": {"controllerPublishSecretRef": {"namespace": "storage", "name": "key"}}}, False),
        ({"csi": {"controllerExpandSecretRef": {"namespace": "storage", "name": "key"}}}, False),
        ({"cinder": {"secretRef": {"namespace": "storage", "name": "key"}}}, True),
        ({"azureFile": {"secretNamespace": "storage", "secretName": "key"}}, True),
        ({"azureFile": {"secretName": "key"}}, False),  # of the claim's namespace
    ],
)
def test_persistent_volume_secrets(source: Object, opened: bool) -> None:
    """A claim opens its volume, and the volume the secret that mounting takes."""
    claim = [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pv"},
        "spec": {
            "claimRef": {"namespace": "a", "name": "claim"},
            **source,
        },
    }
    chief = authorizer(pod("p", "n1", volumes=claim), volume)
    assert chief.authorize(asks(NODE, "get", "persistentvolumes", "", "pv")).allowed
    assert chief.authorize(asks(NODE, "get", "secrets", "storage", "key")).allowed is opened
    assert chief.authorize(asks(NODE, "get", "secrets", "a", "key")).allowed is (
        source == {"azureFile": {"secretName": "key"}}
    )


@pytest.mark.slow
def test_cost_of_an_answer() -> None:
    """A remembered answer takes under 2 µs, a new one under 15 µs with 200 bindings (doubled for a busy machine)."""
    many = [binding(f"b{i}", "a", "ClusterRole", "view", {"kind": "User", "name": f"u{i}"}) for i in range(200)]
    chief = authorizer(*(obj for _, obj in rbac_bootstrap.objects()), *many)
    user = authenticated("u7")
    asked = asks(user, "get", "pods", "a", "x")
    assert chief.authorize(asked).allowed
    warm = min(timeit.repeat(lambda: chief.authorize(asked), number=2000, repeat=5)) / 2000
    cold = min(timeit.repeat(lambda: chief.rbac.authorize(asked), number=2000, repeat=5)) / 2000
    print(f"warm {warm * 1e6:.2f} µs, cold {cold * 1e6:.2f} µs")
    assert warm < 4e-6
    assert cold < 30e-6
