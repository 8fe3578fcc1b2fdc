"""What admission sees of paths below objects and of questions that are stored nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_webhooks import add, config, configured, patch
from tests.fakes.hooks import Hooks, played
from tests.fakes.server import Caller

from k3s.api.errors import BadRequest
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver.subresources.connect import wishes
from k3s.base.message import Response

EVERYTHING = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MERGE = {"Content_Type": "application/merge-patch+json"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def deployment() -> Object:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "d", "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


async def policy(caller: Caller, kind: str, spec: Object, rule: Object) -> None:
    """A bound policy."""
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "p"}}
    spec = {"matchConstraints": {"resourceRules": [{**EVERYTHING, **rule}]}, **spec}
    path = f"{ADMISSION}/{kind.lower()[:-1]}"
    status, made = await caller.call("POST", f"{path}ies", {**group, "kind": kind, "spec": spec})
    assert status == 201, made
    actions = {"validationActions": ["Deny"]} if kind.startswith("Validating") else {}
    bound = {**group, "kind": f"{kind}Binding", "spec": {"policyName": "p", **actions}}
    status, made = await caller.call("POST", f"{path}ybindings", bound)
    assert status == 201, made


def test_a_scale_is_what_is_written(run: Any, tmp_path: Path) -> None:
    """Webhooks and policies see a Scale, before and after, and what they make of it is what the workload gets."""

    def answers(path: str, asked: Object) -> Object:
        spec = asked["object"]["spec"]
        return patch(add("/spec/replicas", 7)) if path == "/0" and spec["replicas"] == 5 else {}

    async def steps(hooks: Hooks, caller: Caller) -> None:
        assert (await caller.call("POST", DEPLOYMENTS, deployment()))[0] == 201
        rule = {**EVERYTHING, "resources": ["*/scale"]}
        await configured(caller, hooks.configuration("MutatingWebhookConfiguration", {}, rule=rule))
        mine = {"resources": ["deployments/scale"], "operations": ["UPDATE"]}
        checks = "object.kind == 'Scale' && oldObject.kind == 'Scale' && request.kind.kind == 'Scale'"
        rules = [{"expression": f"{checks} && object.spec.replicas < 9", "message": "too many"}]
        await policy(caller, "ValidatingAdmissionPolicy", {"validations": rules}, mine)
        more = "Object{spec: Object.spec{replicas: object.spec.replicas + 1}}"
        mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": more}}
        spec = {"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [mutation]}
        path = f"{DEPLOYMENTS}/d/scale"
        status, made = await caller.call("PATCH", path, {"spec": {"replicas": 5}}, **MERGE)
        assert (status, made["kind"], made["spec"]) == (200, "Scale", {"replicas": 7}), made
        await policy(caller, "MutatingAdmissionPolicy", spec, mine)
        status, made = await caller.call("PATCH", path, {"spec": {"replicas": 2}}, **MERGE)
        assert (status, made["spec"]) == (200, {"replicas": 3}), made
        assert (await caller.call("GET", f"{DEPLOYMENTS}/d"))[1]["spec"]["replicas"] == 3
        status, made = await caller.call("PATCH", path, {"spec": {"replicas": 8}}, **MERGE)
        assert status == 422 and made["message"].endswith("too many"), made

    hooks = played(run, tmp_path, answers, steps)
    asked = hooks.asked[0][1]
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (asked["kind"], asked["requestKind"], asked["subResource"]) == (scale, scale, "scale")
    assert asked["resource"] == {"group": "apps", "version": "v1", "resource": "deployments"}
    assert (asked["object"]["spec"], asked["oldObject"]["spec"]) == ({"replicas": 5}, {"replicas": 1})
    assert asked["object"]["kind"] == asked["oldObject"]["kind"] == "Scale"
    assert asked["oldObject"]["status"] == {"replicas": 0, "selector": "a=b"}


class Doors:
    """Nodes that answer every connection."""

    async def connect(self, *asked: Any) -> Response:
        """Says yes."""
        return Response(200, b"{}")


def test_connections_are_told_of_with_what_they_shall_be(run: Any, tmp_path: Path) -> None:
    """A webhook sees the options of the connection as an object, and warns or refuses."""

    def answers(path: str, asked: Object) -> Object:
        command = asked["object"].get("command") or []
        refused = {"allowed": False, "status": {"message": "no shells"}}
        return refused if "sh" in command else {"warnings": ["careful"]}

    async def steps(hooks: Hooks, caller: Caller) -> None:
        rule = {**EVERYTHING, "operations": ["CONNECT"]}
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        pod = "/api/v1/namespaces/default/pods/p"
        status, made = await caller.call("POST", f"{pod}/exec?command=sh&command=-c&stdin=true&tty=1&container=c")
        assert status == 400 and made["message"].endswith("denied the request: no shells"), made
        await caller.send("GET", f"{pod}/proxy/a/b?x=y")
        status, headers, _ = await caller.answer()
        assert (status, headers.get("warning")) == (200, '299 - "careful"')

    hooks = played(run, tmp_path, answers, steps, nodes=Doors())
    first, second = (asked for _, asked in hooks.asked)
    assert (first["operation"], first["subResource"], first["oldObject"]) == ("CONNECT", "exec", None)
    assert first["kind"] == {"group": "", "version": "v1", "kind": "PodExecOptions"}
    assert first["object"] == {
        "kind": "PodExecOptions",
        "apiVersion": "v1",
        "stdin": True,
        "tty": True,
        "container": "c",
        "command": ["sh", "-c"],
    }
    assert second["object"] == {"kind": "PodProxyOptions", "apiVersion": "v1", "path": "a/b"}


def test_other_wishes_for_connections() -> None:
    """Attaching, ports, proxies of services and nodes."""
    pod, common = builtin("v1", "Pod"), {"apiVersion": "v1"}
    attach = [("stdout", "true"), ("stderr", "false"), ("container", "")]
    assert wishes(pod, "attach", attach, "") == {**common, "kind": "PodAttachOptions", "stdout": True}
    ports = [("ports", "80"), ("ports", "443")]
    assert wishes(pod, "portforward", ports, "") == {**common, "kind": "PodPortForwardOptions", "ports": [80, 443]}
    assert wishes(pod, "portforward", [], "") == {**common, "kind": "PodPortForwardOptions"}
    with pytest.raises(BadRequest, match='ports: "x" is no number of a port'):
        wishes(pod, "portforward", [("ports", "x")], "")
    service = builtin("v1", "Service")
    assert wishes(service, "proxy", [], "x") == {**common, "kind": "ServiceProxyOptions", "path": "x"}
    assert wishes(builtin("v1", "Node"), "proxy", [], "") == {**common, "kind": "NodeProxyOptions"}


def test_reviews_are_told_to_webhooks_and_not_to_policies(run: Any, tmp_path: Path) -> None:
    """They are creations for admission; policies could make the cluster deaf and blind."""

    def answers(path: str, asked: Object) -> Object:
        return {"allowed": asked["kind"]["kind"] != "SelfSubjectAccessReview", "status": {"message": "do not ask"}}

    async def steps(hooks: Hooks, caller: Caller) -> None:
        rule = {**EVERYTHING, "apiGroups": ["authentication.k8s.io", "authorization.k8s.io"]}
        never = {"validations": [{"expression": "false", "message": "never"}]}
        await policy(caller, "ValidatingAdmissionPolicy", never, {"apiGroups": [*rule["apiGroups"], ""]})
        status, made = await caller.call("POST", "/api/v1/namespaces/default/configmaps", config())
        assert status == 422, made
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        groups = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
        who = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
        status, made = await caller.call("POST", f"{groups[0]}/selfsubjectreviews", who)
        assert (status, made["status"]["userInfo"]["username"]) == (201, "admin"), made
        may = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
        may["spec"] = {"nonResourceAttributes": {"path": "/", "verb": "get"}}
        status, made = await caller.call("POST", f"{groups[1]}/selfsubjectaccessreviews", may)
        assert status == 400 and made["message"].endswith("do not ask"), made

    hooks = played(run, tmp_path, answers, steps)
    assert [asked["kind"]["kind"] for _, asked in hooks.asked] == ["SelfSubjectReview", "SelfSubjectAccessReview"]
    assert {asked["operation"] for _, asked in hooks.asked} == {"CREATE"}
    assert "subResource" not in hooks.asked[0][1]


def test_policies_judge_the_configurations_of_webhooks(run: Any, tmp_path: Path) -> None:
    """Only webhooks are kept from those, and policies from policies."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        rule = {**EVERYTHING, "apiGroups": ["admissionregistration.k8s.io"]}
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        never = {"validations": [{"expression": "object.metadata.name != 'no'", "message": "never"}]}
        await policy(caller, "ValidatingAdmissionPolicy", never, {"apiGroups": rule["apiGroups"]})
        configuration = hooks.configuration("MutatingWebhookConfiguration", {})
        configuration["metadata"]["name"] = "no"
        status, made = await caller.call("POST", f"{ADMISSION}/mutatingwebhookconfigurations", configuration)
        assert status == 422 and made["message"].endswith("never"), made
        assert (await caller.call("DELETE", f"{ADMISSION}/validatingadmissionpolicies/p"))[0] == 200

    assert not played(run, tmp_path, lambda path, asked: {}, steps).asked


