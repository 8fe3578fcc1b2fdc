"""The API server seen from the wire: HTTP/1.1 as it is, watches as streams, errors as Status."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.base.message import Request, Response

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_life_of_an_object(run) -> None:  # type: ignore[no-untyped-def]
    """Create, read, replace, patch, list and delete, all on one connection."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            status, made = await c.call("POST", MAPS, config_map("a", x="1"))
            assert status == 201
            assert list(made)[:3] == ["kind", "apiVersion", "metadata"]
            assert (await c.call("GET", f"{MAPS}/a"))[1] == made
            status, changed = await c.call("PUT", f"{MAPS}/a", config_map("a", x="2"))
            assert (status, changed["data"]) == (200, {"x": "2"})
            patch = {"data": {"y": "3"}}
            _, patched = await c.call("PATCH", f"{MAPS}/a", patch, Content_Type="application/merge-patch+json")
            assert patched["data"] == {"x": "2", "y": "3"}
            _, listed = await c.call("GET", MAPS)
            assert listed["kind"] == "ConfigMapList"
            assert "kind" not in listed["items"][0]
            status, gone = await c.call("DELETE", f"{MAPS}/a")
            assert (status, gone["status"]) == (200, "Success")
            assert (await c.call("GET", f"{MAPS}/a"))[0] == 404
            c.close()

    run(body())


def test_unchanged_write_makes_no_revision(run) -> None:  # type: ignore[no-untyped-def]
    """A PUT of what is there leaves the resourceVersion as it is."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            _, made = await c.call("POST", MAPS, config_map("a", x="1"))
            _, again = await c.call("PUT", f"{MAPS}/a", config_map("a", x="1"))
            assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            c.close()

    run(body())


def test_lost_update_is_refused(run) -> None:  # type: ignore[no-untyped-def]
    """A PUT that names an old revision is a Conflict; of many at once that name the same one, one wins."""

    async def body() -> None:
        async with serving() as server:
            callers = [await Caller(server.ports[0]).open() for _ in range(8)]
            _, made = await callers[0].call("POST", MAPS, config_map("a"))
            version = made["metadata"]["resourceVersion"]

            async def put(number: int, caller: Caller) -> int:
                wanted = config_map("a", n=str(number))
                wanted["metadata"]["resourceVersion"] = version
                return (await caller.call("PUT", f"{MAPS}/a", wanted))[0]

            statuses = await asyncio.gather(*(put(n, caller) for n, caller in enumerate(callers)))
            assert sorted(statuses) == [200] + [409] * 7
            for caller in callers:
                caller.close()

    run(body())


def test_pipelined_requests_are_answered_in_order(run) -> None:  # type: ignore[no-untyped-def]
    """Requests sent ahead, fast and slow ones mixed, come back in their order."""

    async def body() -> None:
        async with serving() as server:
            c = await Caller(server.ports[0]).open()
            for number in range(10):
                await c.send("POST", MAPS, config_map(f"m{number}"))
                await c.send("GET", f"{MAPS}/m{number}")
            for number in range(10):
                assert [(await c.answer())[0] for _ in range(2)] == [201, 200], number
            c.close()

    run(body())


def test_watch_follows(run) -> None:  # type: ignore[no-untyped-def]
    """A watch from a revision tells of every change after it, in order; leaving a selector is a deletion."""

    async def body() -> None:
        async with serving() as server:
            c, w = Caller(server.ports[0]), Caller(server.ports[0])
            _, listed = await c.call("GET", MAPS)
            first = config_map("a")
            first["metadata"]["labels"] = {"app": "x"}
            await c.call("POST", MAPS, first)
            version = listed["metadata"]["resourceVersion"]
            await w.send("GET", f"{MAPS}?watch=1&resourceVersion={version}&labelSelector=app%3Dx")
            assert (await w.answer_head())[0] == 200
            assert (await w.event())["type"] == "ADDED"
            await c.call("PUT", f"{MAPS}/a", config_map("a", z="1"))
            event = await w.event()
            assert event["type"] == "DELETED"
            _, now = await c.call("GET", f"{MAPS}/a")
            assert event["object"]["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]
            w.close()
            c.close()

    run(body())


def test_watch_begins_with_what_is_there(run) -> None:  # type: ignore[no-untyped-def]
    """sendInitialEvents: the objects, then a bookmark that says that these were all."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            await c.call("POST", MAPS, config_map("a"))
            query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            await c.send("GET", f"{MAPS}?{query}&timeoutSeconds=1")
            assert (await c.answer_head())[0] == 200
            assert c.reader is not None
            size = int(await c.reader.readuntil(b"\r\n"), 16)
            events = [json.loads(line) for line in (await c.reader.readexactly(size)).splitlines()]
            assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
            assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            c.close()

    run(body())


def test_old_revision_is_expired(run) -> None:  # type: ignore[no-untyped-def]
    """A watch from before the log's beginning ends with an ERROR event of code 410."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            for number in range(600):
                await c.call("POST", MAPS, config_map(f"m{number}"))
            await server._store.compact(server.cache.revision)  # type: ignore[attr-defined]
            await c.send("GET", f"{MAPS}?watch=1&resourceVersion=1")
            assert (await c.answer_head())[0] == 200
            event = await c.event()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            c.close()

    run(body())


def test_pages_are_of_one_revision(run) -> None:  # type: ignore[no-untyped-def]
    """What is written between two pages does not show in the second one."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            for number in range(5):
                await c.call("POST", MAPS, config_map(f"m{number}"))
            _, first = await c.call("GET", f"{MAPS}?limit=2")
            assert first["metadata"]["remainingItemCount"] == 3
            await c.call("POST", MAPS, config_map("m3x"))
            await c.call("DELETE", f"{MAPS}/m4")
            _, rest = await c.call("GET", f"{MAPS}?limit=9&continue={first['metadata']['continue']}")
            assert [item["metadata"]["name"] for item in rest["items"]] == ["m2", "m3", "m4"]
            assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
            c.close()

    run(body())


