"""Large objects: everybody else is answered while they are read, changed and checked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.test_long_expressions import MAPS, meanwhile
from tests.fakes.server import Caller, serving

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
YAML = "application/yaml"


def config(count: int, value: str = "") -> Any:
    """A ConfigMap with so many keys."""
    data = {f"k{number}": value for number in range(count)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def deployment(count: int) -> Any:
    """A Deployment whose pods have so many containers of one name."""
    containers = [{"name": "c", "image": "i"}] * count
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def yaml(count: int) -> bytes:
    """The same as YAML."""
    lines = "".join(f"  k{number}: v\n" for number in range(count))
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n{lines}".encode()


def check(waits: list[float]) -> None:
    """Nobody waited for most of the time that the write took."""
    assert max(waits) < 0.75 * sum(waits), waits


@pytest.mark.parametrize(
    ("method", "path", "body", "media", "said"),
    [
        pytest.param("POST", MAPS, yaml(20_000), YAML, "", id="yaml"),
        pytest.param("POST", DEPLOYMENTS, deployment(15_000), "", "Duplicate", id="refused"),
        pytest.param(
            "PATCH", f"{MAPS}/d?fieldManager=m", {**config(40_000), "metadata": {"name": "d"}}, "apply", "", id="apply"
        ),
    ],
)
def test_a_large_write_holds_up_nobody(run: Any, method: str, path: str, body: Any, media: str, said: str) -> None:
    """What is sent is read and checked beside the loop."""
    types = {"": "application/json", "apply": "application/apply-patch+yaml"}

    async def main() -> None:
        async with serving() as server:
            answer, waits = await meanwhile(server.ports[0], path, body, method, types.get(media, media))
            assert said in answer["message"] if said else "data" in answer, str(answer)[:300]
            check(waits)

    run(main())


def test_a_small_change_of_a_large_object_holds_up_nobody(run: Any) -> None:
    """What is stored counts, not only what is sent; a change that comes meanwhile is not lost."""

    async def main() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            assert (await caller.call("POST", MAPS, config(50_000)))[0] == 201
            merge = "application/merge-patch+json"
            changes = [{"data": {f"new{number}": "x"}} for number in range(2)]
            asked = [meanwhile(server.ports[0], f"{MAPS}/c", change, "PATCH", merge) for change in changes]
            for answer, waits in await asyncio.gather(*asked):
                assert "data" in answer, str(answer)[:300]
                check(waits)
            found = (await caller.call("GET", f"{MAPS}/c"))[1]
            assert {"new0", "new1"} <= found["data"].keys() and len(found["data"]) == 50_002
            caller.close()

    run(main())
