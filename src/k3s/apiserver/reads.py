"""Get, list and watch, from the cache; only old revisions come from the datastore.

Semantics of resourceVersion, resourceVersionMatch, limit and continue: "API concepts", Kubernetes documentation.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from k3s.api.errors import ApiError, BadRequest, Expired, Timeout, invalid, not_found
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.api.selectors import check_fields, parse_fields, parse_labels
from k3s.api.validation.causes import Causes, forbidden, one_of
from k3s.apiserver.cache import Bucket, Cache, Item
from k3s.apiserver.conversion import Conversions
from k3s.apiserver.hub import Hub
from k3s.apiserver.past import as_of
from k3s.apiserver.request import Target, truth
from k3s.apiserver.results import Many, One, Watching
from k3s.apiserver.watch import Begin, Scope
from k3s.base.entropy import Entropy
from k3s.store.interface import Compacted, FutureRevision, Store

_MATCH = "resourceVersionMatch"
# What is left out to see everything before fields are looked at.
_CUT = frozenset({"fieldSelector", "limit", "continue"})
_NUMBER = re.compile("[+-]?[0-9]+")
# How long a read waits for a revision that has not been seen yet.
_WAIT_S = 3.0
# A watch without timeoutSeconds ends after this time to twice as much, so that not all clients come back at once.
WATCH_S = 1800.0
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class Page(NamedTuple):
    """A continue token: go on after `last` (a key below the kind's prefix) at `revision` (-1: whatever is newest)."""

    revision: int
    last: str


class Wanted(NamedTuple):
    """What a list or watch asks for."""

    scope: Scope
    revision: str
    match: str
    limit: int
    page: Page | None
    exact: bool


def number(text: str) -> int:
    """A whole number of a query parameter. Raises BadRequest in the words of Go's parser."""
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -(1 << 63) <= int(text) < 1 << 63:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def scope_of(kind: Kind, namespace: str, query: Mapping[str, str], name: str = "") -> Scope:
    """Which objects a request is about. Raises BadRequest for selectors that do not parse."""
    labels = fields = None
    if text := query.get("labelSelector"):
        labels = parse_labels(text)
    if text := query.get("fieldSelector"):
        fields = check_fields(
            parse_fields(text), kind.group, kind.kind, kind.selectable_fields if kind.custom else None
        )
        name = name or fields.required("metadata.name") or ""
        if namespace == "" and kind.namespaced:
            namespace = fields.required("metadata.namespace") or ""
        fields = None if _only_names(fields, namespace) else fields
    return Scope(namespace, name, labels, fields)


def _only_names(fields: object, namespace: str) -> bool:
    terms = getattr(fields, "terms", ())
    known = {"metadata.name"} | ({"metadata.namespace"} if namespace else set())
    return len(terms) == len({t.field for t in terms}) and all(t.equal and t.field in known and t.value for t in terms)


def encode_page(revision: int, last: str) -> str:
    """The continue token that goes on after `last`."""
    text = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": last + "\0"})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def decode_page(token: str) -> Page:
    """The meaning of a continue token. Raises BadRequest."""
    why = "continue key is not valid: "
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        value = msgspec.json.decode(data)
        return Page(int(value["rv"]), str(value["start"]).rstrip("\0"))
    except (ValueError, msgspec.DecodeError, UnicodeDecodeError):
        first = data[:1].decode("latin-1") if "data" in locals() and data else ""
        raise BadRequest(
            f"invalid continue token: {why}invalid character '{first}' looking for beginning of value"
        ) from None
    except (KeyError, TypeError):
        raise BadRequest(f"invalid continue token: {why}unrecognized encoded continue token") from None


def _check_match(query: Mapping[str, str], watching: bool) -> None:
    """Raises Invalid for parameters that do not go together."""
    causes = list(_watch_causes(query) if watching else _list_causes(query))
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)


