"""The one copy of the cluster's state (law: one cache), fed by the datastore's subscriber.

Per place in the datastore a `Bucket`: the objects, the newest changes for watchers that resume, and who watches. An
object is kept as the bytes of its JSON text with the resourceVersion spliced in, and as a dict once somebody asked for
it. Bytes are split in `head` (kind and apiVersion, shared) and `tail` (metadata and the rest): a GET is head + tail, a
LIST the tails joined, a watch frame its own opening + head + tail. Nothing is encoded twice (law 6).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from sys import intern
from typing import Any, Protocol

from k3s.api.kinds import Kind
from k3s.api.object import Object, decode, encode
from k3s.store.interface import Event, Store

# Changes kept per bucket for watchers that resume; older ones are read from the datastore's log.
RING = 512
_META = b'"metadata":{'
_STAMP = b'"metadata":{"resourceVersion":"'

Convert = Callable[[Object, Kind], Object]
Dispatch = Callable[["Bucket", "list[Change]"], None]


class Reader(Protocol):
    """Read access to the state, for admission, authorization and whoever lives in this process."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object as it is now; never to be changed."""

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        """The objects of a namespace, or of all."""

    def version(self, kind: Kind) -> int:
        """A number that changes whenever an object of this kind does."""


def serialise(obj: Object) -> bytes:
    """The stored form: JSON without resourceVersion, that begins with kind, apiVersion and metadata."""
    meta = obj["metadata"]
    if "resourceVersion" in meta:
        meta = {k: v for k, v in meta.items() if k != "resourceVersion"}
    return encode({"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": meta, **_rest(obj)})


def _rest(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in _FIRST}


def divided(value: bytes, revision: int) -> tuple[bytes, bytes]:
    """The head of a stored form, and its tail with the resourceVersion."""
    at = value.index(_META)
    return value[:at], b'%b%d",%b' % (_STAMP, revision, value[at + len(_META) :])


_FIRST = frozenset({"kind", "apiVersion", "metadata"})


class Item:
    """One object at one revision."""

    __slots__ = ("_obj", "created", "head", "name", "namespace", "revision", "tail")

    def __init__(
        self,
        namespace: str,
        name: str,
        revision: int,
        created: int,
        head: bytes,
        tail: bytes,
        obj: Object | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self.created = created
        self.head = head
        self.tail = tail
        self._obj = obj

    @property
    def raw(self) -> bytes:
        """The JSON text."""
        return self.head + self.tail

    @property
    def obj(self) -> Object:
        """The object, decoded at most once; never to be changed."""
        if self._obj is None:
            obj: Object = decode(self.head + self.tail)
            obj["kind"], obj["apiVersion"] = intern(obj["kind"]), intern(obj["apiVersion"])
            self._obj = obj
        return self._obj

    def restamped(self, revision: int) -> Item:
        """The same content at another revision: what a deletion tells of."""
        end = self.tail.index(b'"', len(_STAMP))
        tail = b"%b%d%b" % (_STAMP, revision, self.tail[end:])
        obj = self._obj
        if obj is not None:
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}
        return Item(self.namespace, self.name, revision, self.created, self.head, tail, obj)


class Encodes(Protocol):
    """How events become bytes."""

    def event(self, type: str, item: Item) -> bytes:
        """One event about an object."""


class Change:
    """One event of a bucket: `item` is the new state (for a deletion the last one, at the revision of the deletion)."""

    __slots__ = ("_frames", "deleted", "item", "old", "revision")

    def __init__(self, item: Item, old: Item | None, deleted: bool) -> None:
        self.revision = item.revision
        self.item = item
        self.old = old
        self.deleted = deleted
        self._frames: dict[Any, bytes] | None = None

    def frame(self, key: Any, encoding: Encodes, type: str) -> bytes:
        """The event as bytes, made once for all watchers that want the same, told apart by `key`."""
        frames = self._frames
        if frames is None:
            frames = self._frames = {}
        data = frames.get(key)
        if data is None:
            data = frames[key] = encoding.event(type, self.item)
        return data


