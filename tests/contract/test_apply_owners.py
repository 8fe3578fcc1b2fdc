"""Who owns what across the versions of a kind, its Scale, and kubectl's own annotation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

SETS = "/apis/apps/v1/namespaces/default/replicasets"
MAPS = "/api/v1/namespaces/default/configmaps"
OLD, NEW = (f"/apis/autoscaling/{v}/namespaces/default/horizontalpodautoscalers" for v in ("v1", "v2"))
LAST = "kubectl.kubernetes.io/last-applied-configuration"
Owners = dict[tuple[str, str, str], Any]


def run(body: Callable[[Caller], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await body(caller)
            caller.close()

    asyncio.run(whole())


async def apply(caller: Caller, path: str, obj: Any, who: str, force: bool = False) -> tuple[int, dict[str, Any]]:
    target = f"{path}?fieldManager={who}{'&force=true' if force else ''}"
    return await caller.call("PATCH", target, obj, Content_Type="application/apply-patch+yaml")


def owners(obj: dict[str, Any]) -> Owners:
    """fieldsV1 by manager, version and subresource."""
    entries = obj["metadata"].get("managedFields") or ()
    return {(e["manager"], e["apiVersion"], e.get("subresource", "")): e["fieldsV1"] for e in entries}


def scaler(version: str, **spec: Any) -> dict[str, Any]:
    target = {"kind": "ReplicaSet", "name": "r", "apiVersion": "apps/v1"}
    whole = {"scaleTargetRef": target, "maxReplicas": 5, **spec}
    kind = "HorizontalPodAutoscaler"
    return {"apiVersion": f"autoscaling/{version}", "kind": kind, "metadata": {"name": "h"}, "spec": whole}


def test_managers_of_two_versions() -> None:
    """What one takes in its version, another loses in his: the same field has another name there."""

    async def body(caller: Caller) -> None:
        status, made = await apply(caller, f"{OLD}/h", scaler("v1", targetCPUUtilizationPercentage=50), "old")
        assert status == 201, made
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
        metric["resource"]["target"]["averageUtilization"] = 80
        refused, answer = await apply(caller, f"{NEW}/h", scaler("v2", metrics=[metric]), "new")
        assert refused == 409, answer
        assert (
            'conflict with "old"' in answer["message"] and ".spec.targetCPUUtilizationPercentage" in answer["message"]
        )
        status, taken = await apply(caller, f"{NEW}/h", scaler("v2", metrics=[metric]), "new", force=True)
        assert status == 200, taken
        found = owners(taken)
        assert "f:targetCPUUtilizationPercentage" not in found["old", "autoscaling/v1", ""]["f:spec"]
        assert found["old", "autoscaling/v1", ""]["f:spec"].keys() >= {"f:maxReplicas", "f:scaleTargetRef"}
        assert "f:metrics" in found["new", "autoscaling/v2", ""]["f:spec"]
        _, seen = await caller.call("GET", f"{OLD}/h")
        assert seen["spec"]["targetCPUUtilizationPercentage"] == 80

    run(body)


def test_an_applier_changes_its_version() -> None:
    """What it applied in the old version and leaves out in the new one goes; what another owns stays."""

    async def body(caller: Caller) -> None:
        await apply(caller, f"{OLD}/h", scaler("v1", minReplicas=2, targetCPUUtilizationPercentage=50), "one")
        await apply(caller, f"{OLD}/h", scaler("v1", minReplicas=2), "two")
        status, left = await apply(caller, f"{NEW}/h", scaler("v2"), "one")
        assert status == 200, left
        assert left["spec"]["minReplicas"] == 2
        assert [version for who, version, _ in owners(left) if who == "one"] == ["autoscaling/v2"]
        assert "f:minReplicas" in owners(left)["two", "autoscaling/v1", ""]["f:spec"]

    run(body)


def test_a_version_that_is_gone_owns_nothing() -> None:
    """Its entry goes with the next write."""

    async def body(caller: Caller) -> None:
        gone = {"manager": "past", "operation": "Update", "apiVersion": "v1beta1", "fieldsType": "FieldsV1"}
        gone["fieldsV1"] = {"f:data": {"f:a": {}}}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "managedFields": [gone]}}
        await caller.call("POST", MAPS, {**made, "data": {"a": "1"}})
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "2"}}
        status, left = await apply(caller, f"{MAPS}/m", config, "now", force=True)
        assert status == 200, left
        assert "past" not in {who for who, _, _ in owners(left)}

    run(body)


def replica_set(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    whole = {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": whole}


def test_apply_of_a_scale() -> None:
    """The number belongs to whoever applied it, in the workload at the workload's place; others need force."""

    async def body(caller: Caller) -> None:
        await apply(caller, f"{SETS}/r", replica_set(replicas=3), "one")
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": 5}}
        status, answer = await apply(caller, f"{SETS}/r/scale", scale, "two")
        assert status == 409, answer
        assert answer["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
        status, answer = await apply(caller, f"{SETS}/r/scale", scale, "two", force=True)
        assert (status, answer["spec"], "managedFields" in answer["metadata"]) == (200, {"replicas": 5}, False), answer
        _, seen = await caller.call("GET", f"{SETS}/r")
        assert owners(seen)["two", "apps/v1", "scale"] == {"f:spec": {"f:replicas": {}}}
        assert "f:replicas" not in owners(seen)["one", "apps/v1", ""]["f:spec"]
        status, answer = await apply(caller, f"{SETS}/r", replica_set(replicas=3), "one")
        assert status == 409 and 'conflict with "two" with subresource "scale": .spec.replicas' in answer["message"]
        status, _ = await apply(caller, f"{SETS}/r", replica_set(), "one")
        _, seen = await caller.call("GET", f"{SETS}/r")
        assert (status, seen["spec"]["replicas"]) == (200, 5)
        status, answer = await caller.call(
            "PATCH", f"{SETS}/r/scale", scale, Content_Type="application/apply-patch+yaml"
        )
        assert (status, answer["details"]["causes"][0]["field"]) == (422, "fieldManager")

    run(body)


def config_map(data: dict[str, str], annotation: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "m", **({"annotations": {LAST: annotation}} if annotation else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@pytest.mark.parametrize(("who", "conflict"), [("kubectl", False), ("other", True)])
def test_kubectl_takes_what_its_annotation_says(who: str, conflict: bool) -> None:
    """The fields of the last client-side apply are taken without force, by kubectl only, while nobody changed them."""

    async def body(caller: Caller) -> None:
        text = json.dumps(config_map({"a": "1", "b": "1"}))
        target = f"{MAPS}?fieldManager=kubectl-client-side-apply"
        await caller.call("POST", target, config_map({"a": "1", "b": "1"}, text))
        status, answer = await apply(caller, f"{MAPS}/m", config_map({"a": "2", "b": "1"}), who)
        assert status == (409 if conflict else 200), answer
        if conflict:
            return
        kept = json.loads(answer["metadata"]["annotations"][LAST])
        assert kept == config_map({"a": "2", "b": "1"}), "the annotation follows, for older clients"
        merge = {"Content_Type": "application/merge-patch+json"}
        await caller.call("PATCH", f"{MAPS}/m?fieldManager=somebody", {"data": {"b": "9"}}, **merge)
        status, answer = await apply(caller, f"{MAPS}/m", config_map({"a": "3", "b": "1"}), who)
        assert status == 409 and answer["message"].endswith('conflict with "somebody" using v1: .data.b')

    run(body)


def test_without_the_annotation_none_is_made() -> None:
    """An object that was never applied on the client's side stays without."""

    async def body(caller: Caller) -> None:
        await apply(caller, f"{MAPS}/m", config_map({"a": "1"}), "kubectl")
        _, answer = await apply(caller, f"{MAPS}/m", config_map({"a": "2"}), "kubectl")
        assert "annotations" not in answer["metadata"]

    run(body)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"replicas": "x"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"replicas": True}, ".spec.replicas: expected numeric (int or float), got bool"),
        ({"template": []}, ".spec.template: expected map, got &{[]}"),
        ({"selector": {"matchLabels": {"a": 1}}}, ".spec.selector.matchLabels.a: expected string, got "
         "&value.valueUnstructured{Value:1}"),
        ({"template": {"spec": {"containers": {"b": 1, "a": ["x"]}}}},
         ".spec.template.spec.containers: expected list, got &{map[a:[x] b:1]}"),
        ({"template": {"spec": {"hostNetwork": "yes"}}},
         ".spec.template.spec.hostNetwork: expected boolean, got &{yes}"),
        ({"replicas": "x", "bogus": 1, "other": 2}, "errors:\n  .spec.replicas: expected numeric (int or float), got "
         "string\n  .spec.bogus: field not declared in schema"),
        ({"bogus": 1, "other": 1, "replicas": "x"}, ".spec.bogus: field not declared in schema"),
        ({"template": {"spec": {"containers": [{"name": "b", "x": 1, "y": 1}, {"name": "a", "z": 1}]}}},
         'errors:\n  .spec.template.spec.containers[name="b"].x: field not declared in schema\n'
         '  .spec.template.spec.containers[name="a"].z: field not declared in schema'),
    ],
)  # fmt: skip
def test_all_that_does_not_fit_is_told(spec: dict[str, Any], told: str) -> None:
    """A value of another type, and several faults together, but of a map nothing after a field that nobody knows."""

    async def body(caller: Caller) -> None:
        config = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}
        status, answer = await apply(caller, f"{SETS}/r", config, "one")
        prefix = "failed to create typed patch object (/r; apps/v1, Kind=ReplicaSet): "
        assert (status, answer["message"]) == (500, prefix + told)

    run(body)


