"""Another API server behind ours: found, checked, told of in discovery and OpenAPI, and asked on behalf of users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.aggregated import API_SERVICE, BASE, GROUP, NAME, SERVICES, VERSION, beside, condition
from tests.fakes.server import ALICE, Caller, serving

from k3s.api.errors import ApiError
from k3s.client.transport import Request

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
Run = Callable[[Any], Any]


def test_own_group_versions_have_api_services(run: Run) -> None:
    """Each built-in group version has an APIService that this server looks after, and that is always available."""

    async def check() -> None:
        async with serving() as server:
            for name, group, version in (
                ("v1.", 18000, 1),
                ("v2.autoscaling", 17500, 30),
                ("v1.resource.k8s.io", 16200, 21),
            ):
                found = await condition(server, lambda found: found is not None, name)
                assert found is not None
                assert (found["reason"], found["message"]) == ("Local", "Local APIServices are always available")
                obj = server.cache.get(API_SERVICE, "", name)
                assert obj is not None
                assert obj["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
                assert (obj["spec"]["groupPriorityMinimum"], obj["spec"]["versionPriority"]) == (group, version)
            assert len(server.cache.list(API_SERVICE)) == 21

    run(check())


def test_custom_kinds_have_an_api_service_that_comes_and_goes(run: Run) -> None:
    """A definition brings the APIService of its group version, which comes back when deleted, and goes with it."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "cats.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "cats", "kind": "Cat"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }

    async def check() -> None:
        async with serving() as server:
            caller = Caller(server.ports[0])
            definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            assert (await caller.call("POST", definitions, definition))[0] == 201
            assert (await condition(server, lambda found: found is not None, "v1.example.com") or {})[
                "status"
            ] == "True"
            obj = server.cache.get(API_SERVICE, "", "v1.example.com")
            assert obj is not None
            assert obj["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
            assert (obj["spec"]["groupPriorityMinimum"], obj["spec"]["versionPriority"]) == (1000, 100)
            assert (await caller.call("DELETE", f"{SERVICES}/v1.example.com"))[0] == 200
            await condition(server, lambda found: found is not None, "v1.example.com")
            assert (await caller.call("DELETE", f"{definitions}/cats.example.com"))[0] == 200
            async with asyncio.timeout(10):
                while server.cache.get(API_SERVICE, "", "v1.example.com") is not None:
                    await server.cache.reached(server.cache.revision + 1)
            caller.close()

    run(check())


def test_requests_go_on_with_the_users_name(run: Run, tmp_path: Path) -> None:
    """The other server is told who asks, by us alone: what the client claims and its credentials stay here."""

    async def check() -> None:
        async with beside(tmp_path) as (other, server, caller):
            claimed = {"X_Remote_User": "root", "X_Remote_Group": "system:masters", "X_Remote_Extra_Scopes": "all"}
            status, body = await caller.call("POST", f"{BASE}/namespaces/d/flunders?dryRun=All", {"a": 1}, **claimed)
            assert (status, body["kind"]) == (200, "FlunderList")
            head = other.asked("POST")[0]
            assert head.startswith(f"POST {BASE}/namespaces/d/flunders?dryRun=All HTTP/1.1\r\n")
            said = [line for line in head.lower().split("\r\n") if line.startswith(("x-remote", "authorization"))]
            assert said == [
                "x-remote-user: admin",
                "x-remote-uid: admin-uid",
                "x-remote-group: system:masters",
                "x-remote-group: system:authenticated",
            ]
            assert other.bodies[other.heads.index(head)] == b'{"a":1}'
            alice = Caller(server.ports[0], "ali")
            status, body = await alice.call("GET", f"{BASE}/namespaces/d/flunders")
            assert status == 403 and f'cannot list resource "flunders" in API group "{GROUP}"' in body["message"]
            assert len(other.asked("flunders")) == 1
            alice.close()

    run(check())


def test_other_names_come_from_impersonation(run: Run, tmp_path: Path) -> None:
    """An impersonated user is who the other server hears of; the headers that asked for it are not passed on."""

    async def check() -> None:
        async with beside(tmp_path) as (other, _, caller):
            more = {"Impersonate_User": "eve", "Impersonate_Group": "system:masters"}
            await caller.call("GET", f"{BASE}/namespaces/d/flunders", **more)
            head = other.asked("flunders")[0].lower()
            assert "x-remote-user: eve\r\n" in head and "impersonate" not in head

    run(check())


def test_discovery_and_openapi_tell_of_it(run: Run, tmp_path: Path) -> None:
    """Both forms of discovery and both OpenAPI documents have the other group, in the order of its priority."""

    async def check() -> None:
        async with beside(tmp_path) as (_, server, caller):
            _, groups = await caller.call("GET", "/apis")
            assert groups["groups"][-1] == {
                "name": GROUP,
                "versions": [{"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}],
                "preferredVersion": {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION},
            }
            assert (await caller.call("GET", f"/apis/{GROUP}"))[1]["kind"] == "APIGroup"
            assert [r["name"] for r in (await caller.call("GET", BASE))[1]["resources"]] == [
                "flunders",
                "flunders/talk",
            ]
            _, everything = await caller.call("GET", "/apis", Accept=_AGGREGATED)
            found = everything["items"][-1]
            assert found["metadata"]["name"] == GROUP
            version = found["versions"][0]
            assert version["freshness"] == "Current"
            assert version["resources"][0]["resource"] == "flunders"
            assert version["resources"][0]["scope"] == "Namespaced"
            assert version["resources"][0]["subresources"][0]["subresource"] == "talk"
            _, index = await caller.call("GET", "/openapi/v3")
            url = index["paths"][BASE.lstrip("/")]["serverRelativeURL"]
            assert url == f"/openapi/v3{BASE}?hash=ABC"
            assert "Flunder" in (await caller.call("GET", url))[1]["components"]["schemas"]
            _, second = await caller.call("GET", "/openapi/v2")
            assert f"{BASE}/flunders" in second["paths"] and "Flunder" in second["definitions"]
            local = await server.itself().handle(Request("GET", f"{BASE}/namespaces/d/flunders"))
            assert local.body["kind"] == "FlunderList"
            with pytest.raises(ApiError, match="cannot list"):
                await server.handler(ALICE).handle(Request("GET", f"{BASE}/namespaces/d/flunders"))

    run(check())


def test_an_upgrade_goes_through(run: Run, tmp_path: Path) -> None:
    """What upgrades its connection, as exec does, speaks to the other server itself."""

    async def check() -> None:
        async with beside(tmp_path) as (_, __, caller):
            upgrade = {"Connection": "Upgrade", "Upgrade": "talk"}
            await caller.send("GET", f"{BASE}/namespaces/d/flunders/a/talk", **upgrade)
            assert (await caller.answer_head())[0] == 101
            caller.writer.write(b"hello\n")
            assert await caller.reader.readline() == b"you said hello\n"

    run(check())


def test_paths_do_not_lead_out_of_the_group(run: Run, tmp_path: Path) -> None:
    """Dots in a path, written out or escaped, never reach the other server."""

    async def check() -> None:
        async with beside(tmp_path) as (other, _, caller):
            for path in (f"{BASE}/../../../api/v1/secrets", f"{BASE}/namespaces/%2e%2e/%2E%2E/flunders"):
                await caller.send("GET", path)
                assert (await caller.answer())[0] == 404
            assert not other.asked("..") and not other.asked("%2")

    run(check())


def test_what_is_not_available_is_said_to_be(run: Run, tmp_path: Path) -> None:
    """A failing check, a missing Service, and both being well again: conditions, discovery and answers follow."""

    async def check() -> None:
        async with beside(tmp_path) as (other, server, caller):
            other.healthy = False
            assert (await caller.call("DELETE", "/api/v1/namespaces/default/services/wardle"))[0] == 200
            found = await condition(server, lambda found: found is not None and found["status"] == "False") or {}
            assert found["reason"] == "ServiceNotFound"
            assert found["message"] == 'service/wardle in "default" is not present'
            await caller.send("GET", f"{BASE}/namespaces/d/flunders")
            status, headers, body = await caller.answer()
            assert (status, body) == (503, b"service unavailable\n")
            assert headers["content-type"].startswith("text/plain")
            _, everything = await caller.call("GET", "/apis", Accept=_AGGREGATED)
            assert everything["items"][-1]["versions"][0] == {"version": VERSION, "freshness": "Stale"}
            await caller.call("POST", "/api/v1/namespaces/default/services", other.service())
            found = await condition(server, lambda found: (found or {}).get("reason") == "FailedDiscoveryCheck") or {}
            url = f"https://localhost:{other.port}{BASE}"
            assert found["message"] == f"failing or missing response from {url}: bad status from {url}: 500"
            other.healthy = True
            found = await condition(server, lambda found: found is not None and found["status"] == "True") or {}
            assert (found["reason"], found["message"]) == ("Passed", "all checks passed")
            assert (await caller.call("GET", f"{BASE}/namespaces/d/flunders"))[0] == 200
            assert (await caller.call("DELETE", f"{SERVICES}/{NAME}"))[0] == 200
            await caller.send("GET", f"{BASE}/namespaces/d/flunders")
            assert (await caller.answer())[0] == 404

    run(check())


def test_a_server_of_another_authority_is_not_trusted(run: Run, tmp_path: Path) -> None:
    """Without its authority the other server is not believed, unless that is asked for."""

    async def check() -> None:
        async with beside(tmp_path, caBundle=None) as (other, server, caller):
            found = await condition(server, lambda found: found is not None) or {}
            assert found["reason"] == "FailedDiscoveryCheck" and "certificate verify failed" in found["message"]
            assert not other.heads
            trusting = {"spec": {"insecureSkipTLSVerify": True}}
            kind = {"Content_Type": "application/merge-patch+json"}
            assert (await caller.call("PATCH", f"{SERVICES}/{NAME}", trusting, **kind))[0] == 200
            await condition(server, lambda found: found is not None and found["status"] == "True")

    run(check())