class Bucket:
    """All objects under one prefix of the datastore."""

    def __init__(self, prefix: str, ring: int = RING) -> None:
        self.prefix = prefix
        self._most = ring
        self.spaces: dict[str, dict[str, Item]] = {}
        self.count = 0
        self.version = 0
        self.heads: set[bytes] = set()
        self.ring: deque[Change] = deque()
        #: Every change after this revision is in the ring.
        self.ring_from = 0
        # A dict for its order: who is told first must not depend on addresses of memory.
        self.watchers: dict[Any, None] = {}
        self._order: dict[str, list[str]] = {}
        self._listed: dict[str, list[Item]] = {}
        self._spaces_order: list[str] | None = None
        self._indexes: dict[str, Index] = {}

    def get(self, namespace: str, name: str) -> Item | None:
        """The object as it is now."""
        space = self.spaces.get(namespace)
        return space.get(name) if space is not None else None

    def names(self, namespace: str) -> list[str]:
        """The names of one namespace in order; not to be changed."""
        order = self._order.get(namespace)
        if order is None:
            order = self._order[namespace] = sorted(self.spaces.get(namespace, ()))
        return order

    def namespaces(self) -> list[str]:
        """The namespaces that have objects, in order of datastore keys; not to be changed."""
        if self._spaces_order is None:
            # "a/" sorts against "a-b/" as keys do, which is not how "a" sorts against "a-b".
            self._spaces_order = sorted(self.spaces, key=lambda space: space + "/")
        return self._spaces_order

    def items(self, namespace: str = "", *, everywhere: bool = False) -> Iterator[Item]:
        """The objects of a namespace, or of all, in order of datastore keys."""
        for space in self.namespaces() if everywhere else (namespace,):
            items = self.spaces.get(space)
            if items:
                for name in self.names(space):
                    yield items[name]

    def listed(self, namespace: str) -> list[Item]:
        """The objects of one namespace in order, made again only when one has changed; not to be changed."""
        listed = self._listed.get(namespace)
        if listed is None:
            items = self.spaces.get(namespace, {})
            listed = [items[name] for name in self.names(namespace)]
            if items:
                self._listed[namespace] = listed
        return listed

    def after(self, namespace: str, last: str, *, everywhere: bool) -> Iterator[Item]:
        """Like `items`, but only those whose key relative to the prefix is greater than `last`."""
        start_space, _, start_name = last.rpartition("/")
        for space in self.namespaces() if everywhere else (namespace,):
            items = self.spaces.get(space)
            if not items or space + "/" < start_space + "/":
                continue
            names = self.names(space)
            at = bisect_right(names, start_name) if space == start_space else 0
            for name in names[at:]:
                yield items[name]

    def put(self, item: Item) -> Item | None:
        """Sets an object; what stood there before."""
        space = self.spaces.get(item.namespace)
        if space is None:
            space = self.spaces[item.namespace] = {}
            self._spaces_order = None
        old = space.get(item.name)
        space[item.name] = item
        if self._listed:
            self._listed.pop(item.namespace, None)
        if old is None:
            self.count += 1
            self._order.pop(item.namespace, None)
        for index in self._indexes.values():
            index.put(item, old)
        self.version = item.revision
        return old

    def drop(self, namespace: str, name: str, revision: int) -> Item | None:
        """Removes an object; what stood there."""
        space = self.spaces.get(namespace)
        old = space.pop(name, None) if space is not None else None
        self.version = revision
        if old is None:
            return None
        self.count -= 1
        self._order.pop(namespace, None)
        self._listed.pop(namespace, None)
        if not space:
            del self.spaces[namespace]
            self._spaces_order = None
        for index in self._indexes.values():
            index.drop(old)
        return old

    def remember(self, change: Change) -> None:
        """Keeps a change for watchers that resume."""
        self.ring.append(change)
        if len(self.ring) > self._most:
            self.ring_from = self.ring.popleft().revision

    def since(self, revision: int) -> list[Change] | None:
        """The changes after a revision; None when the ring does not reach back that far."""
        if revision < self.ring_from:
            return None
        found: list[Change] = []
        for change in reversed(self.ring):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    def index(self, name: str, values: Callable[[Object], Iterable[str]]) -> Index:
        """A secondary index, made from what is there at the first call and kept up to date."""
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = Index(values)
            for item in self.items(everywhere=True):
                index.put(item, None)
        return index


