"""Server-side apply over HTTP: what a write cannot change is nobody's, and what is no configuration is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

SETS = "/apis/apps/v1/namespaces/default/replicasets"


def replica_set(**more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec, **more}


async def apply(caller: Caller, path: str, obj: Any, manager: str) -> tuple[int, dict[str, Any]]:
    return await caller.call(
        "PATCH", f"{path}?fieldManager={manager}", obj, Content_Type="application/apply-patch+yaml"
    )


def owned(obj: dict[str, Any], manager: str) -> set[str]:
    """The top fields that a manager owns."""
    entries = [e for e in obj["metadata"]["managedFields"] if e["manager"] == manager]
    return {name for entry in entries for name in entry["fieldsV1"]}


def test_the_status_belongs_to_those_who_write_it() -> None:
    """An apply of the object does not own its status, nor take it from others; one of the status owns no spec."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            status, made = await apply(caller, f"{SETS}/r", replica_set(status={"replicas": 3}), "one")
            assert status == 201, made
            assert owned(made, "one") == {"f:spec"}
            labelled = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "labels": {"a": "b"}}}
            told = {**labelled, "spec": {"replicas": 9}, "status": {"replicas": 5}}
            status, written = await apply(caller, f"{SETS}/r/status", told, "two")
            assert status == 200, written
            assert written["status"]["replicas"] == 5
            assert owned(written, "two") == {"f:metadata", "f:status"}
            status, again = await apply(caller, f"{SETS}/r", replica_set(status={"replicas": 7}), "one")
            assert (status, again["status"]["replicas"]) == (200, 5), again
            assert owned(again, "two") == {"f:metadata", "f:status"}
            caller.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ([{"name": "A"}, {"name": "A"}], 'containers[name="c"].env: duplicate entries for key [name="A"]'),
        ([{"name": "A"}, None], "env: element 1: associative list with keys may not have a null element"),
        (["A"], "env: element 0: associative list with keys may not have non-map elements"),
    ],
)
def test_elements_have_keys_of_their_own(env: list[Any], told: str) -> None:
    """Two elements with one key, or an element without, cannot be owned by anybody."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            config = replica_set()
            config["spec"]["template"]["spec"]["containers"][0]["env"] = env
            status, answer = await apply(caller, f"{SETS}/r", config, "one")
            assert status == 500, answer
            assert answer["message"].startswith("failed to create typed patch object (/r; apps/v1, Kind=ReplicaSet): ")
            assert told in answer["message"]
            caller.close()

    asyncio.run(body())


def test_live_duplicates_are_borne() -> None:
    """What another way of writing has let in does not keep appliers away."""

    async def body() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            doubled = replica_set()
            doubled["spec"]["template"]["spec"]["containers"][0]["env"] *= 2
            assert (await caller.call("POST", SETS, doubled))[0] == 201
            config = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "labels": {"a": "b"}}}
            status, answer = await apply(caller, f"{SETS}/r", config, "one")
            assert (status, answer["metadata"]["labels"]) == (200, {"a": "b"}), answer
            env = answer["spec"]["template"]["spec"]["containers"][0]["env"]
            assert [entry["name"] for entry in env] == ["A", "A"]
            caller.close()

    asyncio.run(body())
