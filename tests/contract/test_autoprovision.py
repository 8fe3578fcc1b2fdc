"""NamespaceAutoProvision in a server: who creates something in an absent namespace gets the namespace, too."""

from __future__ import annotations

from typing import Any

from tests.fakes.server import Caller, serving

from k3s.apiserver.admission.settings import settings

MAPS = "/api/v1/namespaces/{}/configmaps"


def config(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def test_namespaces_are_made(run: Any) -> None:
    """With the kubernetes.io/metadata.name label that every namespace has; not by a dry run, not with a bad name."""

    async def steps() -> None:
        async with serving(admission=settings(["NamespaceAutoProvision"])) as server:
            caller = Caller(server.ports[0])
            status, _ = await caller.call("POST", MAPS.format("dry") + "?dryRun=All", config("a"))
            assert status == 404
            assert (await caller.call("GET", "/api/v1/namespaces/dry"))[0] == 404
            status, made = await caller.call("POST", MAPS.format("new"), config("a"))
            assert (status, made["metadata"]["namespace"]) == (201, "new")
            _, space = await caller.call("GET", "/api/v1/namespaces/new")
            assert space["metadata"]["labels"] == {"kubernetes.io/metadata.name": "new"}
            assert space["spec"]["finalizers"] == ["kubernetes"]
            assert (await caller.call("POST", MAPS.format("new"), config("b")))[0] == 201
            status, refused = await caller.call("POST", MAPS.format("No_Name"), config("a"))
            assert status == 403 and refused["message"].startswith('configmaps "a" is forbidden: Namespace "No_Name"')
            assert (await caller.call("GET", MAPS.format("other")))[0] == 200  # reading makes nothing
            assert (await caller.call("GET", "/api/v1/namespaces/other"))[0] == 404

    run(steps())


def test_without_the_plugin_nothing_is_made(run: Any) -> None:
    """As ever: 404 for the namespace."""

    async def steps() -> None:
        async with serving() as server:
            status, refused = await Caller(server.ports[0]).call("POST", MAPS.format("new"), config("a"))
            assert (status, refused["message"]) == (404, 'namespaces "new" not found')

    run(steps())