def _watch_causes(query: Mapping[str, str]) -> Causes:
    match, initial = query.get("resourceVersionMatch", ""), query.get("sendInitialEvents")
    paged = forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided")
    if initial is not None:
        if match != "NotOlderThan":
            yield forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        if query.get("continue"):
            yield paged
    if match:
        if initial is None:
            yield forbidden(_MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        yield from one_of(_MATCH, match, ("NotOlderThan",))
        if query.get("continue"):
            yield paged


def _list_causes(query: Mapping[str, str]) -> Causes:
    match, revision = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    if match:
        if not revision:
            yield forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if query.get("continue"):
            yield forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided")
        yield from one_of(_MATCH, match, ("Exact", "NotOlderThan", ""))
        if match == "Exact" and revision == "0":
            yield forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if query.get("sendInitialEvents") is not None:
        yield forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")


def _revision(text: str, prefix: str = "invalid resource version: ") -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise BadRequest(
            f'{prefix}resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


class Reads:
    """The reading verbs."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        hub: Hub,
        conversions: Conversions,
        entropy: Entropy,
        watch_s: float = WATCH_S,
    ) -> None:
        self._watch_s = watch_s
        self._cache = cache
        self._store = store
        self._hub = hub
        self._conversions = conversions
        self._entropy = entropy

    def as_kind(self, item: Item, kind: Kind) -> Object:
        """The object of an item in the version that `kind` stands for."""
        return self._cache.as_kind(item, kind)

    def get(self, kind: Kind, namespace: str, name: str, query: Mapping[str, str]) -> One | Awaitable[One]:
        """One object. Raises NotFound."""
        revision = query.get("resourceVersion")
        if revision:
            if not revision.isdigit():
                raise ApiError(_revision_error(revision), code=500)
            if int(revision) > self._cache.revision:
                return self._get_later(kind, namespace, name, int(revision))
        item = self._cache.bucket(kind).get(namespace, name)
        if item is None:
            raise not_found(kind.group, kind.plural, name)
        return One(kind, item) if kind.webhook is None else self._converted(kind, item)

    async def _converted(self, kind: Kind, item: Item) -> One:
        return One(kind, await self._conversions.item(item, kind))

    async def _get_later(self, kind: Kind, namespace: str, name: str, revision: int) -> One:
        await self._reached(revision)
        found = self.get(kind, namespace, name, {})
        return found if isinstance(found, One) else await found

    async def _reached(self, revision: int) -> None:
        if revision <= self._cache.revision:
            return
        try:
            await asyncio.wait_for(self._cache.reached(revision), _WAIT_S)
        except asyncio.TimeoutError:
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise Timeout(
                f"Too large resource version: {revision}, current: {self._cache.revision}",
                {"causes": [cause], "retryAfterSeconds": 1},
            ) from None

    def list(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> Many | Awaitable[Many]:
        """A page of objects, or all."""
        if kind.webhook is not None:
            return self._list_converted(kind, namespace, query)
        return self._list(kind, namespace, query)

    async def _list_converted(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> Many:
        """A list of what only a webhook can make; with a selector for fields, which may have moved, all are made."""
        fields = scope_of(kind, namespace, query).fields
        found = self._list(kind, namespace, {k: v for k, v in query.items() if not fields or k not in _CUT})
        many = found if isinstance(found, Many) else await found
        many.items = await self._conversions.items(many.items, kind)
        if not fields:
            return many
        limit = max(number(query.get("limit") or "0"), 0)
        return self._cut(kind, scope_of(kind, namespace, query), limit, iter(many.items), many.revision)

    def _list(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> Many | Awaitable[Many]:
        if not query:
            bucket = self._cache.bucket(kind)
            everywhere = not namespace and kind.namespaced
            items = list(bucket.items(everywhere=True)) if everywhere else bucket.listed(namespace)
            return Many(kind, items, self._cache.revision)
        limit, _ = max(number(query.get("limit") or "0"), 0), number(query.get("timeoutSeconds") or "0")
        _check_match(query, False)
        scope = scope_of(kind, namespace, query)
        revision_text = query.get("resourceVersion", "")
        token = query.get("continue", "")
        if token:
            page = decode_page(token)
            if revision_text not in ("", "0"):
                raise BadRequest("specifying resource version is not allowed when using continue")
            return self._page(kind, scope, limit, page)
        revision = _revision(revision_text)
        exact = query.get("resourceVersionMatch") == "Exact" or (
            limit > 0 and revision > 0 and not query.get("resourceVersionMatch")
        )
        if exact:
            return self._page(kind, scope, limit, Page(revision, ""))
        if revision > self._cache.revision:
            return self._later(kind, scope, limit, revision)
        return self._now(kind, scope, limit, "", self._cache.revision)

    async def _later(self, kind: Kind, scope: Scope, limit: int, revision: int) -> Many:
        await self._reached(revision)
        return self._now(kind, scope, limit, "", self._cache.revision)

    def _page(self, kind: Kind, scope: Scope, limit: int, page: Page) -> Many | Awaitable[Many]:
        if page.revision < 0:
            return self._now(kind, scope, limit, page.last, self._cache.revision)
        bucket = self._cache.bucket(kind)
        if bucket.version <= page.revision <= self._cache.revision:
            return self._now(kind, scope, limit, page.last, page.revision)
        changes = bucket.since(page.revision) if page.revision < self._cache.revision else None
        if changes is None:
            return self._then(kind, scope, limit, page)
        everywhere = kind.namespaced and not scope.namespace
        items = bucket.after(scope.namespace, page.last, everywhere=everywhere)
        return self._cut(kind, scope, limit, as_of(items, changes, scope.namespace, page.last), page.revision)

    def _now(self, kind: Kind, scope: Scope, limit: int, last: str, revision: int) -> Many:
        bucket = self._cache.bucket(kind)
        everywhere = kind.namespaced and not scope.namespace
        if scope.name and (scope.namespace or not kind.namespaced):
            found = bucket.get(scope.namespace, scope.name)
            items = iter([found] if found is not None and not last else [])
        elif last:
            items = bucket.after(scope.namespace, last, everywhere=everywhere)
        else:
            items = self._indexed(kind, bucket, scope) or bucket.items(scope.namespace, everywhere=everywhere)
        return self._cut(kind, scope, limit, items, revision)

    def _indexed(self, kind: Kind, bucket: Bucket, scope: Scope) -> Iterator[Item] | None:
        """The pods of a node, without looking at all the others."""
        if kind.plural != "pods" or kind.group or scope.fields is None:
            return None
        node = scope.fields.required("spec.nodeName")
        return iter(bucket.index("node", node_of_pod).get(node)) if node else None

    def _cut(self, kind: Kind, scope: Scope, limit: int, items: Iterator[Item], revision: int) -> Many:
        selected = scope.labels is not None or scope.fields is not None or bool(scope.name)
        found: list[Item] = []
        more = 0
        last = ""
        for item in items:
            # A page ends where it is full: whether a selector would find more is the next page's business.
            if limit and len(found) == limit:
                more += 1
                if selected:
                    break
                continue
            if selected and not scope.matches(item):
                continue
            found.append(item)
        if not more:
            return Many(kind, found, revision)
        final = found[-1]
        last = f"{final.namespace}/{final.name}" if final.namespace else final.name
        return Many(kind, found, revision, encode_page(revision, last), None if selected else more)

    async def _then(self, kind: Kind, scope: Scope, limit: int, page: Page) -> Many:
        """A page at an older revision, from the datastore's history."""
        prefix = kind.prefix(scope.namespace)
        after = kind.storage_prefix + page.last if page.last else ""
        try:
            await self._reached(page.revision)
            items = await self._from_store(kind, scope, page.revision, prefix, after, limit)
        except Compacted:
            if not page.last:
                raise Expired(f"The resourceVersion for the provided list is too old: {page.revision}") from None
            error = Expired(_TOO_OLD)
            raise _with_continue(error, encode_page(-1, page.last)) from None
        except FutureRevision:
            raise Timeout(f"Too large resource version: {page.revision}, current: {self._cache.revision}") from None
        many = self._cut(kind, scope, limit, iter(items), page.revision)
        # What is left beyond the page was not read, so nobody knows how much it is.
        many.remaining = None
        return many

    async def _from_store(
        self, kind: Kind, scope: Scope, revision: int, prefix: str, after: str, limit: int
    ) -> Sequence[Item]:
        """The objects after a key at a revision: all, or as many as fill a page and one more."""
        start = len(kind.storage_prefix)
        items = []
        found = 0
        while True:
            _, entries = await self._store.list(prefix, revision, after, limit + 1 if limit else 0)
            for entry in entries:
                namespace, _, name = entry.key[start:].rpartition("/")
                item = self._cache.item(namespace, name, entry.revision, entry.created, entry.value)
                items.append(item)
                found += scope.matches(item)
            if not limit or found > limit or len(entries) <= limit:
                return items
            after = entries[-1].key

    def watch(self, kind: Kind, namespace: str, target: Target, name: str = "") -> Watching | Awaitable[Watching]:
        """The changes from where the client is. `name` is given by the old `/watch/` paths."""
        query = target.query
        _check_match(query, True)
        scope = scope_of(kind, namespace, query, name)
        timeout = float(max(number(query.get("timeoutSeconds") or "0"), 0))
        if not timeout:
            timeout = self._watch_s * (1 + self._entropy.fraction())
        bookmarks = truth(query.get("allowWatchBookmarks"))
        revision = _revision(query.get("resourceVersion", ""))
        wants_initial = truth(query.get("sendInitialEvents")) and query.get("sendInitialEvents") is not None
        initial = wants_initial or (revision == 0 and query.get("sendInitialEvents") is None)
        bucket = self._cache.bucket(kind)
        if kind.webhook is not None:
            return self._watch_converted(
                Watching(kind, bucket, scope, Begin(0), bookmarks, timeout), revision, initial, wants_initial
            )

        def made(begin: Begin) -> Watching:
            return Watching(kind, bucket, scope, begin, bookmarks, timeout)

        if initial and revision <= self._cache.revision:
            return made(self._hub.present(bucket, scope, wants_initial and bookmarks))
        if not initial:
            begin = self._hub.quick(bucket, revision or self._cache.revision)
            if begin is not None:
                return made(begin)
        return self._watch_later(made, bucket, scope, revision, initial, wants_initial and bookmarks)

    async def _watch_converted(self, watching: Watching, revision: int, initial: bool, wants: bool) -> Watching:
        """A watch of what only a webhook can make."""
        bucket, scope = watching.bucket, watching.scope
        if initial:
            await self._reached(revision)
        else:
            revision = revision or self._cache.revision
        place = Scope(scope.namespace, scope.name)
        begin = await self._hub.begin(bucket, place, revision, initial, wants and watching.bookmarks)
        watching.begin = await self._hub.converted(watching.kind, bucket, scope, begin)
        return watching

    async def _watch_later(
        self,
        made: Callable[[Begin], Watching],
        bucket: Bucket,
        scope: Scope,
        revision: int,
        initial: bool,
        initial_end: bool,
    ) -> Watching:
        if initial:
            await self._reached(revision)
        return made(await self._hub.begin(bucket, scope, revision, initial, initial_end))


def _revision_error(text: str) -> str:
    return f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'


def _with_continue(error: Expired, token: str) -> Expired:
    error.page = token  # type: ignore[attr-defined]
    return error


def node_of_pod(pod: Object) -> tuple[str, ...]:
    """The value by which pods are found: their node."""
    node = (pod.get("spec") or {}).get("nodeName")
    return (node,) if node else ()
