"""Owners of fields over HTTP: across versions of a kind, through its scale, after client-side apply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.fakes.server import Caller, serving

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
MAPS = "/api/v1/namespaces/default/configmaps"
SETS = "/apis/apps/v1/namespaces/default/replicasets"
SCALERS = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
LAST = "kubectl.kubernetes.io/last-applied-configuration"


def served(work: Callable[[Caller], Awaitable[None]]) -> None:
    """Runs a test against a server of its own."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            try:
                await work(caller)
            finally:
                caller.close()

    asyncio.run(body())


async def patch(caller: Caller, path: str, obj: Any, media: str = APPLY, **query: str) -> tuple[int, dict[str, Any]]:
    return await caller.call("PATCH", f"{path}?{urlencode(query)}", obj, Content_Type=media)


def owners(obj: dict[str, Any]) -> dict[tuple[str, str, str, str], Any]:
    """Manager, operation, version and subresource of each entry, with its fields."""
    names = ("manager", "operation", "apiVersion", "subresource")
    entries = obj["metadata"].get("managedFields", ())
    return {tuple(entry.get(name, "") for name in names): entry["fieldsV1"] for entry in entries}  # type: ignore[misc]


def config_map(data: dict[str, str], **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", **meta}, "data": data}


def replica_set(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}


def scale(replicas: int, name: str = "r") -> dict[str, Any]:
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name}, "spec": {"replicas": replicas}}


def scaler(version: str, **spec: Any) -> dict[str, Any]:
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 5, **spec}
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": spec,
    }


def test_owners_keep_their_fields_in_their_own_version() -> None:
    """What v1 calls targetCPUUtilizationPercentage is a metric in v2: changed by one, it is taken from the other."""

    async def work(caller: Caller) -> None:
        old, new = SCALERS.format("v1"), SCALERS.format("v2")
        first = scaler("v1", targetCPUUtilizationPercentage=50)
        assert (await patch(caller, f"{old}/h", first, fieldManager="one"))[0] == 201
        target = {"type": "Utilization", "averageUtilization": 70}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        status, told = await patch(caller, f"{new}/h", scaler("v2", metrics=metrics), fieldManager="two")
        assert status == 409, told
        assert (
            told["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.targetCPUUtilizationPercentage'
        )
        forced = await patch(caller, f"{new}/h", scaler("v2", metrics=metrics), fieldManager="two", force="true")
        assert forced[0] == 200, forced
        left = owners(forced[1])[("one", "Apply", "autoscaling/v1", "")]["f:spec"]
        assert set(left) == {"f:maxReplicas", "f:scaleTargetRef"}
        gone = await patch(caller, f"{new}/h", {**scaler("v2"), "spec": {"maxReplicas": 5}}, fieldManager="two")
        assert gone[0] == 200, gone
        assert gone[1]["spec"]["scaleTargetRef"]["name"] == "d"  # the owner that wrote v1 still has it

    served(work)


def test_a_manager_that_changes_versions_gives_up_what_the_old_one_called_otherwise() -> None:
    """Its entry moves to the new version; the field that it no longer names goes, by whatever name."""

    async def work(caller: Caller) -> None:
        first = scaler("v1", targetCPUUtilizationPercentage=50, minReplicas=2)
        assert (await patch(caller, f"{SCALERS.format('v1')}/h", first, fieldManager="one"))[0] == 201
        status, moved = await patch(caller, f"{SCALERS.format('v2')}/h", scaler("v2"), fieldManager="one")
        assert status == 200, moved
        assert list(owners(moved)) == [("one", "Apply", "autoscaling/v2", "")]
        assert moved["spec"]["minReplicas"] == 1
        seen = (await caller.call("GET", f"{SCALERS.format('v1')}/h"))[1]
        assert seen["spec"].get("targetCPUUtilizationPercentage") != 50

    served(work)


def test_entries_of_versions_that_are_gone_are_dropped() -> None:
    """Nobody can tell what they own."""

    async def work(caller: Caller) -> None:
        entry = {
            "manager": "old",
            "operation": "Update",
            "apiVersion": "v0",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}}},
        }
        made = await caller.call("POST", f"{MAPS}?fieldManager=u", config_map({"a": "1"}, managedFields=[entry]))
        assert made[0] == 201, made
        assert [who for who, *_ in owners(made[1])] == ["u"]
        one = {**entry, "apiVersion": "v1"}
        body = {"metadata": {"managedFields": [one, {**entry, "manager": "gone"}]}}
        status, left = await patch(caller, f"{MAPS}/m", body, MERGE, fieldManager="u")
        assert (status, [who for who, *_ in owners(left)]) == (200, ["old"]), left

    served(work)


