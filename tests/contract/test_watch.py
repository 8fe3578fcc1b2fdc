"""Watches on the wire: where they begin, how they end, and what a slow reader costs others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.apiserver import hub, watch

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, text: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"text": text}}


async def events(caller: Caller, count: int) -> list[dict[str, Any]]:
    """The next events of a watch, however they are put into chunks."""
    assert caller.reader is not None
    found: list[dict[str, Any]] = []
    while len(found) < count:
        size = int(await caller.reader.readuntil(b"\r\n"), 16)
        assert size, f"the watch ended after {found}"
        found += [json.loads(line) for line in (await caller.reader.readexactly(size + 2))[:-2].splitlines()]
    return found


async def until_end(caller: Caller) -> list[dict[str, Any]]:
    """What a watch says until the server ends it."""
    assert caller.reader is not None
    found: list[dict[str, Any]] = []
    while size := int(await caller.reader.readuntil(b"\r\n"), 16):
        found += [json.loads(line) for line in (await caller.reader.readexactly(size + 2))[:-2].splitlines()]
    await caller.reader.readexactly(2)
    return found


async def watching(port: int, query: str, path: str = MAPS) -> Caller:
    """A watch whose head has come."""
    caller = Caller(port)
    await caller.send("GET", f"{path}?{query}")
    assert (await caller.answer_head())[0] == 200
    return caller


def test_it_ends_in_good_order_with_where_the_client_is() -> None:
    """timeoutSeconds: a bookmark of the newest revision, the end of the chunks, and the connection serves on."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            w = await watching(server.ports[0], "watch=1&resourceVersion=1&allowWatchBookmarks=true&timeoutSeconds=1")
            await c.call("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
            (last,) = await until_end(w)
            _, listed = await c.call("GET", MAPS)
            assert last["type"] == "BOOKMARK"
            assert last["object"]["metadata"]["resourceVersion"] == listed["metadata"]["resourceVersion"]
            status, _ = await w.call("GET", MAPS)
            assert status == 200
            c.close()
            w.close()

    asyncio.run(body())


def test_quiet_kinds_get_bookmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for bookmarks learns of revisions of other kinds; who did not, does not."""
    monkeypatch.setattr(hub, "BOOKMARK_EVERY_S", 0.05)

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            asked = await watching(server.ports[0], "watch=1&resourceVersion=1&allowWatchBookmarks=true")
            silent = await watching(server.ports[0], "watch=1&resourceVersion=1")
            _, made = await c.call("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
            revision = 0
            while revision < int(made["metadata"]["resourceVersion"]):
                (event,) = await events(asked, 1)
                assert event["type"] == "BOOKMARK"
                assert set(event["object"]) == {"kind", "apiVersion", "metadata"}
                assert int(event["object"]["metadata"]["resourceVersion"]) > revision
                revision = int(event["object"]["metadata"]["resourceVersion"])
            await c.call("POST", MAPS, config_map("first"))
            assert [e["type"] for e in await events(silent, 1)] == ["ADDED"]
            for each in (c, asked, silent):
                each.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (MAPS, "watch=1&fieldSelector=metadata.name%3Done"),
        ("/api/v1/watch/namespaces/default/configmaps/one", "timeoutSeconds=60"),
    ],
)
def test_one_object(path: str, query: str) -> None:
    """A single object can be watched by selector and by the old paths; others are not heard of."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            _, listed = await c.call("GET", MAPS)
            w = await watching(
                server.ports[0], f"{query}&resourceVersion={listed['metadata']['resourceVersion']}", path
            )
            await c.call("POST", MAPS, config_map("other"))
            await c.call("POST", MAPS, config_map("one"))
            await c.call("DELETE", f"{MAPS}/one")
            told = [(e["type"], e["object"]["metadata"]["name"]) for e in await events(w, 2)]
            assert told == [("ADDED", "one"), ("DELETED", "one")]
            c.close()
            w.close()

    asyncio.run(body())


def test_a_revision_that_is_still_to_come() -> None:
    """A watch from a future revision is told of nothing before it."""

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            _, listed = await c.call("GET", MAPS)
            future = int(listed["metadata"]["resourceVersion"]) + 2
            w = await watching(server.ports[0], f"watch=1&resourceVersion={future}")
            for name in ("one", "two", "three"):
                await c.call("POST", MAPS, config_map(name))
            (event,) = await events(w, 1)
            assert event["object"]["metadata"]["name"] == "three"
            c.close()
            w.close()

    asyncio.run(body())


@pytest.mark.parametrize("bound", ["QUEUE", "QUEUED_BYTES"])
def test_a_reader_that_does_not_read(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Its watch ends when too much waits for it, by count or by bytes; writers and other watchers notice nothing."""
    monkeypatch.setattr(watch, bound, 20 if bound == "QUEUE" else 2 << 20)

    async def body() -> None:
        async with serving() as server:
            c = Caller(server.ports[0])
            _, listed = await c.call("GET", MAPS)
            query = f"watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
            slow, quick = await watching(server.ports[0], query), await watching(server.ports[0], query)
            before = len(server._hub)
            seen = 0
            while len(server._hub) == before:
                await c.call("POST", MAPS, config_map(f"m{seen}", "x" * 200_000))
                (event,) = await events(quick, 1)
                assert event["object"]["metadata"]["name"] == f"m{seen}"
                seen += 1
                assert seen < 300, "nothing ends the watch of who does not read"
            told = await until_end(slow)
            assert [e["object"]["metadata"]["name"] for e in told] == [f"m{i}" for i in range(len(told))]
            assert len(told) < seen
            for each in (c, slow, quick):
                each.close()

    asyncio.run(body())