PODS = "/api/v1/namespaces/default/pods"
_POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}


async def pod(caller: Caller) -> None:
    """A pod that `one` applied."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await caller.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}
    status, made = await apply(caller, f"{PODS}/p", {**_POD, "spec": {"containers": [container]}}, "one")
    assert status == 201, made


def test_apply_of_parts_of_a_pod() -> None:
    """Who applies a resize or ephemeral containers owns what he says there, and nothing that this way puts back."""

    async def body(caller: Caller) -> None:
        await pod(caller)
        asked = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
        status, resized = await apply(caller, f"{PODS}/p/resize", {**_POD, **asked}, "two", force=True)
        assert (status, resized["spec"]["containers"][0]["resources"]) == (200, {"requests": {"cpu": "2"}}), resized
        mine = owners(resized)["two", "v1", "resize"]["f:spec"]["f:containers"]['k:{"name":"c"}']
        assert mine["f:resources"] == {"f:requests": {"f:cpu": {}}}
        theirs = owners(resized)["one", "v1", ""]["f:spec"]["f:containers"]['k:{"name":"c"}']
        assert "f:resources" not in theirs
        spec = {"ephemeralContainers": [{"name": "e", "image": "i"}]}
        status, debugged = await apply(caller, f"{PODS}/p/ephemeralcontainers", {**_POD, "spec": spec}, "three")
        assert status == 200, debugged
        assert "f:ephemeralContainers" in owners(debugged)["three", "v1", "ephemeralcontainers"]["f:spec"]

    run(body)


def test_apply_of_a_status_with_metadata() -> None:
    """Labels that a status brings along are owned with it, but for kinds that put them back."""

    async def body(caller: Caller) -> None:
        await pod(caller)
        found = {"status": {"conditions": [{"type": "a.b/c", "status": "True"}]}}
        labelled = {**_POD, "metadata": {"name": "p", "labels": {"a": "b"}}, **found}
        status, got = await apply(caller, f"{PODS}/p/status", labelled, "two")
        assert (status, got["metadata"]["labels"]) == (200, {"a": "b"}), got
        assert owners(got)["two", "v1", "status"].keys() == {"f:metadata", "f:status"}
        path = "/apis/storage.k8s.io/v1/volumeattachments"
        what = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "x"}}
        source = {"attacher": "x.y", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
        await apply(caller, f"{path}/x", {**what, "spec": source}, "one")
        written = {**what, "metadata": {"name": "x", "labels": {"a": "b"}}, "status": {"attached": True}}
        status, got = await apply(caller, f"{path}/x/status", written, "two")
        assert status == 200 and "labels" not in got["metadata"], got
        assert owners(got)["two", "storage.k8s.io/v1", "status"].keys() == {"f:status"}

    run(body)
