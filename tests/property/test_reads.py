"""Pages and watches against a plain model, with a ring so short that half of them need the datastore's history."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from urllib.parse import quote

import pytest
from tests.fakes.server import Caller, serving

from k3s.apiserver import cache

MAPS = "/api/v1/namespaces/default/configmaps"


class Model:
    """What was written: every revision of every name, in order."""

    def __init__(self, caller: Caller, chance: random.Random) -> None:
        self.caller = caller
        self.chance = chance
        self.now: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[int, str, dict[str, Any] | None]] = []

    async def write(self) -> None:
        """Creates, changes or deletes one of a few objects."""
        name = f"m{self.chance.randrange(12):02}"
        labels = {"half": self.chance.choice("ab")}
        body = {"metadata": {"name": name, "labels": labels}, "data": {"n": str(len(self.log))}}
        if name not in self.now:
            status, obj = await self.caller.call("POST", MAPS, body)
        elif self.chance.random() < 0.4:
            await self.caller.call("DELETE", f"{MAPS}/{name}")
            _, listed = await self.caller.call("GET", f"{MAPS}?limit=1")
            del self.now[name]
            self.log.append((int(listed["metadata"]["resourceVersion"]), name, None))
            return
        else:
            status, obj = await self.caller.call("PUT", f"{MAPS}/{name}", body)
        assert status in (200, 201), obj
        self.now[name] = obj
        self.log.append((int(obj["metadata"]["resourceVersion"]), name, obj))

    def at(self, revision: int, half: str) -> list[tuple[str, str]]:
        """Names and revisions of the objects that were there, of one half when it is not empty."""
        there: dict[str, dict[str, Any]] = {}
        for number, name, obj in self.log:
            if number > revision:
                break
            if obj is None:
                del there[name]
            else:
                there[name] = obj
        found = [obj["metadata"] for _, obj in sorted(there.items())]
        return [(m["name"], m["resourceVersion"]) for m in found if half in ("", m["labels"]["half"])]


async def pages(model: Model, half: str, limit: int) -> None:
    """Reads a list page by page with writes between; asserts that it is the list of its first page's revision."""
    query = f"limit={limit}" + (f"&labelSelector={quote('half=' + half)}" if half else "")
    seen: list[tuple[str, str]] = []
    token = ""
    revision = ""
    while True:
        status, page = await model.caller.call("GET", f"{MAPS}?{query}" + (f"&continue={token}" if token else ""))
        assert status == 200, page
        revision = revision or page["metadata"]["resourceVersion"]
        assert page["metadata"]["resourceVersion"] == revision
        assert len(page["items"]) <= limit
        seen += [(item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in page["items"]]
        wanted = model.at(int(revision), half)
        if "remainingItemCount" in page["metadata"]:
            assert page["metadata"]["remainingItemCount"] == len(wanted) - len(seen)
        token = page["metadata"].get("continue", "")
        if not token:
            assert seen == wanted
            return
        for _ in range(model.chance.randrange(9)):
            await model.write()


@pytest.mark.parametrize("seed", range(3))
def test_pages_are_those_of_one_revision(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever is written between pages, and whether the ring still knows it or only the datastore does."""
    monkeypatch.setattr(cache, "RING", 6)

    async def body() -> None:
        async with serving() as server:
            chance = random.Random(seed)
            model = Model(Caller(server.ports[0]), chance)
            for _ in range(20):
                await model.write()
            for _ in range(25):
                await pages(model, chance.choice(["", "a", "b"]), chance.randrange(1, 5))
            model.caller.close()

    asyncio.run(body())


async def follow(port: int, model: Model, start: int, upto: int) -> list[dict[str, Any]]:
    """Watches on one connection after another, each from the last revision seen, until `upto` was told."""
    seen: list[dict[str, Any]] = []
    last = start
    while last < upto:
        caller = Caller(port)
        await caller.send("GET", f"{MAPS}?watch=1&resourceVersion={last}")
        assert (await caller.answer_head())[0] == 200
        taken, enough = 0, model.chance.randrange(1, 6)
        while last < upto and taken < enough:
            assert caller.reader is not None
            size = int(await caller.reader.readuntil(b"\r\n"), 16)
            chunk = await caller.reader.readexactly(size + 2)
            events = [json.loads(line) for line in chunk[:-2].splitlines()]
            # A client may be cut off between any two events.
            for event in events[: enough - taken]:
                seen.append(event)
                taken += 1
                last = int(event["object"]["metadata"]["resourceVersion"])
        caller.close()
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_a_watch_that_resumes_misses_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Cut off at random and resumed from the last revision: every change once, in order, with the right type."""
    monkeypatch.setattr(cache, "RING", 6)

    async def body() -> None:
        async with serving() as server:
            model = Model(Caller(server.ports[0]), random.Random(seed))
            for _ in range(120):
                await model.write()
            start = model.log[9][0]
            events = await follow(server.ports[0], model, start, model.log[-1][0])
            there = {name for name, _ in model.at(start, "")}
            wanted = []
            for revision, name, obj in model.log[10:]:
                wanted.append(("DELETED" if obj is None else "MODIFIED" if name in there else "ADDED", name, revision))
                there = there - {name} if obj is None else there | {name}
            told = [(e["type"], e["object"]["metadata"]["name"]) for e in events]
            assert told == [(kind, name) for kind, name, _ in wanted]
            assert [int(e["object"]["metadata"]["resourceVersion"]) for e in events] == [r for _, _, r in wanted]
            model.caller.close()

    asyncio.run(body())
