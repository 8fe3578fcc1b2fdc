"""Results in the form that the client asked for: JSON from the stored bytes, Table, metadata only, YAML, protobuf."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from k3s.api.errors import ApiError, BadRequest, NotAcceptable
from k3s.api.kinds import Kind
from k3s.api.object import Object, encode
from k3s.apiserver.cache import Cache, Item, head_of
from k3s.apiserver.media import JSON, PLAIN, PROTOBUF, YAML, Media
from k3s.apiserver.results import Many, One
from k3s.apiserver.watch import bookmark_object
from k3s.base.clock import Clock
from k3s.base.message import Joined, Response

_META = "meta.k8s.io/v1"


class Renderer:
    """Makes answers."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock

    def one(self, result: One, media: Media, include: str = "") -> Response:
        """The answer that is one object."""
        item, kind = result.item, result.kind
        if item is not None and media is PLAIN and kind is not None and item.head == head_of(kind):
            return Response(result.status, item.head + item.tail + b"\n")
        obj = result.obj
        if obj is None and item is not None and kind is not None:
            obj = self._cache.as_kind(item, kind)
        assert obj is not None
        if media.shape and kind is not None:
            obj = self._shaped(kind, obj, media, include)
        return self.value(result.status, obj, media)

    def _shaped(self, kind: Kind, obj: Object, media: Media, include: str) -> Object:
        if media.shape == "PartialObjectMetadataList":
            raise NotAcceptable(
                f"you requested PartialObjectMetadataList, but the requested object is not a list ({_go(kind)})"
            )
        if media.shape == "Table":
            table = self.table(kind, [obj], media, include)
            return {**table, "metadata": _list_meta(obj["metadata"].get("resourceVersion", ""))}
        return partial(obj, media)

    def table(self, kind: Kind, objects: Sequence[Object], media: Media, include: str) -> Object:
        """Objects as a Table."""
        from k3s.api.columns import table

        if include not in ("", "Metadata", "Object", "None"):
            text = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
            raise BadRequest(f"Unable to convert to Table as requested: {text}")
        found = table(kind, list(objects), self._clock.now(), include or "Metadata")
        return found if media.version == "v1" else _older(found, media.version)

    def many(self, result: Many, media: Media, include: str = "") -> Response:
        """The answer that is a list."""
        kind = result.kind
        if media is PLAIN:
            head = head_of(kind)
            joiner = b",{" if not kind.custom else b"," + head
            tails = [item.tail for item in result.items if item.head == head]
            if len(tails) == len(result.items):
                return Response(200, self._joined(result, tails, joiner))
        whole = kind.custom and not media.shape
        meta = _list_meta(str(result.revision), result.next_page, result.remaining, custom=whole)
        objects = self.objects(result)
        if media.shape == "Table":
            return self.value(200, {**self.table(kind, objects, media, include), "metadata": meta}, media)
        if media.shape == "PartialObjectMetadata":
            raise NotAcceptable(
                f"you requested PartialObjectMetadata, but the requested object is a list ({_go(kind)}List)"
            )
        if media.shape:
            items = [partial(obj, media) for obj in objects]
            listed = f"meta.k8s.io/{media.version}"
            body = {"kind": "PartialObjectMetadataList", "apiVersion": listed, "metadata": meta, "items": items}
            return self.value(200, body, media)
        return self.value(200, list_object(kind, meta, objects), media)

    def objects(self, result: Many) -> list[Object]:
        """The objects of a list, in the version that was asked for."""
        return [self._cache.as_kind(item, result.kind) for item in result.items]

    def listed(self, result: Many) -> Object:
        """The list as a value, for a caller in this process: items are the shared objects."""
        meta = _list_meta(str(result.revision), result.next_page, result.remaining, custom=result.kind.custom)
        kind = result.kind
        return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": self.objects(result)}

    def _joined(self, result: Many, tails: list[bytes], joiner: bytes) -> Joined | bytes:
        kind = result.kind
        meta = encode(_list_meta(str(result.revision), result.next_page, result.remaining, custom=result.kind.custom))
        start = encode({"kind": kind.list_kind, "apiVersion": kind.api_version})[:-1]
        if not tails:
            return b'%b,"metadata":%b,"items":[]}\n' % (start, meta)
        # Beginning and end go into a part each: to put a joined text into another one would copy megabytes.
        tails[0] = b'%b,"metadata":%b,"items":[%b%b' % (start, meta, joiner[1:], tails[0])
        tails[-1] += b"]}\n"
        return Joined(joiner, tails)

    def value(self, status: int, obj: Any, media: Media) -> Response:
        """Any object in the wanted format."""
        if media.type == YAML:
            return Response(status, dump_yaml(obj), YAML)
        if media.type == PROTOBUF and not media.shape:
            from k3s.api import wire

            return Response(status, wire.encode(obj), PROTOBUF)
        return Response(status, dump_json(obj, media.pretty))

    def error(self, error: ApiError, media: Media) -> Response:
        """The answer that is a failure."""
        headers: tuple[tuple[str, str], ...] = ()
        if error.retry_after_s is not None:
            headers = (("Retry-After", str(error.retry_after_s)),)
        status = error.to_status()
        page = getattr(error, "page", "")
        if page:
            status["metadata"] = {"continue": page}
        if media.type == PROTOBUF:
            response = self.value(error.code, status, media)
        elif media.type == YAML:
            response = Response(error.code, dump_yaml(status), YAML)
        else:
            response = Response(error.code, dump_json(status, media.pretty))
        response.headers = headers
        return response

    def encoding(self, kind: Kind, media: Media, include: str) -> Events:
        """How a watch's events are written."""
        return Events(self, self._cache, kind, media, include)


