"""The pipeline for components of the same process: the same answers without bytes."""

from __future__ import annotations

import pytest
from tests.fakes.server import ADMIN, ALICE, serving

from k3s.api.errors import AlreadyExists, Forbidden, Invalid, NotFound
from k3s.api.kinds import builtin
from k3s.apiserver.watch import QUEUE
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.client.transport import Request

MAP = builtin("v1", "ConfigMap")
DEPLOYMENT = builtin("apps/v1", "Deployment")
SCALE = {"spec": {"replicas": 3}}


def config_map(name: str, **data: str) -> dict[str, object]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def test_verbs(run) -> None:  # type: ignore[no-untyped-def]
    """Every verb of the client works, and what is read twice is the same shared object."""

    async def body() -> None:
        async with serving() as server:
            client = Client(LocalTransport(server.handler(ADMIN)))
            made = await client.create(MAP, config_map("a", x="1"))
            assert await client.get(MAP, "default", "a") is await client.get(MAP, "default", "a")
            with pytest.raises(AlreadyExists):
                await client.create(MAP, config_map("a"))
            patched = await client.patch(MAP, "default", "a", {"data": {"y": "2"}})
            assert patched["data"] == {"x": "1", "y": "2"}
            listed = await client.list(MAP, "default")
            assert [o["metadata"]["name"] for o in listed.items] == ["a"]
            assert listed.revision == server.cache.revision
            await client.delete(MAP, "default", "a", uid=made["metadata"]["uid"])
            with pytest.raises(NotFound):
                await client.get(MAP, "default", "a")

    run(body())


def test_rights_hold(run) -> None:  # type: ignore[no-untyped-def]
    """Being in the same process gives no rights."""

    async def body() -> None:
        async with serving() as server:
            client = Client(LocalTransport(server.handler(ALICE)))
            with pytest.raises(Forbidden):
                await client.get(MAP, "default", "a")

    run(body())


def test_watch_carries_shared_objects(run) -> None:  # type: ignore[no-untyped-def]
    """A watch gives the cache's own objects; one that nobody reads is closed, and its reader resumes."""

    async def body() -> None:
        async with serving() as server:
            client = Client(LocalTransport(server.handler(ADMIN)))
            start = server.cache.revision
            watch = client.watch(MAP, "default", revision=start)
            await client.create(MAP, config_map("a"))
            event = await anext(watch)
            assert (event.type, event.object) == ("ADDED", server.cache.get(MAP, "default", "a"))
            for number in range(QUEUE + 10):
                await client.patch(MAP, "default", "a", {"data": {"n": str(number)}})
            server.cache.flush()
            seen = [event async for event in watch]
            assert 0 < len(seen) <= QUEUE + 10
            last = int(seen[-1].object["metadata"]["resourceVersion"])
            rest = client.watch(MAP, "default", revision=last)
            if last < server.cache.revision:
                assert (await anext(rest)).type == "MODIFIED"

    run(body())


def test_a_custom_kind_is_scaled_where_its_definition_says(run) -> None:  # type: ignore[no-untyped-def]
    """The scale of an object comes from the paths of its definition and goes there; a count below zero is refused."""

    async def body() -> None:
        async with serving() as server:
            client = Client(LocalTransport(server.handler(ADMIN)))
            paths = {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.m", "labelSelectorPath": ".status.s"}
            version = {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"scale": paths},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
            names = {"plural": "widgets", "kind": "Widget"}
            spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
            meta = {"name": "widgets.example.com"}
            definition = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
            await client.create(definition, {"metadata": meta, "spec": spec})
            kind = server.registry.by_kind("example.com", "v1", "Widget")
            assert kind is not None
            meta = {"name": "w", "namespace": "default"}
            obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "status": {"m": 2, "s": "a=b"}}
            await client.create(kind, {**obj, "spec": {"n": 3}})
            url, patch = kind.path("default", "w") + "/scale", "application/merge-patch+json"
            found = (await client.raw(Request("GET", url))).body
            assert (found["spec"], found["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "a=b"})
            await client.raw(Request("PATCH", url, body={"spec": {"replicas": 5}}, content_type=patch))
            with pytest.raises(Invalid, match="should be a non-negative integer"):
                await client.raw(Request("PATCH", url, body={"spec": {"replicas": -1}}, content_type=patch))
            assert (await client.get(kind, "default", "w"))["spec"] == {"n": 5}

    run(body())


def test_custom_kind(run) -> None:  # type: ignore[no-untyped-def]
    """A definition is served at once, says so in its status, prunes and defaults, and takes its objects along."""

    async def body() -> None:
        async with serving() as server:
            client = Client(LocalTransport(server.handler(ADMIN)))
            definition_kind = builtin("apiextensions.k8s.io/v1", "CustomResourceDefinition")
            fields = {"size": {"type": "integer", "default": 3}}
            schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}
            version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            definition = {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": "widgets.example.com"},
                "spec": {
                    "group": "example.com",
                    "scope": "Namespaced",
                    "names": {"plural": "widgets", "kind": "Widget"},
                    "versions": [version],
                },
            }
            await client.create(definition_kind, definition)
            kind = server.registry.by_kind("example.com", "v1", "Widget")
            assert kind is not None
            meta = {"name": "w", "namespace": "default"}
            wanted = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": {"junk": 1}}
            assert (await client.create(kind, wanted))["spec"] == {"size": 3}
            await client.delete(definition_kind, "", "widgets.example.com")
            while server.registry.by_kind("example.com", "v1", "Widget") is not None:
                await server.cache.reached(server.cache.revision + 1)
            assert server.cache.bucket(kind).count == 0

    run(body())
