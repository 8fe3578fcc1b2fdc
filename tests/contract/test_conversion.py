"""Custom kinds whose versions a webhook converts, against a real HTTPS server that does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hooks import Hooks, played
from tests.fakes.server import Caller

from k3s.api.kinds import Registry, make
from k3s.api.object import Object

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1, V2 = "/apis/example.com/v1/namespaces/default/servers", "/apis/example.com/v2/namespaces/default/servers"


def converted(obj: Object, version: str) -> Object:
    """v1 has `spec.address` (host:port), v2 `spec.host` and `spec.port`."""
    spec = obj["spec"]
    if version == "example.com/v2" and "address" in spec:
        host, _, port = spec["address"].partition(":")
        spec = {"host": host, "port": int(port)}
    elif version == "example.com/v1" and "host" in spec:
        spec = {"address": f"{spec['host']}:{spec['port']}"}
    return {**obj, "apiVersion": version, "spec": {**spec, "unknown": "pruned"}}


def answer(asked: Object, **changes: Any) -> Object:
    objects = [converted(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
    response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": objects, **changes}
    return {"body": {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}}


def version(name: str, fields: Object, **more: Any) -> Object:
    spec = {"type": "object", "properties": fields}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {"name": name, "served": True, "storage": name == "v1", "schema": schema, **more}


def definition(hooks: Hooks, **v1: Any) -> Object:
    text, number = {"type": "string"}, {"type": "integer"}
    both = {"host": text, "port": number, "weight": {"type": "integer", "default": 7}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "servers.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "servers", "kind": "Server"},
            "versions": [
                version("v1", {"address": text}, **v1),
                version("v2", both, selectableFields=[{"jsonPath": ".spec.host"}]),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": hooks.client_config("/convert")},
            },
        },
    }


def server(name: str, api_version: str = "example.com/v2", **spec: Any) -> Object:
    return {"apiVersion": api_version, "kind": "Server", "metadata": {"name": name}, "spec": spec}


def steps_with(body: Callable[[Hooks, Caller], Any], **v1: Any) -> Callable[[Hooks, Caller], Any]:
    async def steps(hooks: Hooks, caller: Caller) -> None:
        status, made = await caller.call("POST", DEFINITIONS, definition(hooks, **v1))
        assert status == 201, made
        await body(hooks, caller)

    return steps


@pytest.mark.parametrize("served", [True, False])
def test_objects_are_read_and_written_in_every_version(run: Any, tmp_path: Path, served: bool) -> None:
    """Every verb in the version that is not stored, also where the stored one is not served."""

    async def body(hooks: Hooks, caller: Caller) -> None:
        status, made = await caller.call("POST", V2, server("a", host="one", port=80, weight=3))
        assert (status, made["spec"]) == (201, {"host": "one", "port": 80, "weight": 7}), made
        await caller.call("POST", V2, server("b", host="two", port=81))
        if served:
            assert (await caller.call("GET", f"{V1}/a"))[1]["spec"] == {"address": "one:80"}
        _, seen = await caller.call("GET", f"{V2}/a")
        assert (seen["apiVersion"], seen["metadata"]["uid"]) == ("example.com/v2", made["metadata"]["uid"])
        asked = len(hooks.asked)
        _, listed = await caller.call("GET", V2)
        assert [o["spec"]["host"] for o in listed["items"]] == ["one", "two"]
        assert len(hooks.asked) == asked + 1, "one question for a whole list"
        _, listed = await caller.call("GET", f"{V2}?limit=1")
        _, rest = await caller.call("GET", f"{V2}?limit=1&continue={listed['metadata']['continue']}")
        assert [o["metadata"]["name"] for o in (*listed["items"], *rest["items"])] == ["a", "b"]
        _, listed = await caller.call("GET", f"{V2}?fieldSelector=spec.host%3Dtwo")
        assert [o["metadata"]["name"] for o in listed["items"]] == ["b"]
        merge = {"Content_Type": "application/merge-patch+json"}
        status, new = await caller.call("PATCH", f"{V2}/a", {"spec": {"port": 90}}, **merge)
        assert (status, new["spec"]["port"], new["metadata"]["generation"]) == (200, 90, 2), new
        status, _ = await caller.call("DELETE", f"{V2}/a")
        assert status == 200
        status, _ = await caller.call("GET", f"{V2}/a")
        assert status == 404

    played(run, tmp_path, lambda _path, asked: answer(asked), steps_with(body, served=served))


def policy(kind: str, **spec: Any) -> list[tuple[str, Object]]:
    """A policy about version v1 of servers, and its binding."""
    rule = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["servers"]}
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "p"}}
    path = f"/apis/admissionregistration.k8s.io/v1/{kind.lower()[:-1]}"
    actions = {"validationActions": ["Deny"]} if kind.startswith("Validating") else {}
    return [
        (f"{path}ies", {**group, "kind": kind, "spec": {"matchConstraints": {"resourceRules": [rule]}, **spec}}),
        (f"{path}ybindings", {**group, "kind": f"{kind}Binding", "spec": {"policyName": "p", **actions}}),
    ]


def test_policies_see_the_version_that_they_match(run: Any, tmp_path: Path) -> None:
    """Writes in another version are converted for them by the webhook, and what they change is converted back."""

    async def body(hooks: Hooks, caller: Caller) -> None:
        changed = "Object{spec: Object.spec{address: object.spec.address + '1'}}"
        mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": changed}}
        mutating = {"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [mutation]}
        rule = {"expression": "object.spec.address.startsWith('one:')", "message": "not one"}
        for path, obj in (
            *policy("ValidatingAdmissionPolicy", validations=[rule]),
            *policy("MutatingAdmissionPolicy", **mutating),
        ):
            status, made = await caller.call("POST", path, obj)
            assert status == 201, made
        status, made = await caller.call("POST", V2, server("a", host="one", port=8))
        assert (status, made["spec"]) == (201, {"host": "one", "port": 81, "weight": 7}), made
        status, made = await caller.call("POST", V2, server("b", host="two", port=8))
        assert (status, made["message"].rpartition(": ")[2]) == (422, "not one"), made
        merge = {"Content_Type": "application/merge-patch+json"}
        status, made = await caller.call("PATCH", f"{V2}/a", {"spec": {"host": "two"}}, **merge)
        assert status == 422, made

    played(run, tmp_path, lambda _path, asked: answer(asked), steps_with(body))


def test_watchers_are_told_in_their_version(run: Any, tmp_path: Path) -> None:
    """What is there, and every change in order, selectors by the watcher's own fields; the stored version is not asked
    for."""

    async def body(hooks: Hooks, caller: Caller) -> None:
        await caller.call("POST", V1, server("a", "example.com/v1", address="one:1"))
        watch, chosen = Caller(caller.port), Caller(caller.port)
        await watch.send(
            "GET", f"{V2}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        )
        await chosen.send("GET", f"{V2}?watch=true&fieldSelector=spec.host%3Dtwo&resourceVersion=1")
        await watch.answer_head()
        await chosen.answer_head()
        first = await watch.event()
        assert (first["type"], first["object"]["spec"]["host"]) == ("ADDED", "one")
        assert (await watch.event())["type"] == "BOOKMARK"
        merge = {"Content_Type": "application/merge-patch+json"}
        await caller.call("PATCH", f"{V1}/a", {"spec": {"address": "two:2"}}, **merge)
        await caller.call("DELETE", f"{V1}/a")
        second, third = await watch.event(), await watch.event()
        assert [(e["type"], e["object"]["spec"]["host"]) for e in (second, third)] == [
            ("MODIFIED", "two"),
            ("DELETED", "two"),
        ]
        assert [(await chosen.event())["type"] for _ in range(2)] == ["ADDED", "DELETED"]
        watch.close()
        chosen.close()

    played(run, tmp_path, lambda _path, asked: answer(asked), steps_with(body))


def test_bad_answers_have_upstreams_words(run: Any, tmp_path: Path) -> None:
    """An answer that is not what was asked for is told, nothing is changed, and the stored version still works."""
    wrong: list[Callable[[Object], Object]] = []

    def answers(_path: str, asked: Object) -> Object:
        return wrong[-1](asked) if wrong else answer(asked)

    async def body(hooks: Hooks, caller: Caller) -> None:
        await caller.call("POST", V1, server("a", "example.com/v1", address="one:1"))
        _, stored = await caller.call("GET", f"{V1}/a")

        async def told(change: Callable[[Object], Object]) -> str:
            wrong.append(change)
            status, body = await caller.call("GET", f"{V2}/a")
            assert (status, body["kind"]) == (500, "Status")
            return str(body["message"]).removeprefix("conversion webhook for example.com/v1, Kind=Server ")

        def other(**changes: Any) -> Callable[[Object], Object]:
            return lambda asked: answer(asked, **changes)

        def renamed(asked: Object) -> Object:
            objects = [{**converted(o, "example.com/v2"), "metadata": {"name": "b"}} for o in asked["objects"]]
            return answer(asked, convertedObjects=objects)

        assert await told(other(result={"status": "Failure", "message": "no way"})) == "failed: no way"
        assert await told(other(result={})) == "failed: response.result.status was '', not 'Success'"
        assert await told(other(convertedObjects=[])) == "returned 0 objects, expected 1"
        assert await told(lambda asked: answer(asked, convertedObjects=asked["objects"])) == (
            "returned invalid object at index 0: "
            "invalid groupVersion (expected example.com/v2, received example.com/v1)"
        )
        assert await told(renamed) == "returned invalid object: must have the same name: a != b"
        assert (await told(lambda _: {"http": "500 Oops", "body": "broken"})).startswith("failed: an error on the")
        status, body = await caller.call("PUT", f"{V2}/a", server("a", host="x", port=1))
        assert (status, body["kind"]) == (500, "Status")
        assert (await caller.call("GET", f"{V1}/a"))[1] == stored
        wrong.clear()
        watch = Caller(caller.port)
        await watch.send("GET", f"{V2}?watch=true&resourceVersion={stored['metadata']['resourceVersion']}")
        await watch.answer_head()
        wrong.append(other(result={"status": "Failure", "message": "no way"}))
        merge = {"Content_Type": "application/merge-patch+json"}
        await caller.call("PATCH", f"{V1}/a", {"spec": {"address": "two:2"}}, **merge)
        event = await watch.event()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
        watch.close()

    hooks = played(run, tmp_path, answers, steps_with(body))
    assert all(json.dumps(asked) for _, asked in hooks.asked)


def test_only_labels_and_annotations_of_the_metadata_change(run: Any, tmp_path: Path) -> None:
    """The webhook's labels count; what it says of other metadata does not."""

    def answers(_path: str, asked: Object) -> Object:
        objects = []
        for obj in asked["objects"]:
            new = converted(obj, asked["desiredAPIVersion"])
            meta = {**new["metadata"], "labels": {"by": "hook"}, "finalizers": ["example.com/x"], "generation": 99}
            objects.append({**new, "metadata": meta})
        return answer(asked, convertedObjects=objects)

    async def body(hooks: Hooks, caller: Caller) -> None:
        await caller.call("POST", V1, server("a", "example.com/v1", address="one:1"))
        meta = (await caller.call("GET", f"{V2}/a"))[1]["metadata"]
        assert (meta["labels"], meta.get("finalizers"), meta["generation"]) == ({"by": "hook"}, None, 1)

    played(run, tmp_path, answers, steps_with(body))


