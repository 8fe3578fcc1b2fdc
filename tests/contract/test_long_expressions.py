"""Expressions that take long: everybody else is answered meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.object import Object

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAPS = "/api/v1/namespaces/default/configmaps"
# As many that a loop in a loop over all of them goes beyond what one evaluation may cost.
MANY = [f"k{number}" for number in range(600)]
LIMIT = "operation cancelled: actual cost limit exceeded"


async def policy(caller: Caller, rule: str) -> None:
    """Every ConfigMap is held to a rule."""
    about = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "p"}}
    spec = {"matchConstraints": {"resourceRules": [about]}, "validations": [{"expression": rule}]}
    made = await caller.call("POST", f"{POLICIES}ies", {**group, "kind": "ValidatingAdmissionPolicy", "spec": spec})
    assert made[0] == 201, made
    spec = {"policyName": "p", "validationActions": ["Deny"]}
    bound = {**group, "kind": "ValidatingAdmissionPolicyBinding", "spec": spec}
    assert (await caller.call("POST", f"{POLICIES}ybindings", bound))[0] == 201


def definition(rule: str) -> Object:
    """A kind with a list of texts that is held to a rule."""
    text = {"type": "string", "maxLength": 8}
    names = {"type": "array", "maxItems": 1000, "items": text, "x-kubernetes-validations": [{"rule": rule}]}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"names": names}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "longs.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "longs", "kind": "Long"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def meanwhile(
    port: int, path: str, body: Any, method: str = "POST", media: str = "application/json"
) -> tuple[Object, list[float]]:
    """What a write is answered with, and how many seconds others waited who asked one after the other until then."""
    slow, quick, loop = Caller(port), Caller(port), asyncio.get_running_loop()
    await quick.call("GET", f"{MAPS}?limit=1")
    asked = asyncio.ensure_future(slow.call(method, path, body, Content_Type=media))
    waits = []
    while not asked.done():
        begun = loop.time()
        await quick.call("GET", f"{MAPS}?limit=1")
        waits.append(loop.time() - begun)
    slow.close()
    quick.close()
    return (await asked)[1], waits[:-1]


def check(waits: list[float]) -> None:
    """Many were answered, and half of them within a tenth of a second, however busy the machine is."""
    assert len(waits) > 5, waits
    assert sorted(waits)[len(waits) // 2] < 0.1, waits


def test_a_policy_at_its_limit_holds_up_nobody(run: Any) -> None:
    """Its write waits, and is refused in the end."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            await policy(caller, "object.data.all(a, object.data.all(b, a != '' && b != ''))")
            config = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c"},
                "data": dict.fromkeys(MANY, ""),
            }
            answer, waits = await meanwhile(server.ports[0], MAPS, config)
            assert answer["message"].endswith(LIMIT), answer
            check(waits)
            config["data"] = {"a": ""}
            assert (await caller.call("POST", MAPS, config))[0] == 201
            caller.close()

    run(body())


@pytest.mark.slow
def test_a_rule_of_a_custom_kind_at_its_limit_holds_up_nobody(run: Any) -> None:
    """A create and an update of it wait, and are refused in the end."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            rule = "self.all(a, self.all(b, a != '' && b != ''))"
            status, made = await caller.call("POST", DEFINITIONS, definition(rule))
            assert status == 201, made
            path = "/apis/example.com/v1/namespaces/default/longs"
            wanted = {"apiVersion": "example.com/v1", "kind": "Long", "metadata": {"name": "a"}, "names": ["x"]}
            while (await caller.call("GET", path))[0] != 200:
                pass
            assert (await caller.call("POST", path, wanted))[0] == 201
            other = {**wanted, "metadata": {"name": "b"}, "names": MANY}
            answer, waits = await meanwhile(server.ports[0], path, other)
            assert f"'{LIMIT}': no further validation rules will be run" in answer["message"]
            check(waits)
            patch = {"names": MANY}
            head = {"Content_Type": "application/merge-patch+json"}
            status, answer = await caller.call("PATCH", f"{path}/a", patch, **head)
            assert status == 422 and LIMIT in answer["message"], answer
            caller.close()

    run(body())