def definition() -> dict[str, Any]:
    """A custom kind of two versions, each with its replicas at another place."""

    def version(name: str, field: str) -> dict[str, Any]:
        spec = {"type": "object", "properties": {"count": {"type": "integer"}, "size": {"type": "integer"}}}
        schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}
        paths = {"specReplicasPath": f".spec.{field}", "statusReplicasPath": ".status.replicas"}
        return {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"scale": paths},
        }

    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {**spec, "versions": [version("v1", "count"), version("v2", "size")]},
    }


def test_custom_versions_and_their_scales() -> None:
    """Each version's owners have its own place of the replicas; a write of the scale takes it from all of them."""

    async def work(caller: Caller) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert (await caller.call("POST", path, definition()))[0] == 201
        widgets = "/apis/example.com/{}/namespaces/default/widgets"
        config = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"count": 2}}
        for _ in range(100):
            status, made = await patch(caller, f"{widgets.format('v1')}/w", config, fieldManager="one")
            if status != 404:
                break
            await asyncio.sleep(0)
        assert status == 201, made
        other = {**config, "apiVersion": "example.com/v2", "spec": {"size": 7}}
        assert (await patch(caller, f"{widgets.format('v2')}/w", other, fieldManager="two"))[0] == 200
        status, told = await patch(caller, f"{widgets.format('v1')}/w/scale", scale(3, "w"), fieldManager="three")
        assert status == 409, told
        assert told["message"].count("conflict with") == 2, told
        status, told = await patch(
            caller, f"{widgets.format('v1')}/w/scale", scale(3, "w"), fieldManager="three", force="true"
        )
        assert (status, told["spec"]) == (200, {"replicas": 3}), told
        found = (await caller.call("GET", f"{widgets.format('v1')}/w"))[1]
        assert owners(found) == {("three", "Apply", "example.com/v1", "scale"): {"f:spec": {"f:count": {}}}}

    served(work)