def test_an_eviction_is_no_deletion_for_admission(run: Any, tmp_path: Path) -> None:
    """Who lets the eviction pass is not asked about the deletion that it is."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        space = "/api/v1/namespaces/default"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        assert (await caller.call("POST", f"{space}/serviceaccounts", account))[0] == 201
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        pod["spec"] = {"containers": [{"name": "c", "image": "i"}]}
        assert (await caller.call("POST", f"{space}/pods", pod))[0] == 201
        rule = {**EVERYTHING, "resources": ["pods", "pods/*"]}
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        evicted = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        assert (await caller.call("POST", f"{space}/pods/p/eviction", evicted))[0] == 201
        assert (await caller.call("GET", f"{space}/pods/p"))[0] == 404

    hooks = played(run, tmp_path, lambda path, asked: {}, steps)
    assert [(asked["operation"], asked["subResource"]) for _, asked in hooks.asked] == [("CREATE", "eviction")]


@pytest.mark.parametrize("both", [True, False])
def test_a_scale_of_another_version_is_the_same(run: Any, tmp_path: Path, both: bool) -> None:
    """A webhook that names one version hears of the scale in another, if its own has a scale at all."""
    scale = {"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}
    fields = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": fields, "status": fields}}}
    versions = [{"name": f"v{i}", "served": True, "storage": i == 2, "schema": schema} for i in (1, 2)]
    versions[1]["subresources"] = scale
    if both:
        versions[0]["subresources"] = scale
    names = {"plural": "sets", "kind": "Set"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "sets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions},
    }

    async def steps(hooks: Hooks, caller: Caller) -> None:
        made = await caller.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        assert made[0] == 201, made
        sets = "/apis/example.com/v2/namespaces/default/sets"
        while True:
            await caller.send("GET", sets)
            if (await caller.answer())[0] == 200:
                break
        one = {"apiVersion": "example.com/v2", "kind": "Set", "metadata": {"name": "a"}, "spec": {"n": 1}}
        assert (await caller.call("POST", sets, one))[0] == 201
        rule = {**EVERYTHING, "apiVersions": ["v1"], "resources": ["sets/scale"]}
        await configured(caller, hooks.configuration("ValidatingWebhookConfiguration", {}, rule=rule))
        status, made = await caller.call("PATCH", f"{sets}/a/scale", {"spec": {"replicas": 3}}, **MERGE)
        assert (status, made["spec"]) == (200, {"replicas": 3}), made

    asked = [asked for _, asked in played(run, tmp_path, lambda path, asked: {}, steps).asked]
    seen = [(a["resource"]["version"], a["requestResource"]["version"], a["object"]["kind"]) for a in asked]
    assert seen == ([("v1", "v2", "Scale")] if both else [])