class Events:
    """The encoding of a watch for one media type."""

    def __init__(self, renderer: Renderer, cache: Cache, kind: Kind, media: Media, include: str) -> None:
        self._renderer = renderer
        self._cache = cache
        self._kind = kind
        self._media = media
        self._include = include
        self._head = head_of(kind)
        self._columns = media.shape == "Table"
        self._protobuf = media.type == PROTOBUF and _has_protobuf(kind, media)
        self.key: Any = (kind, media, include)

    @property
    def content_type(self) -> str:
        """What the stream is: clients choose their decoder by it."""
        if self._protobuf:
            return f"{PROTOBUF};stream=watch"
        return JSON if self._media.type == PROTOBUF else self._media.type

    def event(self, type: str, item: Item) -> bytes:
        """One event about an object."""
        if not self._media.shape and item.head == self._head and self._media.type == JSON:
            return b'{"type":"%b","object":%b%b}\n' % (type.encode(), item.head, item.tail)
        return self._frame(type, self._object(self._cache.as_kind(item, self._kind)))

    def _object(self, obj: Object) -> Object:
        if self._media.shape == "Table":
            table = self._renderer.table(self._kind, [obj], self._media, self._include)
            table = {**table, "metadata": _list_meta(obj["metadata"].get("resourceVersion", ""))}
            return self._once(table)
        return partial(obj, self._media) if self._media.shape else obj

    def _once(self, table: Object) -> Object:
        """Column definitions come with the first event only."""
        if self._columns:
            self._columns = False
            self.key = None
            self.key = (self._kind, self._media, self._include, "rows")
            return table
        return {**table, "columnDefinitions": None}

    def bookmark(self, revision: int, initial_end: bool) -> bytes:
        """A bookmark."""
        obj = bookmark_object(self._kind, revision, initial_end)
        if self._media.shape == "Table":
            table = self._renderer.table(self._kind, [obj], self._media, self._include)
            obj = self._once({**table, "metadata": _list_meta(str(revision))})
        elif self._media.shape:
            obj = partial(obj, self._media)
        return self._frame("BOOKMARK", obj)

    def error(self, error: ApiError) -> bytes:
        """The end of a watch that cannot go on."""
        return self._frame("ERROR", error.to_status())

    def _frame(self, type: str, obj: Object) -> bytes:
        if self._protobuf:
            from k3s.api import wire

            return wire.watch_event(type, obj)
        if self._media.type == YAML:
            return b"---\n" + dump_yaml({"type": type, "object": obj})
        return encode({"type": type, "object": obj}) + b"\n"


def _has_protobuf(kind: Kind, media: Media) -> bool:
    """Tables and custom kinds have no protobuf form: their events are JSON, whatever was asked for."""
    from k3s.api import wire

    return media.shape != "Table" and (bool(media.shape) or wire.supports(kind.api_version, kind.kind))


def _older(table: Object, version: str) -> Object:
    """A Table, and the metadata objects in its rows, in an older version."""
    api_version = f"meta.k8s.io/{version}"
    rows = []
    for row in table["rows"]:
        obj = row.get("object")
        if obj is not None and obj.get("kind") == "PartialObjectMetadata":
            row = {**row, "object": {**obj, "apiVersion": api_version}}
        rows.append(row)
    return {**table, "apiVersion": api_version, "rows": rows}


def partial(obj: Object, media: Media) -> Object:
    """The object as PartialObjectMetadata."""
    from k3s.api.columns import own_metadata

    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{media.version}",
        "metadata": own_metadata(obj),
    }


def list_object(kind: Kind, meta: Object, objects: Sequence[Object]) -> Object:
    """A list; items of built-in kinds do not repeat their kind and apiVersion."""
    items = list(objects) if kind.custom else [_untyped(obj) for obj in objects]
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items}


def _untyped(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k not in ("kind", "apiVersion")}


def _list_meta(revision: str, page: str = "", remaining: int | None = None, *, custom: bool = False) -> Object:
    meta: Object = {"resourceVersion": revision} if revision else {}
    if page or custom:
        meta["continue"] = page
    if remaining is not None:
        meta["remainingItemCount"] = remaining
    return meta


def _go(kind: Kind) -> str:
    return f"*{kind.group.partition('.')[0] or 'core'}.{kind.kind}"


def dump_json(obj: Any, pretty: bool) -> bytes:
    """JSON text with a newline at its end."""
    data = encode(obj)
    return (msgspec.json.format(data, indent=2) if pretty else data) + b"\n"


def dump_yaml(obj: Any) -> bytes:
    """YAML text as the API's own library writes it: sorted keys, double quotes where needed, blocks for lines."""
    import yaml

    text: str = yaml.dump(
        obj, Dumper=_yaml_dumper(), default_flow_style=False, allow_unicode=True, sort_keys=True, width=10**6
    )
    return text.encode()


@functools.cache
def _yaml_dumper() -> Any:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Writes texts in the style of the API's library."""

    def text(dumper: Any, value: str) -> Any:
        style = None
        if "\n" in value:
            style = "|"
        elif dumper.resolve(yaml.ScalarNode, value, (True, False)) != "tag:yaml.org,2002:str" or value in _YAML_WORDS:
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda self, value: True
    return Dumper


# Texts that some YAML parsers read as booleans.
_YAML_WORDS = frozenset(
    {"y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"}
)