def test_apply_on_a_scale() -> None:
    """The replicas change hands between the workload and its scale, in both directions and with conflicts."""

    async def work(caller: Caller) -> None:
        path, part = f"{SETS}/r", f"{SETS}/r/scale"
        assert (await patch(caller, path, replica_set(replicas=2), fieldManager="one"))[0] == 201
        status, told = await patch(caller, part, scale(5), fieldManager="two")
        assert status == 409, told
        assert told["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
        status, shared = await patch(caller, part, scale(2), fieldManager="two")
        assert (status, shared["spec"]) == (200, {"replicas": 2}), shared
        both = owners((await caller.call("GET", path))[1])
        assert both[("two", "Apply", "apps/v1", "scale")] == {"f:spec": {"f:replicas": {}}}
        assert "f:replicas" in both[("one", "Apply", "apps/v1", "")]["f:spec"]
        status, forced = await patch(caller, part, scale(5), fieldManager="two", force="true")
        assert (status, forced["spec"]) == (200, {"replicas": 5}), forced
        found = (await caller.call("GET", path))[1]
        assert "f:replicas" not in owners(found)[("one", "Apply", "apps/v1", "")]["f:spec"]
        status, told = await patch(caller, path, replica_set(replicas=2), fieldManager="one")
        assert status == 409, told
        assert 'conflict with "two" with subresource "scale": .spec.replicas' in told["message"]
        status, back = await patch(caller, path, replica_set(replicas=2), fieldManager="one", force="true")
        assert (status, back["spec"]["replicas"]) == (200, 2), back
        assert list(owners(back)) == [("one", "Apply", "apps/v1", "")]

    served(work)


def test_replicas_that_nobody_owns_stay_so_when_scaled() -> None:
    """An update starts no record where there is none; an apply does, and meets what was there before it."""

    async def work(caller: Caller) -> None:
        path, part = f"{SETS}/r", f"{SETS}/r/scale"
        assert (await patch(caller, path, replica_set(), fieldManager="one"))[0] == 201
        assert (await caller.call("PUT", f"{part}?fieldManager=s", scale(5)))[0] == 200
        assert list(owners((await caller.call("GET", path))[1])) == [("one", "Apply", "apps/v1", "")]
        status, told = await patch(caller, part, scale(3), fieldManager="two")
        assert status == 409, told
        who = '"before-first-apply" with subresource "scale" using autoscaling/v1'
        assert told["message"] == f"Apply failed with 1 conflict: conflict with {who}: .spec.replicas"

    served(work)


def test_wrong_configurations_of_a_scale() -> None:
    """A name, a version, owners or a uid that do not fit."""

    async def work(caller: Caller) -> None:
        assert (await patch(caller, f"{SETS}/r", replica_set(replicas=2), fieldManager="one"))[0] == 201
        part, query = f"{SETS}/r/scale", {"fieldManager": "two"}
        assert (await patch(caller, part, scale(2, "other"), **query))[0] == 400
        status, told = await patch(caller, part, replica_set(), **query)
        assert (status, told["message"]) == (400, "invalid object type: apps/v1, Kind=ReplicaSet")
        owned = {**scale(2), "metadata": {"name": "r", "managedFields": []}}
        status, told = await patch(caller, part, owned, **query)
        assert (status, told["message"]) == (400, "metadata.managedFields must be nil")
        status, told = await patch(caller, part, {**scale(2), "metadata": {"name": "r", "uid": "else"}}, **query)
        assert status == 409, told
        assert "replicasets.apps/scale" in told["message"] or "replicasets/scale" in told["message"], told
        status, told = await patch(caller, f"{SETS}/absent/scale", scale(2, "absent"), **query)
        assert (status, told["message"]) == (404, 'replicasets.apps "absent" not found')

    served(work)


def test_from_client_side_apply_to_server_side_apply() -> None:
    """kubectl takes over what its annotation says it set, keeps the annotation current, and nobody else can."""

    async def work(caller: Caller) -> None:
        before = {**config_map({"a": "1", "b": "1"}), "metadata": {"name": "m"}}
        noted = config_map({"a": "1", "b": "1"}, annotations={LAST: json.dumps(before)})
        assert (await caller.call("POST", f"{MAPS}?fieldManager=kubectl-client-side-apply", noted))[0] == 201
        changed = config_map({"a": "2 < 3", "b": "1"})
        status, told = await patch(caller, f"{MAPS}/m", changed, fieldManager="other")
        assert status == 409, told
        status, taken = await patch(caller, f"{MAPS}/m", changed, fieldManager="kubectl")
        assert (status, taken["data"]["a"]) == (200, "2 < 3"), taken
        text = taken["metadata"]["annotations"][LAST]
        assert text == (
            '{"apiVersion":"v1","data":{"a":"2 \\u003c 3","b":"1"},"kind":"ConfigMap","metadata":{"name":"m"}}\n'
        )
        moved = {"data": {"b": "else"}}
        assert (await patch(caller, f"{MAPS}/m", moved, MERGE, fieldManager="editor"))[0] == 200
        status, told = await patch(caller, f"{MAPS}/m", changed, fieldManager="kubectl")
        assert status == 409, told
        assert told["message"] == 'Apply failed with 1 conflict: conflict with "editor" using v1: .data.b'

    served(work)


def test_the_annotation_is_not_made_and_has_a_limit() -> None:
    """No annotation, no annotation; one for which there is no room any more goes."""

    async def work(caller: Caller) -> None:
        plain = (await patch(caller, f"{MAPS}/m", config_map({"a": "1"}), fieldManager="kubectl"))[1]
        assert "annotations" not in plain["metadata"]
        noted = {"metadata": {"annotations": {LAST: "{}"}}}
        assert (await patch(caller, f"{MAPS}/m", noted, MERGE, fieldManager="u"))[0] == 200
        large = await patch(caller, f"{MAPS}/m", config_map({"a": "x" * 300_000}), fieldManager="kubectl", force="true")
        assert large[0] == 200, large
        assert LAST not in large[1]["metadata"].get("annotations", {})

    served(work)


HEAD = "failed to create typed patch object (/r; apps/v1, Kind=ReplicaSet): "


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"replicas": "2"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"template": []}, ".spec.template: expected map, got &{[]}"),
        (
            {"template": {"spec": {"containers": {"a": "b"}}}},
            ".spec.template.spec.containers: expected list, got &{map[a:b]}",
        ),
        (
            {"template": {"metadata": {"labels": {"n": 5}}}},
            ".spec.template.metadata.labels.n: expected string, got &value.valueUnstructured{Value:5}",
        ),
        (
            {"template": {"spec": {"hostNetwork": "yes"}}},
            ".spec.template.spec.hostNetwork: expected boolean, got &{yes}",
        ),
        (
            {"template": {"metadata": {"finalizers": [["a"]]}}},
            ".spec.template.metadata.finalizers: element 0: not supported: associative list with lists as elements",
        ),
        (
            {"selector": {"matchLabels": {"a": True}}},
            ".spec.selector.matchLabels.a: expected string, got &value.valueUnstructured{Value:true}",
        ),
        (
            {"replicas": "2", "template": {"spec": {"bogus": 1}}},
            "errors:\n  .spec.replicas: expected numeric (int or float), got string\n"
            "  .spec.template.spec.bogus: field not declared in schema",
        ),
    ],
)
def test_all_that_is_wrong_is_told(spec: dict[str, Any], told: str) -> None:
    """Values of other types than the schema's, told as upstream tells them, several together."""

    async def work(caller: Caller) -> None:
        obj = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}
        status, answer = await patch(caller, f"{SETS}/r", obj, fieldManager="one")
        assert (status, answer["message"]) == (500, HEAD + told)

    served(work)


