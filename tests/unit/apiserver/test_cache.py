"""The one copy of the state."""

from __future__ import annotations

from k3s.api.kinds import builtin
from k3s.api.object import Object, decode
from k3s.apiserver.cache import RING, Bucket, Cache, head_of, serialise
from k3s.apiserver.reads import node_of_pod
from k3s.store.memory import MemoryStore

MAP = builtin("v1", "ConfigMap")
POD = builtin("v1", "Pod")


def same(obj: Object, kind: object) -> Object:
    return obj


def config_map(name: str, space: str = "d", **data: str) -> bytes:
    meta = {"name": name, "namespace": space, "uid": "u"}
    return serialise({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


async def filled(*names: str) -> tuple[MemoryStore, Cache]:
    store, cache = MemoryStore(), Cache(same)
    await store.open()
    await cache.load(store)
    for name in names:
        space, _, last = name.rpartition("/")
        await store.put(MAP.key(space or "d", last), config_map(last, space or "d"), 0)
    return store, cache


def test_text_has_the_revision(run) -> None:  # type: ignore[no-untyped-def]
    """The JSON text is the stored one with the revision spliced in; the dict is decoded once."""

    async def body() -> None:
        _, cache = await filled("a")
        item = cache.bucket(MAP).get("d", "a")
        assert item is not None
        assert item.head == head_of(MAP)
        assert decode(item.raw)["metadata"]["resourceVersion"] == str(item.revision)
        assert item.obj is item.obj
        assert decode(item.restamped(99).raw)["metadata"]["resourceVersion"] == "99"

    run(body())


def test_order_is_that_of_keys(run) -> None:  # type: ignore[no-untyped-def]
    """Lists come in the order of datastore keys, also where namespaces share a beginning, and go on after a key."""

    async def body() -> None:
        _, cache = await filled("a-b/x", "a/z", "a/y", "b/x")
        bucket = cache.bucket(MAP)
        order = [f"{i.namespace}/{i.name}" for i in bucket.items(everywhere=True)]
        assert order == ["a-b/x", "a/y", "a/z", "b/x"] == sorted(order)
        assert [i.name for i in bucket.after("", "a/y", everywhere=True)] == ["z", "x"]
        assert [i.name for i in bucket.after("a", "a/y", everywhere=False)] == ["z"]

    run(body())


def test_a_listing_is_made_again_when_something_changed(run) -> None:  # type: ignore[no-untyped-def]
    """The list of one namespace is the same object until an object of it comes, changes or goes."""

    async def body() -> None:
        store, cache = await filled("a/y", "b/x")
        bucket = cache.bucket(MAP)
        first, other = bucket.listed("a"), bucket.listed("b")
        assert bucket.listed("a") is first
        revision = await store.put(MAP.key("a", "x"), config_map("x", "a"), 0)
        assert [i.name for i in bucket.listed("a")] == ["x", "y"]
        revision = await store.put(MAP.key("a", "x"), config_map("x", "a", k="v"), revision)
        assert bucket.listed("a")[0].obj["data"] == {"k": "v"}
        await store.delete(MAP.key("a", "x"), revision)
        assert [i.name for i in bucket.listed("a")] == ["y"]
        assert bucket.listed("b") is other
        assert bucket.listed("none") == []

    run(body())


def test_what_was_there_before_is_loaded(run) -> None:  # type: ignore[no-untyped-def]
    """A cache that starts later has the same objects and the newest revision."""

    async def body() -> None:
        store, _ = await filled("a", "b")
        await store.delete(MAP.key("d", "b"), 2)
        cache = Cache(same)
        await cache.load(store)
        assert [o["metadata"]["name"] for o in cache.list(MAP)] == ["a"]
        assert cache.revision == store.revision() == 3

    run(body())


def test_ring_forgets(run) -> None:  # type: ignore[no-untyped-def]
    """The newest changes can be asked for; older ones are the log's business."""

    async def body() -> None:
        store, cache = await filled("a")
        for number in range(RING + 5):
            item = cache.bucket(MAP).get("d", "a")
            assert item is not None
            await store.put(MAP.key("d", "a"), config_map("a", n=str(number)), item.revision)
        bucket: Bucket = cache.bucket(MAP)
        assert bucket.since(1) is None
        recent = bucket.since(cache.revision - 3)
        assert recent is not None
        assert [change.revision for change in recent] == list(range(cache.revision - 2, cache.revision + 1))

    run(body())


def test_index_follows(run) -> None:  # type: ignore[no-untyped-def]
    """Pods are found by node, before and after the index was made, and not after they went."""

    async def body() -> None:
        store, cache = await filled()

        def pod(name: str, node: str) -> bytes:
            meta = {"name": name, "namespace": "d"}
            return serialise({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node}})

        first = await store.put(POD.key("d", "a"), pod("a", "n1"), 0)
        index = cache.bucket(POD).index("node", node_of_pod)
        await store.put(POD.key("d", "b"), pod("b", "n1"), 0)
        assert [item.name for item in index.get("n1")] == ["a", "b"]
        await store.delete(POD.key("d", "a"), first)
        assert [item.name for item in index.get("n1")] == ["b"]
        assert index.get("n2") == []

    run(body())


def test_waiting_for_a_revision(run) -> None:  # type: ignore[no-untyped-def]
    """Who waits for a revision goes on once it was seen."""

    async def body() -> None:
        store, cache = await filled("a")
        await cache.reached(1)
        await store.put(MAP.key("d", "b"), config_map("b"), 0)
        await cache.reached(2)
        await cache.appeared(MAP, "d", "b")

    run(body())


def test_what_nobody_watches_is_kept_as_text(run) -> None:  # type: ignore[no-untyped-def]
    """An Event's dict would be larger than its text; that somebody hears of each write (expiry) does not read it."""

    async def main() -> None:
        store = MemoryStore()
        await store.open()
        cache = Cache(same)
        await cache.load(store)
        heard: list[str] = []
        cache.listen(MAP, lambda change: heard.append(change.item.name))
        value = config_map("a")
        cache.expect("/registry/core/configmaps/d/a", value, decode(value))
        await store.put("/registry/core/configmaps/d/a", value, 0)
        item = cache.bucket(MAP).get("d", "a")
        assert heard == ["a"]
        assert item is not None
        assert item._obj is None

    run(main())
