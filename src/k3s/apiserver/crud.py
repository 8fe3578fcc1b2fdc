"""The one write path (law 3): `commit` is a compare-and-swap loop, every verb is a function that it applies.

Reads are the cache's business. A write is answered after it is durable and after the cache has seen it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from k3s.api import apply as fields
from k3s.api import gates, owners, schema, times
from k3s.api.errors import AlreadyExists, ApiError, already_exists, conflict, forbidden, invalid, not_found
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.api.validation import validate_create
from k3s.api.validation.advice import advise
from k3s.apiserver import deletion, identity, written
from k3s.apiserver.admission.chain import NotYet
from k3s.apiserver.admits import AdmissionRequest, Admits
from k3s.apiserver.body import settled
from k3s.apiserver.cache import Bucket, Cache, Item, serialise
from k3s.apiserver.considered import HEAVY, beside
from k3s.apiserver.conversion import Conversions
from k3s.apiserver.strategy import Context, Strategy
from k3s.base import aio
from k3s.base.aio import begun
from k3s.base.entropy import Entropy
from k3s.store.interface import KeyConflict, Store

log = logging.getLogger(__name__)
T = TypeVar("T")
#: What an object becomes; an awaitable when that takes longer, as when somebody outside is asked.
Mutate = Callable[["Object | None"], "Object | Awaitable[Object | None] | None"]
# How often a write that others got ahead of is tried again before the client has to.
_ATTEMPTS = 32
_NAME_ATTEMPTS = 8
# How long a create waits for an object that a controller is about to make.
_NOT_YET_S = 2.0
# What an object may take in the datastore: as much as a request of upstream's client of etcd (docs/decisions/0015).
_MAX_VALUE = 2 * 1024 * 1024
# A generated name is cut so that the random end still fits into a DNS label.
_PREFIX_LIMIT = 58
_NAMESPACE = builtin("v1", "Namespace")


class Outcome:
    """What a write left: an item of the cache, or (dry run, deletion) an object."""

    __slots__ = ("deleted", "item", "obj")

    def __init__(self, item: Item | None, obj: Object | None = None, deleted: bool = False) -> None:
        self.item = item
        self.obj = obj
        self.deleted = deleted


class Keys:
    """One writer at a time for each key: inside one server nobody loses a race against themselves."""

    def __init__(self) -> None:
        self._busy: dict[str, deque[asyncio.Future[None]] | None] = {}

    async def acquire(self, key: str) -> None:
        """Waits until the key is free."""
        if key not in self._busy:
            self._busy[key] = None
            return
        queue = self._busy[key]
        if queue is None:
            queue = self._busy[key] = deque()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(key)
            raise

    def release(self, key: str) -> None:
        """Lets the next writer go on."""
        queue = self._busy[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._busy[key]


class Crud:
    """Create, update, delete: on the store, through strategies and admission."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        strategies: Callable[[Kind], Strategy],
        admission: Admits,
        entropy: Entropy,
        storage_kind: Callable[[Kind], Kind],
        conversions: Conversions,
        is_stale: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._store = store
        self._is_stale = is_stale
        self.cache = cache
        self.strategies = strategies
        self._admission = admission
        self._entropy = entropy
        self._storage_kind = storage_kind
        self.conversions = conversions
        self._keys = Keys()

    # --- the one write

    async def commit(self, kind: Kind, namespace: str, name: str, mutate: Mutate, *, dry_run: bool = False) -> Outcome:
        """Applies `mutate` to the newest state (None: no object) and stores the result (None: deletes it).

        `mutate` may be called several times; what it raises goes to the caller; answering its argument writes nothing.
        While an awaitable that it answers is awaited, others may write the object: whoever is asked may do so himself.
        """
        key = kind.key(namespace, name)
        bucket = self.cache.bucket(kind)
        await self._keys.acquire(key)
        try:
            for _ in range(_ATTEMPTS):
                item = bucket.get(namespace, name)
                seen = item
                if item is not None and self.conversions.foreign(kind, item):
                    seen = await self._unlocked(key, self.conversions.item(item, kind))
                    if bucket.get(namespace, name) is not item:
                        continue
                old = None if seen is None else self.cache.as_kind(seen, kind)
                new = mutate(old)
                if new is not None and not isinstance(new, dict):
                    new = await self._unlocked(key, new)
                    if bucket.get(namespace, name) is not item:
                        continue
                if new is old and (dry_run or old is None or not await self._has_to_be_sealed(key)):
                    return Outcome(seen, old)
                if dry_run:
                    return Outcome(None, new if new is not None else old, deleted=new is None)
                try:
                    return await self._write(kind, bucket, key, item, new)
                except KeyConflict as lost:
                    newer = lost.current.revision if lost.current else self.cache.revision + 1
                    await self.cache.reached(max(newer, 1))
        finally:
            self._keys.release(key)
        raise conflict(kind.group, kind.plural, name, written.MODIFIED_MEANWHILE)

    async def _has_to_be_sealed(self, key: str) -> bool:
        """Who writes what is there already may do so to have it sealed with another key: upstream's way to do that."""
        return self._is_stale is not None and await self._is_stale(key)

    async def _unlocked(self, key: str, work: Awaitable[T]) -> T:
        """What `work` answers; the key is free meanwhile."""
        self._keys.release(key)
        try:
            return await work
        finally:
            await self._keys.acquire(key)

    async def _write(self, kind: Kind, bucket: Bucket, key: str, item: Item | None, new: Object | None) -> Outcome:
        if new is None:
            if item is None:
                return Outcome(None, deleted=True)
            revision = await self._store.delete(key, item.revision)
            return Outcome(item.restamped(revision), deleted=True)
        stored = new if kind.is_storage_version else await self.conversions.stored(new, kind)
        value = serialise(stored)
        if len(value) > _MAX_VALUE:
            raise ApiError(
                f"etcdserver: request is too large: {kind.kind} {new['metadata']['name']} would take {len(value)} "
                f"bytes, the limit is {_MAX_VALUE}; divide it into several objects"
            )
        self.cache.expect(key, value, stored)
        try:
            revision = await self._store.put(key, value, item.revision if item is not None else 0)
        finally:
            self.cache.forget(key)
        meta = new["metadata"]
        now = bucket.get(meta.get("namespace", ""), meta["name"])
        if now is None or now.revision != revision:
            now = self.cache.item(meta.get("namespace", ""), meta["name"], revision, revision, value)
        return Outcome(await self.conversions.item(now, kind) if self.conversions.foreign(kind, now) else now)

    async def asked(
        self, context: Context, body: Object, checked: Callable[[Object], Object] = lambda body: body
    ) -> Object:
        """The body of a POST that stores nothing itself, as admission lets it pass. Raises Forbidden, Invalid.

        `checked` is what its own rules make of it once admission has changed it."""
        request = AdmissionRequest(
            "CREATE",
            context.kind,
            context.subresource,
            context.namespace,
            context.name,
            None,
            body,
            context.user,
            context.dry_run,
            context.options,
            context.warnings,
            context.notes,
        )
        admitted = checked(await self._admission.admit(request))
        await self._admission.validate(request.with_object(admitted))
        return admitted

    # --- create

    async def create(self, context: Context, obj: Object) -> Outcome:
        """Creates an object. Raises AlreadyExists, Invalid, NotFound."""
        kind = context.kind
        strategy = self.strategies(kind)
        obj = written.with_namespace(context, obj)
        reset = strategy.reset_create(obj)
        obj = await beside(context.heavy, lambda: schema.defaults(kind, reset))
        if not context.applied:
            obj = await self._tracked(context, None, obj)
        prefix = "" if obj["metadata"].get("name") else obj["metadata"].get("generateName", "")
        for attempt in range(_NAME_ATTEMPTS if prefix else 1):
            if prefix:
                name = prefix[:_PREFIX_LIMIT] + self._entropy.suffix()
                obj = {**obj, "metadata": {**obj["metadata"], "name": name}}
            cleanups: list[Callable[[], None]] = []
            context.cleanups = cleanups
            try:
                return await self._create_when_ready(context, strategy, obj)
            except ApiError as error:
                if error.reason != "AlreadyExists" or not prefix or attempt == _NAME_ATTEMPTS - 1:
                    raise
            finally:
                for cleanup in cleanups:
                    cleanup()
        raise AssertionError("unreachable")

    async def _create_when_ready(self, context: Context, strategy: Strategy, obj: Object) -> Outcome:
        """A pod may come before its namespace's service account, which a controller is about to make: wait once."""
        try:
            return await self._create(context, strategy, obj)
        except NotYet as early:
            try:
                await asyncio.wait_for(self.cache.appeared(*early.awaited), _NOT_YET_S)
            except asyncio.TimeoutError:
                raise early from None
        return await self._create(context, strategy, obj)

    async def _create(self, context: Context, strategy: Strategy, obj: Object) -> Outcome:
        kind = context.kind
        context.name = name = obj["metadata"].get("name", "")
        if self._admission.provisions:
            await self._provide_namespace(context)
        self._check_namespace(context)
        request = AdmissionRequest(
            "CREATE",
            kind,
            "",
            context.namespace,
            name,
            None,
            obj,
            context.user,
            context.dry_run,
            context.options,
            context.warnings,
            context.notes,
        )
        obj = await self._admission.admit(request)
        meta = {k: v for k, v in obj["metadata"].items() if k not in written.SERVER_OWNED}
        meta["uid"] = self._entropy.uid()
        meta["creationTimestamp"] = times.format(context.now)
        if strategy.counts:
            meta["generation"] = 1
        obj = strategy.prepare_create(context, gates.closed(kind, {**obj, "metadata": meta}))
        causes = [
            *await written.judged(context, lambda: validate_create(kind, obj)),
            *strategy.validate(context, None, obj),
        ]
        if causes:
            raise invalid(self._storage_kind(kind).group, kind.kind, name, causes)
        context.warnings.extend(await beside(context.heavy, lambda: advise(kind, obj)))
        await self._admission.validate(request.with_object(obj))

        def make(old: Object | None) -> Object:
            if old is not None:
                raise already_exists(kind.group, kind.plural, name)
            return obj

        return await self.commit(kind, context.namespace, name, make, dry_run=context.dry_run)

    async def _provide_namespace(self, context: Context) -> None:
        """Makes the namespace that a new object wants, when it is absent; a dry run makes none."""
        if not context.kind.namespaced or context.dry_run:
            return
        if self.cache.bucket(_NAMESPACE).get("", context.namespace) is not None:
            return
        itself = identity.authenticated(identity.APISERVER, identity.MASTERS)
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": context.namespace}}
        try:
            await self.create(Context(_NAMESPACE, "", context.namespace, itself, context.now), space)
        except AlreadyExists:
            return
        except ApiError as error:
            raise forbidden(context.kind.group, context.kind.plural, context.name, error.message) from error

    def _check_namespace(self, context: Context) -> None:
        """A namespaced object needs a namespace that exists and is not on its way out."""
        if not context.kind.namespaced:
            return
        item = self.cache.bucket(_NAMESPACE).get("", context.namespace)
        if item is None:
            raise not_found("", "namespaces", context.namespace)
        if b'"deletionTimestamp"' in item.tail and "deletionTimestamp" in item.obj["metadata"]:
            why = f"unable to create new content in namespace {context.namespace} because it is being terminated"
            error = forbidden(context.kind.group, context.kind.plural, context.name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {context.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = {**(error.details or {}), "causes": [cause]}
            raise error

    async def _tracked(self, context: Context, old: Object | None, new: Object) -> Object:
        """The object with who changed which field; without, as upstream, when its webhook does not tell how those of
        other versions see it."""
        try:
            return await self.conversions.viewing(
                context.kind, lambda views: written.tracked(context, old, new, views), heavy=context.heavy
            )
        except ApiError as error:
            log.warning("Nobody owns fields of %s %s any more: %s", context.kind.kind, context.name, error.message)
            return owners.bare(new)

    # --- update

    async def update(
        self, context: Context, produce: Callable[[Object], Object | Awaitable[Object]], *, body: Object | None = None
    ) -> tuple[Outcome, bool]:
        """Changes an object to what `produce` makes of the newest one; tells whether it was created instead.

        `body` is given for a PUT: some kinds are created by it when they do not exist.
        """
        kind = context.kind
        strategy = self.strategies(kind)
        item = self.cache.bucket(kind).get(context.namespace, context.name)
        context.heavy = context.heavy or (item is not None and len(item.tail) > HEAVY)
        create = body is not None and strategy.create_on_update and not context.subresource
        cleanups: list[Callable[[], None]] = []
        context.cleanups = cleanups
        last: list[Object] = []

        async def changed(old: Object) -> Object | None:
            made = await aio.lengthy(lambda: produce(old)) if context.heavy else produce(old)
            new = await self._changed(context, strategy, old, made if isinstance(made, dict) else await made)
            if new is not old and deletion.finished(strategy, old, new):
                last[:] = [new]
                return None
            return new

        def mutate(old: Object | None) -> Object | Awaitable[Object | None] | None:
            if old is None:
                if create:
                    raise _Absent
                raise not_found(kind.group, kind.plural, context.name)
            return begun(changed(old))

        try:
            outcome = await self.commit(kind, context.namespace, context.name, mutate, dry_run=context.dry_run)
        except _Absent:
            assert body is not None
            # A PUT may name the revision that it saw last; what it makes is new all the same.
            meta = {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}
            return await self.create(context, {**body, "metadata": meta}), True
        finally:
            for cleanup in cleanups:
                cleanup()
        if outcome.deleted and last:
            outcome = Outcome(None, last[0], deleted=True)
        return outcome, False

    async def _changed(self, context: Context, strategy: Strategy, old: Object, new: Object) -> Object:
        kind = context.kind
        written.check_identity(context, new)
        written.check_revision(context, strategy, old, new)
        reset = strategy.reset_update(context, old, new)
        new = await beside(context.heavy, lambda: schema.defaults(kind, reset, settled(kind, old)))
        new = written.with_kept_metadata(new, old)
        if not context.applied:
            new = await self._tracked(context, old, new)
        if new == old:
            return old
        excerpt = context.excerpt
        request = AdmissionRequest(
            "UPDATE",
            kind,
            context.subresource,
            context.namespace,
            context.name,
            old if excerpt is None else excerpt.of(old),
            new if excerpt is None else excerpt.of(new),
            context.user,
            context.dry_run,
            context.options,
            context.warnings,
            context.notes,
        )
        admitted = await self._admission.admit(request)
        if excerpt is None:
            new = admitted
        elif admitted is not request.obj:
            new = excerpt.put(new, admitted)
        new = strategy.prepare_update(context, old, gates.closed(kind, new, old))
        new = written.counted(context, strategy, old, new)
        prepared = new
        causes = [
            *written.metadata_causes(kind, old, new),
            *await written.judged(context, lambda: written.problems(context, old, prepared)),
            *strategy.validate(context, old, new),
        ]
        if causes:
            raise invalid(self._storage_kind(kind).group, kind.kind, context.name, causes)
        context.warnings.extend(await beside(context.heavy, lambda: advise(kind, prepared, old)))
        await self._admission.validate(request.with_object(new if excerpt is None else excerpt.of(new)))
        return old if new == old or fields.same_but_times(old, new) else new

    # --- delete

    async def delete(
        self,
        context: Context,
        options: deletion.DeleteOptions,
        touch: Callable[[Object], Object] | None = None,
        *,
        admitted: bool = False,
    ) -> Outcome:
        """Deletes an object, or begins to. The outcome's object is how it looked last. Raises NotFound, Conflict.

        `touch` changes the object in the same write, for those who watch its end. `admitted`: admission has let
        pass already what the object is deleted for.
        """
        kind = context.kind
        strategy = self.strategies(kind)
        last: list[Object] = []
        context.warnings.extend(strategy.advise_delete(options.propagation, options.orphan))

        async def decided(old: Object) -> Object | None:
            request = AdmissionRequest(
                "DELETE",
                kind,
                "",
                context.namespace,
                context.name,
                old,
                None,
                context.user,
                context.dry_run,
                context.options,
                context.warnings,
                context.notes,
            )
            if not admitted:
                await self._admission.validate(request)
            touched = touch(old) if touch is not None else old
            new, looked = deletion.decide(strategy, context, touched, options)
            last[:] = [looked]
            return new

        def mutate(old: Object | None) -> Object | Awaitable[Object | None] | None:
            if old is None:
                raise not_found(kind.group, kind.plural, context.name)
            return begun(decided(old))

        outcome = await self.commit(kind, context.namespace, context.name, mutate, dry_run=context.dry_run)
        if outcome.deleted:
            return Outcome(None, last[0], deleted=True)
        return outcome


class _Absent(Exception):
    """A PUT met no object."""