def test_wrong_options_are_told_together() -> None:
    """Every option of a write is judged, in upstream's order."""

    async def work(caller: Caller) -> None:
        path, obj = f"{MAPS}/m", config_map({"a": "1"})
        status, told = await patch(caller, path, obj, dryRun="Some", fieldValidation="Maybe")
        assert status == 422
        assert told["message"] == (
            'PatchOptions.meta.k8s.io "" is invalid: [fieldManager: Required value: is required for apply patch, '
            'dryRun: Unsupported value: ["Some"]: supported values: "All", '
            'fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"]'
        )
        status, told = await patch(caller, path, obj, MERGE, force="true", fieldManager="é" * 65)
        assert [cause["field"] for cause in told["details"]["causes"]] == ["force", "fieldManager"], told
        status, told = await patch(caller, path, obj, fieldManager="a\tb")
        assert told["details"]["causes"][0]["message"] == (
            'Invalid value: "a\\tb": invalid character U+0009 (at position 1)'
        )
        dry = await patch(caller, path, obj, fieldManager="one", dryRun="All")
        assert (dry[0], (await caller.call("GET", path))[0]) == (201, 404)

    served(work)


def test_what_clients_write_into_the_record() -> None:
    """Names that nobody can have are refused, an empty record on a create is none, and no part writes one."""

    async def work(caller: Caller) -> None:
        entry = {"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}}
        wrong = {**entry, "manager": "x" * 129, "subresource": "y" * 257}
        status, told = await caller.call("POST", MAPS, config_map({"a": "1"}, managedFields=[wrong]))
        assert status == 422, told
        fields = [cause["field"] for cause in told["details"]["causes"]]
        assert fields == ["metadata.managedFields[0].manager", "metadata.managedFields[0].subresource"]
        status, made = await caller.call("POST", f"{MAPS}?fieldManager=u", config_map({"a": "1"}, managedFields=[]))
        assert (status, list(owners(made))) == (201, [("u", "Update", "v1", "")])
        status, made = await caller.call("POST", f"{SETS}?fieldManager=u", replica_set(replicas=1))
        body = {"metadata": {"managedFields": [{}]}, "status": {"replicas": 4}}
        status, left = await patch(caller, f"{SETS}/r/status", body, MERGE, fieldManager="s")
        assert status == 200, left
        assert set(owners(left)) == {("u", "Update", "apps/v1", ""), ("s", "Update", "apps/v1", "status")}

    served(work)


def test_whoever_binds_a_pod_owns_nothing_of_it() -> None:
    """The node of a pod is nobody's field."""

    async def work(caller: Caller) -> None:
        pods = "/api/v1/namespaces/default/pods"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        pod["spec"] = {"containers": [{"name": "c", "image": "i"}]}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await caller.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        made = await caller.call("POST", f"{pods}?fieldManager=u", pod)
        assert made[0] == 201, made
        target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}}
        assert (await caller.call("POST", f"{pods}/p/binding?fieldManager=b", target))[0] == 201
        bound = (await caller.call("GET", f"{pods}/p"))[1]
        assert (bound["spec"]["nodeName"], [who for who, *_ in owners(bound)]) == ("n", ["u"])

    served(work)
