"""What a verb found or left, before it takes the form that the client asked for."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.cache import Bucket, Item
from k3s.apiserver.watch import Begin, Scope
from k3s.base.message import Answer


class One:
    """One object: an item of the cache, or an object that is not stored (a dry run, a review, a Status)."""

    __slots__ = ("item", "kind", "obj", "status")

    def __init__(self, kind: Kind | None, item: Item | None, obj: Object | None = None, status: int = 200) -> None:
        self.kind = kind
        self.item = item
        self.obj = obj
        self.status = status


class Many:
    """A page of a list; `remaining` is None when it is not told."""

    __slots__ = ("items", "kind", "next_page", "remaining", "revision")

    def __init__(
        self, kind: Kind, items: Sequence[Item], revision: int, next_page: str = "", remaining: int | None = None
    ) -> None:
        self.kind = kind
        self.items = items
        self.revision = revision
        self.next_page = next_page
        self.remaining = remaining


class Watching:
    """A watch that is to begin."""

    __slots__ = ("begin", "bookmarks", "bucket", "kind", "scope", "timeout_s")

    def __init__(
        self, kind: Kind, bucket: Bucket, scope: Scope, begin: Begin, bookmarks: bool, timeout_s: float
    ) -> None:
        self.kind = kind
        self.bucket = bucket
        self.scope = scope
        self.begin = begin
        self.bookmarks = bookmarks
        self.timeout_s = timeout_s


Result = One | Many | Watching | Answer