def test_body_over_the_limit(run) -> None:  # type: ignore[no-untyped-def]
    """More than 3 MB is 413, said without reading it all into memory."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            status, answer = await c.call("POST", MAPS, b'"' + b"x" * (3 * 1024 * 1024) + b'"')
            assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")
            c.close()

    run(body())


def test_who_may(run) -> None:  # type: ignore[no-untyped-def]
    """No token that we know: 401; a user without rights: 403 in upstream's words; health needs neither."""

    async def body() -> None:
        async with serving() as server:
            port = server.ports[0]
            assert (await Caller(port, "nobody").call("GET", MAPS))[0] == 401
            status, answer = await Caller(port, "ali").call("GET", MAPS)
            assert status == 403
            assert answer["message"] == (
                'configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" '
                'in the namespace "default"'
            )
            c = Caller(port, "ali")
            await c.send("GET", "/readyz?verbose")
            status, headers, text = await c.answer()
            assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
            assert text.endswith(b"readyz check passed\n")

    run(body())


def test_a_check_that_has_to_ask(run) -> None:  # type: ignore[no-untyped-def]
    """A check may be a coroutine: it stands in its place among the others, alone, excluded, well and unwell."""
    wrong: list[str | None] = [None]

    async def keeper() -> str | None:
        return wrong[0]

    async def body() -> None:
        async with serving(checks={"keeper": keeper, "other": lambda: None}) as server:
            c = Caller(server.ports[0])

            async def asked(path: str) -> tuple[int, str]:
                await c.send("GET", path)
                status, _, text = await c.answer()
                return status, text.decode()

            assert await asked("/livez/keeper") == await asked("/readyz") == (200, "ok")
            wrong[0] = "gone"
            status, text = await asked("/livez?verbose")
            assert status == 500 and "[-]keeper failed: gone\n[+]other ok\n" in text
            assert text.endswith("livez check failed\n")
            assert await asked("/readyz/keeper") == (500, "internal server error: gone\n")
            status, text = await asked("/healthz?verbose&exclude=keeper")
            assert status == 200 and "[+]keeper excluded: ok\n[+]other ok\n" in text
            assert (await asked("/readyz/nobody"))[0] == 404

    run(body())


def test_pod_is_bound_once(run) -> None:  # type: ignore[no-untyped-def]
    """A binding sets the node and the condition; a second one is a Conflict; its delete then has grace."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            base = "/api/v1/namespaces/default"
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await c.call("POST", f"{base}/serviceaccounts", account)
            spec = {"containers": [{"name": "c", "image": "i"}]}
            status, pod = await c.call("POST", f"{base}/pods", {"metadata": {"name": "p"}, "spec": spec})
            assert (status, pod["status"]["phase"]) == (201, "Pending")
            target = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
            assert (await c.call("POST", f"{base}/pods/p/binding", target))[0] == 201
            assert (await c.call("POST", f"{base}/pods/p/binding", target))[0] == 409
            _, bound = await c.call("GET", f"{base}/pods/p")
            assert bound["spec"]["nodeName"] == "n1"
            assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
            _, ending = await c.call("DELETE", f"{base}/pods/p")
            assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
            assert (await c.call("DELETE", f"{base}/pods/p?gracePeriodSeconds=0"))[0] == 200
            assert (await c.call("GET", f"{base}/pods/p"))[0] == 404

    run(body())


def test_stop_ends_watches_and_finishes(run) -> None:  # type: ignore[no-untyped-def]
    """A server that stops ends its watches in good order instead of cutting them."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            await c.send("GET", f"{MAPS}?watch=1&resourceVersion={server.cache.revision}")
            assert (await c.answer_head())[0] == 200
            await server.stop()
            assert await c.event() == {}

    run(body())


def test_routes_come_before_the_api(run) -> None:  # type: ignore[no-untyped-def]
    """Supervisor routes do their own authentication and are asked first."""

    async def cacerts(request: Request, target: object) -> Response:
        return Response(200, b"PEM", "application/x-pem-file")

    async def body() -> None:
        async with serving(routes={"/cacerts": cacerts}) as server:
            c = Caller(server.ports[0], "nobody")
            await c.send("GET", "/cacerts")
            assert (await c.answer())[2] == b"PEM"

    run(body())


@pytest.mark.parametrize("kind", ["dry", "wet"])
def test_service_addresses(run, kind: str) -> None:  # type: ignore[no-untyped-def]
    """An address and a node port are given in the write, never twice, and free again after the delete or a dry run."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            services = "/api/v1/namespaces/default/services"
            query = "?dryRun=All" if kind == "dry" else ""
            wanted = {
                "metadata": {"name": "s"},
                "spec": {"type": "NodePort", "clusterIP": "10.43.0.77", "ports": [{"port": 80, "nodePort": 30080}]},
            }
            status, made = await c.call("POST", services + query, wanted)
            assert (status, made["spec"]["clusterIPs"]) == (201, ["10.43.0.77"])
            other = {**wanted, "metadata": {"name": "t"}}
            status, answer = await c.call("POST", services, other)
            if kind == "dry":
                assert status == 201
            else:
                assert status == 422
                assert "already allocated" in answer["message"]
                await c.call("DELETE", f"{services}/s")
                assert (await c.call("POST", services, other))[0] == 201

    run(body())