class Index:
    """Objects by a value computed from them, as pods by node."""

    def __init__(self, values: Callable[[Object], Iterable[str]]) -> None:
        self._values = values
        self._found: dict[str, dict[tuple[str, str], Item]] = {}

    def put(self, item: Item, old: Item | None) -> None:
        """An object was written."""
        if old is not None:
            self.drop(old)
        for value in self._values(item.obj):
            self._found.setdefault(value, {})[(item.namespace, item.name)] = item

    def drop(self, old: Item) -> None:
        """An object went away."""
        for value in self._values(old.obj):
            found = self._found.get(value)
            if found is not None:
                found.pop((old.namespace, old.name), None)
                if not found:
                    del self._found[value]

    def get(self, value: str) -> list[Item]:
        """The objects with this value, in order of datastore keys."""
        found = self._found.get(value)
        if not found:
            return []
        return [found[key] for key in sorted(found, key=lambda key: (key[0] + "/", key[1]))]


class Cache:
    """Every bucket, and the revision up to which they are true."""

    def __init__(self, convert: Convert, ring: int = RING) -> None:
        self.revision = 0
        self._ring = ring
        self._buckets: dict[str, Bucket] = {}
        self._heads: dict[bytes, bytes] = {}
        self._fresh: dict[str, tuple[bytes, Object]] = {}
        self._pending: dict[Bucket, list[Change]] = {}
        self._dispatch: Dispatch | None = None
        self._listeners: dict[str, tuple[Callable[[Change], None], ...]] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.convert = convert

    # --- filling

    async def load(self, store: Store, prefix: str = "/registry/") -> None:
        """Reads everything and follows the datastore from there. Raises Unavailable."""
        early: list[Event] = []
        store.subscribe(early.extend)
        revision, entries = await store.list(prefix)
        for entry in entries:
            bucket, namespace, name = self._place(entry.key)
            bucket.put(self.item(namespace, name, entry.revision, entry.created, entry.value))
        self.revision = revision
        for bucket in self._buckets.values():
            bucket.ring_from = revision
        self.apply([event for event in early if event.revision > revision])
        store.subscribe(self.apply)

    def on_change(self, dispatch: Dispatch) -> None:
        """Who is told of changes, soon after they happened, with all of a bucket's that came together."""
        self._dispatch = dispatch

    def listen(self, kind: Kind, listener: Callable[[Change], None]) -> None:
        """Tells `listener` of each change of a kind at once, before its writer hears of it; who listens first hears
        first."""
        self._listeners[kind.storage_prefix] = (*self._listeners.get(kind.storage_prefix, ()), listener)

    def expect(self, key: str, value: bytes, obj: Object) -> None:
        """Announces that `value`, about to be written to `key`, is the text of `obj`: saves decoding it."""
        self._fresh[key] = (value, obj)

    def forget(self, key: str) -> None:
        """Takes back what `expect` announced."""
        self._fresh.pop(key, None)

    def apply(self, events: Sequence[Event]) -> None:
        """Takes in what was written, in order."""
        wake = not self._pending
        for event in events:
            change = self._apply(event)
            if change is not None and (bucket := change[0]).watchers:
                self._pending.setdefault(bucket, []).append(change[1])
        if events:
            self.revision = events[-1].revision
        if self._waiting:
            self._wake()
        if wake and self._pending:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Tells the watchers what is still to be told."""
        pending, self._pending = self._pending, {}
        if self._dispatch is not None:
            for bucket, changes in pending.items():
                self._dispatch(bucket, changes)

    def _apply(self, event: Event) -> tuple[Bucket, Change] | None:
        bucket, namespace, name = self._place(event.key)
        if event.value is None:
            old = bucket.drop(namespace, name, event.revision)
            if old is None:
                return None
            change = Change(old.restamped(event.revision), old, True)
        else:
            fresh = self._fresh.get(event.key)
            item = self.item(namespace, name, event.revision, event.created, event.value)
            # Where nobody looks, as at events, the dict would take more memory than the text, for nothing.
            if fresh is not None and fresh[0] is event.value and bucket.watchers:
                item._obj = obj = stamped(fresh[1], event.revision)
                item.name = obj["metadata"]["name"]
            change = Change(item, bucket.put(item), False)
        bucket.remember(change)
        for listener in self._listeners.get(bucket.prefix, ()):
            listener(change)
        return bucket, change

    def item(self, namespace: str, name: str, revision: int, created: int, value: bytes) -> Item:
        """The item of a stored value."""
        head, tail = divided(value, revision)
        return Item(namespace, name, revision, created, self._heads.setdefault(head, head), tail)

    def _place(self, key: str) -> tuple[Bucket, str, str]:
        # /registry/<group>/<plural>/[<namespace>/]<name>
        end = key.index("/", key.index("/", 10) + 1) + 1
        prefix = key[:end]
        bucket = self._buckets.get(prefix)
        if bucket is None:
            bucket = self._buckets[prefix] = Bucket(prefix, self._ring)
            bucket.ring_from = self.revision
        namespace, _, name = key[end:].rpartition("/")
        return bucket, intern(namespace), name

    # --- reading

    def bucket(self, kind: Kind) -> Bucket:
        """The objects of a kind, whatever its version."""
        bucket = self._buckets.get(kind.storage_prefix)
        if bucket is None:
            bucket = self._buckets[kind.storage_prefix] = Bucket(kind.storage_prefix, self._ring)
            bucket.ring_from = self.revision
        return bucket

    def buckets(self) -> Iterable[Bucket]:
        """All of them."""
        return self._buckets.values()

    def as_kind(self, item: Item, kind: Kind) -> Object:
        """The object in the version that `kind` stands for."""
        return item.obj if item.head == head_of(kind) else self.convert(item.obj, kind)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object as it is now; never to be changed."""
        item = self.bucket(kind).get(namespace, name)
        return None if item is None else self.as_kind(item, kind)

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        """The objects of a namespace, or of all, in order."""
        items = self.bucket(kind).items(namespace, everywhere=not namespace)
        return [self.as_kind(item, kind) for item in items]

    def version(self, kind: Kind) -> int:
        """A number that changes whenever an object of this kind does."""
        return self.bucket(kind).version

    async def reached(self, revision: int) -> None:
        """Waits until the cache has seen a revision."""
        if revision <= self.revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        await future

    async def appeared(self, kind: Kind, namespace: str, name: str) -> None:
        """Waits until an object exists."""
        while self.bucket(kind).get(namespace, name) is None:
            await self.reached(self.revision + 1)

    def _wake(self) -> None:
        still = []
        for revision, future in self._waiting:
            if revision > self.revision:
                still.append((revision, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still


def stamped(obj: Object, revision: int) -> Object:
    """The object with its resourceVersion, and the words that many objects have alike kept once."""
    meta = {"resourceVersion": str(revision), **_unstamped(obj["metadata"])}
    return {**obj, "kind": intern(obj["kind"]), "apiVersion": intern(obj["apiVersion"]), "metadata": meta}


def _unstamped(meta: Object) -> Object:
    return {k: v for k, v in meta.items() if k != "resourceVersion"} if "resourceVersion" in meta else meta


_HEADS: dict[Kind, bytes] = {}


def head_of(kind: Kind) -> bytes:
    """The first bytes of the JSON text of every object of a kind."""
    head = _HEADS.get(kind)
    if head is None:
        text = encode({"kind": kind.kind, "apiVersion": kind.api_version})
        head = _HEADS[kind] = text[:-1] + b","
    return head
