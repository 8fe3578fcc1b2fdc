"""Definitions of custom kinds from their first condition to their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.test_admission_paths import policy
from tests.fakes.server import Caller, serving

from k3s.api.object import Object

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = {"Content_Type": "application/merge-patch+json"}


def definition(group: str = "example.com", **annotations: str) -> Object:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}", "annotations": annotations},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def told(caller: Caller, name: str, type: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition, once it is there."""
    while True:
        _, found = await caller.call("GET", f"{DEFINITIONS}/{name}")
        for condition in found["status"].get("conditions") or ():
            if condition["type"] == type:
                return condition["status"], condition["reason"], condition["message"]


def test_a_definition_goes_after_its_objects(run: Any) -> None:
    """Nothing is created any more, nobody is asked about the deletions, and what finalizers hold is waited for."""

    async def body() -> None:
        async with serving() as server:
            caller, watch = Caller(server.ports[0]), Caller(server.ports[0])
            things = "/apis/example.com/v1/namespaces/default/things"
            thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "free"}}
            assert (await caller.call("POST", DEFINITIONS, definition()))[0] == 201
            assert (await told(caller, "things.example.com", "Established"))[0] == "True"
            assert (await caller.call("POST", things, thing))[0] == 201
            held = {**thing, "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
            assert (await caller.call("POST", things, held))[0] == 201
            never = {"validations": [{"expression": "false", "message": "never"}]}
            await policy(caller, "ValidatingAdmissionPolicy", never, {"apiGroups": ["example.com"]})
            assert (await caller.call("DELETE", f"{things}/free"))[0] == 422
            await watch.send("GET", f"{things}?watch=true")
            await watch.answer_head()
            assert (await caller.call("DELETE", f"{DEFINITIONS}/things.example.com"))[0] == 200
            assert await told(caller, "things.example.com", "Terminating") == (
                "True",
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
            )
            status, answer = await caller.call("POST", things, {**thing, "metadata": {"name": "late"}})
            said = (status, answer["reason"], answer["message"])
            assert said == (
                405,
                "MethodNotAllowed",
                "create not allowed while custom resource definition is terminating",
            )
            while (await caller.call("GET", f"{things}/free"))[0] != 404:
                pass
            _, left = await caller.call("GET", f"{things}/held")
            assert "deletionTimestamp" in left["metadata"]
            policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
            assert (await caller.call("DELETE", f"{policies}/p"))[0] == 200
            assert (await caller.call("PATCH", f"{things}/held", {"metadata": {"finalizers": None}}, **MERGE))[0] == 200
            while (await caller.call("GET", f"{DEFINITIONS}/things.example.com"))[0] != 404:
                pass
            await caller.send("GET", things)
            assert (await caller.answer())[0] == 404
            events = []
            while event := await asyncio.wait_for(watch.event(), 10):
                events.append(event["type"])
            assert events[-1] == "DELETED"
            assert (await caller.call("POST", DEFINITIONS, definition()))[0] == 201
            assert (await told(caller, "things.example.com", "Established"))[0] == "True"
            assert (await caller.call("GET", things))[1]["items"] == []
            watch.close()
            caller.close()

    run(body())


@pytest.mark.parametrize(
    ("annotation", "condition"),
    [
        ("https://example.com/pull/1", ("True", "ApprovedAnnotation", "approved in https://example.com/pull/1")),
        ("unapproved, a try", ("False", "UnapprovedAnnotation", 'not approved: "unapproved, a try"')),
    ],
)
def test_who_approved_a_definition_of_the_project(run: Any, annotation: str, condition: tuple[str, str, str]) -> None:
    """Groups of the Kubernetes project say so in a condition, which follows the annotation; others say nothing."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            approved = definition("x.k8s.io", **{"api-approved.kubernetes.io": annotation})
            status, made = await caller.call("POST", DEFINITIONS, approved)
            assert status == 201, made
            name, kind = "things.x.k8s.io", "KubernetesAPIApprovalPolicyConformant"
            assert await told(caller, name, kind) == condition
            change = {"metadata": {"annotations": {"api-approved.kubernetes.io": "unapproved, why"}}}
            await caller.call("PATCH", f"{DEFINITIONS}/{name}", change, **MERGE)
            while (await told(caller, name, kind))[2] != 'not approved: "unapproved, why"':
                pass
            await caller.call("POST", DEFINITIONS, definition())
            assert (await told(caller, "things.example.com", "Established"))[0] == "True"
            _, other = await caller.call("GET", f"{DEFINITIONS}/things.example.com")
            assert {c["type"] for c in other["status"]["conditions"]} == {"NamesAccepted", "Established"}
            caller.close()

    run(body())


def test_a_kind_is_there_at_once(run: Any) -> None:
    """Objects, discovery and both OpenAPI documents know of a kind, and of its end, when asked after 100 ms."""

    async def body() -> None:
        async with serving() as server:
            caller, loop = Caller(server.ports[0]), asyncio.get_running_loop()

            async def known(group: str) -> list[bool]:
                path = f"/apis/{group}/v1"
                await caller.send("GET", f"{path}/namespaces/default/things")
                objects, _, _ = await caller.answer()
                groups = (await caller.call("GET", "/apis"))[1]["groups"]
                documents = (await caller.call("GET", "/openapi/v3"))[1]["paths"]
                second = (await caller.call("GET", "/openapi/v2"))[1]["paths"]
                named = [any(g["name"] == group for g in groups), path[1:] in documents, f"{path}/things" in second]
                return [objects == 200, *named]

            async def until(group: str, wanted: bool) -> float:
                begun = asked = loop.time()
                while await known(group) != [wanted] * 4:
                    asked = loop.time()
                    assert asked < begun + 10
                return asked - begun

            await known("none.example.com")
            came, went = [], []
            for number in range(5):
                group = f"g{number}.example.com"
                assert (await caller.call("POST", DEFINITIONS, definition(group)))[0] == 201
                came.append(await until(group, True))
                assert (await caller.call("DELETE", f"{DEFINITIONS}/things.{group}"))[0] == 200
                went.append(await until(group, False))
            assert min(came) < 0.1 and min(went) < 0.1, (came, went)
            caller.close()

    run(body())