def test_without_a_webhook_only_the_version_differs(run: Any, tmp_path: Path) -> None:
    """Strategy None, the stored version not served: controllers see such objects by a version that is."""

    async def steps(hooks: Hooks, caller: Caller) -> None:
        wanted = definition(hooks, served=False)
        wanted["spec"]["conversion"] = {"strategy": "None"}
        await caller.call("POST", DEFINITIONS, wanted)
        status, made = await caller.call("POST", V2, server("a", host="one"))
        assert (status, made["apiVersion"], made["spec"]["host"]) == (201, "example.com/v2", "one"), made
        assert (await caller.call("GET", f"{V2}/a"))[1] == made

    assert played(run, tmp_path, lambda _path, asked: answer(asked), steps).asked == []
    registry = Registry()
    shape = {"namespaced": True, "storage": ("example.com", "v1"), "custom": True}
    rows = [make("example.com", name, "Server", "servers", **shape) for name in ("v2beta1", "v2")]
    for row in rows:
        registry.add(row)
    assert registry.stored() == [rows[1]] == [registry.storage_kind(row) for row in rows[:1]]
    registry.add(stored := make("example.com", "v1", "Server", "servers", **shape))
    assert registry.stored() == [stored]


def test_owners_keep_their_fields_in_the_version_that_they_wrote(run: Any, tmp_path: Path) -> None:
    """An apply in one version conflicts with, takes from, and gives up fields of owners in another, as the webhook
    converts."""
    head = {"Content_Type": "application/apply-patch+yaml"}

    def owners(obj: Object) -> dict[str, Any]:
        return {entry["manager"]: entry["fieldsV1"].get("f:spec") for entry in obj["metadata"]["managedFields"]}

    async def body(hooks: Hooks, caller: Caller) -> None:
        first = server("a", host="one", port=80)
        status, made = await caller.call("PATCH", f"{V2}/a?fieldManager=first", first, **head)
        assert status == 201, made
        other = server("a", "example.com/v1", address="one:81")
        status, made = await caller.call("PATCH", f"{V1}/a?fieldManager=second", other, **head)
        assert (status, made["reason"]) == (409, "Conflict"), made
        assert made["message"].endswith('conflict with "first": .spec.port'), made
        status, made = await caller.call("PATCH", f"{V1}/a?fieldManager=second&force=true", other, **head)
        assert (status, made["spec"]) == (200, {"address": "one:81"}), made
        assert owners(made) == {"first": {"f:host": {}}, "second": {"f:address": {}}}
        merge = {"Content_Type": "application/merge-patch+json"}
        change = {"spec": {"address": "two:81"}}
        status, made = await caller.call("PATCH", f"{V1}/a?fieldManager=third", change, **merge)
        assert owners(made) == {"third": {"f:address": {}}}

    played(run, tmp_path, lambda _path, asked: answer(asked), steps_with(body))


def test_without_an_answer_nobody_owns_anything(run: Any, tmp_path: Path) -> None:
    """A write in the stored version goes on when the webhook does not say how others see it."""

    async def body(hooks: Hooks, caller: Caller) -> None:
        await caller.call("POST", f"{V2}?fieldManager=first", server("a", host="one", port=80))
        works.clear()
        merge = {"Content_Type": "application/merge-patch+json"}
        change = {"spec": {"address": "two:81"}}
        status, made = await caller.call("PATCH", f"{V1}/a?fieldManager=second", change, **merge)
        assert (status, made["spec"]) == (200, {"address": "two:81"}), made
        assert "managedFields" not in made["metadata"]

    works = [True]
    broken: Object = {"http": "500 Oops", "body": "broken"}
    played(run, tmp_path, lambda _path, asked: answer(asked) if works else broken, steps_with(body))
