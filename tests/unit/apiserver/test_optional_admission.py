"""Plugins that run when they are asked for, and how flags and the configuration file say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fakes.clock import MovedClock
from tests.fakes.reader import FakeReader
from tests.unit.apiserver.admission_world import ACCOUNT, ALICE, SPACE, World, at_once, obj, pod, refusal

from k3s.api.errors import TooManyRequests
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.admission import defaults
from k3s.apiserver.admission.settings import ABSENT, DEFAULT, OPTIONAL, SettingsError, settings
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.entropy import SeededEntropy


class Optional(World):
    """A world in which some plugins are enabled."""

    def __init__(self, *names: str, objects: tuple[Object, ...] = (), file: str = "", disable: Any = ()) -> None:
        self.clock = MovedClock()
        self.reader = FakeReader([ACCOUNT, SPACE, *objects])
        self.authorizer = Authorizer(Rbac(self.reader), NodeAuthorizer(self.reader, rbac_bootstrap.node_rules()))
        given = settings(names, disable, file)
        entropy = SeededEntropy(1)
        self.chain = defaults.chain(self.reader, self.authorizer, self.clock, entropy, settings=given)


def written(folder: Path, *plugins: str) -> str:
    """A configuration file for plugins, each given as YAML of its own configuration."""
    lines = ["apiVersion: apiserver.config.k8s.io/v1", "kind: AdmissionConfiguration", "plugins:"]
    for plugin in plugins:
        name, _, text = plugin.partition("\n")
        lines += [f"- name: {name}", "  configuration:", *(f"    {line}" for line in text.splitlines())]
    path = folder / "admission.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def noted(**notes: str) -> Object:
    return obj("v1", "Namespace", "a", metadata={"annotations": notes})


def test_flags_and_files_are_checked(tmp_path: Path) -> None:
    """Unknown names, contradictions and unusable files are told by name."""

    def wrong(*args: Any) -> str:
        with pytest.raises(SettingsError) as caught:
            settings(*args)
        return str(caught.value)

    assert wrong(["Nope", "AlwaysDeny"]) == "enable-admission-plugins names unknown plugins: Nope"
    assert wrong([], ["Nope"]) == "disable-admission-plugins names unknown plugins: Nope"
    assert wrong(["AlwaysDeny"], ["AlwaysDeny"]) == "these plugins are both enabled and disabled: AlwaysDeny"
    assert "needs imagePolicy.kubeConfigFile" in wrong(["ImagePolicyWebhook"])
    assert "cannot be read" in wrong([], [], str(tmp_path / "none"))
    (tmp_path / "bad").write_text("kind: Other")
    assert "is no AdmissionConfiguration" in wrong([], [], str(tmp_path / "bad"))
    assert "configures an unknown plugin: Nope" in wrong([], [], written(tmp_path, "Nope\nx: y"))
    assert "needs limits" in wrong(["EventRateLimit"])
    assert "Priority" not in settings([], ["Priority"]).enabled
    assert Optional(disable=["Priority"]).create(pod())["spec"].get("priority") is None
    names = [plugin.name for plugin in Optional("AlwaysAdmit", "NamespaceExists").chain.plugins]
    assert names[0] == "AlwaysAdmit" and names[-1] == "ResourceQuota" and "RBACEscalation" in names


def test_always_deny_and_pull() -> None:
    """One refuses all; one makes every start of a container ask the registry, and leaves unchanged images alone."""
    text = refusal(Optional("AlwaysDeny").create, obj("v1", "ConfigMap", "c", "a"))
    assert text == 'configmaps "c" is forbidden: admission control is denying all modifications'
    world = Optional("AlwaysPullImages")
    made = world.create(pod())
    assert [c["imagePullPolicy"] for c in made["spec"]["containers"]] == ["Always"]
    plain = pod()
    assert "imagePullPolicy" not in world.update(plain, plain)["spec"]["containers"][0]


def test_node_selectors_of_namespaces(tmp_path: Path) -> None:
    """The namespace's selector is merged in, a conflict refused; the configuration limits what may be selected."""
    note = {"scheduler.alpha.kubernetes.io/node-selector": "disk=ssd"}
    world = Optional("PodNodeSelector", objects=(noted(**note),))
    assert world.create(pod({"nodeSelector": {"x": "y"}}))["spec"]["nodeSelector"] == {"x": "y", "disk": "ssd"}
    assert "conflicts with its namespace node label selector" in refusal(
        world.create, pod({"nodeSelector": {"disk": "hdd"}})
    )
    file = written(tmp_path, "PodNodeSelector\npodNodeSelectorPluginConfig:\n  a: disk=ssd")
    world = Optional("PodNodeSelector", objects=(noted(**note),), file=file)
    assert world.create(pod())["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert "conflict with its namespace whitelist" in refusal(world.create, pod({"nodeSelector": {"x": "y"}}))


def test_tolerations_of_namespaces() -> None:
    """Defaults are added; what the list of allowed ones does not cover is refused."""
    default = '[{"key":"k","operator":"Exists"}]'
    world = Optional(
        "PodTolerationRestriction", objects=(noted(**{"scheduler.alpha.kubernetes.io/defaultTolerations": default}),)
    )
    assert {"key": "k", "operator": "Exists"} in world.create(pod())["spec"]["tolerations"]
    allowed = noted(**{"scheduler.alpha.kubernetes.io/tolerationsWhitelist": '[{"key":"other"}]'})
    assert "conflict with its namespace whitelist" in refusal(
        Optional("PodTolerationRestriction", objects=(allowed,)).create, pod()
    )


def test_affinity_devices_and_external_addresses() -> None:
    """A hard anti-affinity beyond a node is refused, devices are tolerated, new external addresses denied."""
    term = {"topologyKey": "zone", "labelSelector": {}}
    rules = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    text = refusal(Optional("LimitPodHardAntiAffinityTopology").create, pod(rules))
    assert "has TopologyKey zone but only key kubernetes.io/hostname is allowed" in text
    device = {"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}
    made = Optional("ExtendedResourceToleration").create(pod({"containers": [device]}))
    assert {"key": "example.com/gpu", "operator": "Exists"} in made["spec"]["tolerations"]
    service = obj("v1", "Service", "s", "a", spec={"externalIPs": ["1.2.3.4"]})
    world = Optional("DenyServiceExternalIPs")
    assert "Use of external IPs is denied by admission control" in refusal(world.create, service)
    assert world.update(service, service)


def test_owners_take_rights() -> None:
    """Who may not delete an object does not give it owners."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "blockOwnerDeletion": True}
    owned = obj("v1", "ConfigMap", "c", "a", metadata={"ownerReferences": [owner]})
    world = Optional("OwnerReferencesPermissionEnforcement")
    assert world.create(owned)
    assert "cannot set an ownerRef on a resource you can't delete" in refusal(world.create, owned, ALICE)


def test_events_have_a_rate(tmp_path: Path) -> None:
    """Each namespace has its own bucket, which fills up again with time."""
    file = written(tmp_path, "EventRateLimit\nlimits:\n- type: Namespace\n  qps: 1\n  burst: 2")
    world = Optional("EventRateLimit", file=file)
    event = obj("v1", "Event", "e", "a", involvedObject={})
    world.create(event)
    world.create(event)
    with pytest.raises(TooManyRequests, match="limit reached on type Namespace for key a"):
        world.create(event)
    world.create(obj("v1", "Event", "e", "b", involvedObject={}))
    world.clock.at = 1.0
    world.create(event)


def test_a_placed_pod_knows_its_zone() -> None:
    """Binding copies the labels of zone and region, no others; on by default."""
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"}
    world = World(obj("v1", "Node", "n", metadata={"labels": labels}))
    old = pod(labels={"l": "1"})
    placed = {**old, "spec": {**old["spec"], "nodeName": "n"}}
    made = world.update(old, placed, subresource="binding")
    assert made["metadata"]["labels"] == {"l": "1", **{k: v for k, v in labels.items() if k != "other"}}


def test_pod_security_of_the_cluster(tmp_path: Path) -> None:
    """Defaults hold where labels say nothing; exemptions lift them; violations to audit are noted."""
    lines = ("defaults:", "  enforce: baseline", "  audit: restricted", "exemptions:", "  usernames: [alice]")
    file = written(tmp_path, "PodSecurity\n" + "\n".join(lines))
    world = Optional(file=file)
    bad = pod({"hostNetwork": True})
    assert 'violates PodSecurity "baseline:latest"' in refusal(world.create, bad)
    assert world.create(bad, ALICE)
    request = world.request("CREATE", pod())
    at_once(world.chain.validate(request))
    assert request.audit["pod-security.kubernetes.io/enforce-policy"] == "baseline:latest"
    assert request.audit["pod-security.kubernetes.io/audit-violations"].startswith(
        'would violate PodSecurity "restricted:latest": '
    )
    assert request.warnings == []
    open_ = noted()
    open_["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "privileged"}
    assert Optional(file=file, objects=(open_,)).create(bad)


def test_stricter_namespaces_tell_of_their_pods() -> None:
    """Pods that would not be let in any more are told once for each reason."""
    pods = tuple(pod({"hostNetwork": True}, name=name) for name in ("p1", "p2", "p3"))
    world = World(*pods)
    new = obj("v1", "Namespace", "a", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}})
    request = world.request("UPDATE", new, obj("v1", "Namespace", "a"))
    at_once(world.chain.validate(request))
    assert request.warnings == [
        'existing pods in namespace "a" violate the new PodSecurity enforce level "baseline:latest"',
        "p1 (and 2 other pods): host namespaces",
    ]


# Upstream's plugins of 1.36, in order (AllOrderedPlugins of its options).
UPSTREAM = (
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodGroupWorkloadExists",
    "NodeDeclaredFeatureValidator",
    "JobValidation",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
)


def test_every_plugin_of_upstream_is_here_or_says_why_not() -> None:
    """Each is built, in upstream's order, or refused by name with a reason; nothing else is known."""
    assert set(UPSTREAM) == DEFAULT | OPTIONAL | set(ABSENT)
    assert not (DEFAULT | OPTIONAL) & set(ABSENT) and not DEFAULT & OPTIONAL
    built = [name for name, _ in defaults._PLUGINS if name != "Escalation" and name in UPSTREAM]
    assert built == [name for name in UPSTREAM if name not in ABSENT]
    for name, why in ABSENT.items():
        with pytest.raises(SettingsError, match=name) as refused:
            settings([name])
        assert why in str(refused.value)
        assert name not in settings([], [name]).enabled  # who turns it off gets what he wants


def sized(cpu: str, memory: str, where: str = "n1", **more: Any) -> Object:
    resources = {"requests": {"cpu": cpu, "memory": memory}}
    containers = [{"name": "c", "image": "i", "resources": resources}]
    spec = {"containers": containers, "automountServiceAccountToken": False, **({"nodeName": where} if where else {})}
    return pod({**spec, **more})


def test_a_pod_is_not_resized_beyond_its_node() -> None:
    """What is asked for, with the overhead, has to fit in what the node has; only for a resize."""
    world = Optional(objects=(obj("v1", "Node", "n1", status={"allocatable": {"cpu": "2", "memory": "1Gi"}}),))
    old = sized("1", "512Mi")

    def resized(new: Object, before: Object = old) -> str:
        return refusal(world.update, before, new, subresource="resize").partition("is forbidden: ")[2]

    world.update(old, sized("2", "1Gi"), subresource="resize")
    start = "Node didn't have enough allocatable resources: "
    assert resized(sized("2001m", "1Gi")) == f"{start}cpu, requested: 2001, allocatable: 2000"
    both = f"{start}cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"
    assert resized(sized("3", "2Gi")) == both
    extra = {"overhead": {"cpu": "1500m"}}
    assert "requested: 2500" in resized(sized("1", "1Gi", **extra), sized("1", "512Mi", **extra))
    assert resized(sized("2", "1Gi", "gone"), sized("1", "1Gi", "gone")) == 'node "gone" not found'
    world.update(sized("1", "1Gi", ""), sized("9", "1Gi", ""), subresource="resize")  # not on a node yet
    world.update(old, sized("9", "9Gi"))  # not a resize: others judge that


def test_what_comes_after_a_plugin_is_judged_again(tmp_path: Path) -> None:
    """A webhook, or an update, brings in nothing that the plugin would not have let in."""

    def judged(world: World, new: Object, old: Object | None = None) -> str:
        request = world.request("UPDATE" if old else "CREATE", new, old)
        return refusal(lambda: at_once(world.chain.validate(request))).partition("is forbidden: ")[2]

    policy = {"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent"}
    images = Optional("AlwaysPullImages")
    what = 'spec.containers[0].imagePullPolicy: Unsupported value: "IfNotPresent": supported values: "Always"'
    assert judged(images, pod({"containers": [policy]})) == what
    volume = {"name": "v", "image": {"reference": "r", "pullPolicy": "Never"}}
    plain = {"automountServiceAccountToken": False}
    assert images.create(pod({**plain, "volumes": [volume]}))["spec"]["volumes"][0]["image"]["pullPolicy"] == "Always"

    file = written(tmp_path, "PodNodeSelector\npodNodeSelectorPluginConfig:\n  a: env=test")
    nodes = Optional("PodNodeSelector", file=file)
    assert "conflict with its namespace whitelist" in judged(nodes, pod({"nodeSelector": {"env": "live"}}))
    file = written(tmp_path, 'PodNodeSelector\npodNodeSelectorPluginConfig:\n  a: ""')
    Optional("PodNodeSelector", file=file).create(pod({**plain, "nodeSelector": {"env": "live"}}))  # says nothing

    key = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
    allowed = noted(**{key: '[{"key": "a", "operator": "Exists"}]'})
    world = Optional("PodTolerationRestriction", objects=(allowed,))
    added = pod({"tolerations": [{"key": "b", "operator": "Exists"}]})
    assert "conflict with its namespace whitelist" in judged(world, added, pod())


def quota_for(**hard: str) -> Object:
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    return obj("v1", "ResourceQuota", "q", "a", spec={"hard": hard}, status=status)


def test_what_is_limited_wants_a_quota(tmp_path: Path) -> None:
    """A resource or a scope of limitedResources is refused where no quota covers it, in upstream's words."""
    text = """ResourceQuota
apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- resource: pods
  matchContains: [cpu]
- resource: pods
  matchScopes:
  - {scopeName: PriorityClass, operator: In, values: [high, higher]}"""
    file = written(tmp_path, text)
    asking = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}
    high = {"priorityClassName": "high", "priority": 7}

    def judged(new: Object, *quotas: Object) -> None:
        world = Optional(objects=quotas, file=file)
        request = world.request("CREATE", new)
        request.dry_run = True  # nothing is charged: there is no write path
        at_once(world.chain.validate(request))

    judged(pod())
    why = 'pods "p" is forbidden: insufficient quota to consume: cpu,requests.cpu'
    assert refusal(judged, pod(asking)) == why
    judged(pod(asking), quota_for(**{"cpu": "2", "requests.cpu": "2"}))
    assert refusal(judged, pod(asking), quota_for(cpu="2")).endswith("consume: requests.cpu")
    scopes = "insufficient quota to match these scopes: [{PriorityClass In [high higher]}]"
    assert refusal(judged, pod(high)) == scopes
    scoped = quota_for(pods="5")
    scoped["spec"]["scopeSelector"] = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
    judged(pod(high), scoped)
    with pytest.raises(SettingsError, match=r"limitedResources\[0\]\.resource: name a resource"):
        settings([], [], written(tmp_path, "ResourceQuota\nlimitedResources: [{matchContains: [cpu]}]"))
