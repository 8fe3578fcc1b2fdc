"""What is fuzzed: each target has a corpus of good inputs and runs one input; only declared errors may come out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fakes.server import Caller, build
from tests.fuzz.samples import JSONS, OBJECTS, PATCHES, POD, YAMLS

from k3s.api import apply, fieldselectors, jsontext, merge, names, patch, quantity, schema, selectors, times, wire
from k3s.api.errors import ApiError
from k3s.api.kinds import builtin
from k3s.apiserver import body, media, reads, request
from k3s.apiserver.server import ApiServer
from k3s.base.connection import Connection
from k3s.base.message import Request
from k3s.dns import wire as dns
from k3s.kubelet import spdy
from k3s.store.memory import MemoryStore


@dataclass(frozen=True)
class Target:
    """A corpus, and what is done with an input; an exception that gets out is a finding."""

    corpus: tuple[bytes, ...]
    run: Callable[[bytes], object]


def _quietly(*errors: type[Exception]) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    def wrap(run: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def quiet(data: bytes) -> object:
            try:
                return run(data)
            except errors:
                return None

        return quiet

    return wrap


def _text(run: Callable[[str], object], *errors: type[Exception]) -> Callable[[bytes], object]:
    return _quietly(*errors)(lambda data: run(data.decode("utf-8", "replace")))


def _texts(*words: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in words)


def _protobuf() -> Target:
    corpus = tuple(wire.encode(obj) for obj in OBJECTS)

    def run(data: bytes) -> object:
        obj = wire.decode(data)
        # What was understood can be said again.
        return wire.encode(obj) if wire.supports(obj.get("apiVersion", ""), obj.get("kind", "")) else None

    return Target(corpus, _quietly(ApiError)(run))


def _shape() -> Target:
    """A JSON or YAML body down to the object that would be stored, and as protobuf."""

    def run(data: bytes) -> object:
        obj = body.read(Request("POST", "/", {"content-type": "application/json"}, data))
        jsontext.keys(data)
        if not isinstance(obj, dict):
            return None
        for pattern in OBJECTS:
            if obj.get("kind") == pattern["kind"]:
                kind = builtin(pattern["apiVersion"], pattern["kind"])
                pruned, _ = schema.prune(kind, obj)
                full = schema.defaults(kind, pruned)
                return wire.encode(full)
        return None

    return Target(JSONS, _quietly(ApiError)(run))


def _yaml() -> Target:
    def run(data: bytes) -> object:
        return json.dumps(body.read(Request("POST", "/", {"content-type": "application/yaml"}, data)))

    return Target(YAMLS, _quietly(ApiError)(run))


def _patches() -> Target:
    node = schema.definition_of(builtin("v1", "Pod"))
    kinds = (patch.JSON, patch.MERGE, patch.STRATEGIC)

    def run(data: bytes) -> object:
        for kind in kinds:
            try:
                change = patch.parse(kind, data)
                if kind == patch.JSON:
                    patch.json_patch(POD, change)
                elif kind == patch.MERGE:
                    patch.merge_patch(POD, change)
                else:
                    merge.strategic_merge(node, POD, change)
            except ApiError:
                pass
        return None

    return Target((*PATCHES, *JSONS[:1]), run)


def _apply() -> Target:
    kind = builtin("v1", "Pod")
    node = schema.definition_of(kind)

    def run(data: bytes) -> object:
        config = body.apply_value(data)
        if not isinstance(config, dict):
            return None
        pruned, _ = schema.prune(kind, config)
        return apply.track_update(node, POD, pruned, "fuzz", now=1.0)

    return Target((*JSONS, *YAMLS), _quietly(ApiError)(run))


def _labels() -> Target:
    corpus = _texts("a=b", "a in (b,c),!d", "x.io/y notin (z),e", "a!=b,c==d", "a>1,b<2")
    return Target(corpus, _text(selectors.parse_labels, ApiError))


def _fields() -> Target:
    corpus = _texts("metadata.name=a", "spec.nodeName!=b,status.phase==c", "a=\\,\\=\\\\")
    return Target(corpus, _text(fieldselectors.parse_fields, ApiError))


def _quantity() -> Target:
    corpus = _texts("1", "500m", "1.5Gi", "1e3", "-12E-2", "100n", "9223372036854775807", "0.000000001", "+5k")

    def run(text: str) -> object:
        quantity.canonical_milli(text)
        quantity.value(text)
        quantity.compare(text, "1e3")
        return quantity.add(quantity.canonical(text), "1Ei")

    return Target(corpus, _text(run, quantity.QuantityError))


def _times() -> Target:
    corpus = _texts("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+02:00", "1h2m3.5s", "-1.5h", "100ns", "2µs")

    def run(text: str) -> object:
        for parse in (times.canonical, times.canonical_micro, times.duration_ns):
            with contextlib.suppress(times.TimeError):
                parse(text)
        return None

    return Target(corpus, _text(run))


def _names() -> Target:
    corpus = _texts("example.com/app", "a-b.c", "a" * 64, "*.example.com", "A_b", "web-1", "..", "%2F")
    checks = (
        *(names.dns_label, names.dns_subdomain, names.dns1035_label, names.wildcard_subdomain, names.qualified_name),
        *(names.label_value, names.c_identifier, names.env_var_name, names.config_map_key, names.port_name),
        *(names.path_segment, names.http_header_name, names.percent, names.domain_prefixed_path),
    )
    return Target(corpus, _text(lambda text: [check(text) for check in checks]))


def _requests() -> Target:
    """The request's line and the headers that are parsed by hand."""
    corpus = _texts(
        "/api/v1/namespaces/a/pods/b/log?follow=true&tailLines=3",
        "/apis/apps/v1/watch/deployments?labelSelector=a%3Db&limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5,*/*",
        reads.encode_page(5, "a/b"),
    )

    def run(text: str) -> object:
        request.parse("GET", text)
        media.negotiate(text)
        with contextlib.suppress(ApiError):
            media.Negotiation().choose(text, None, "x")
        return reads.decode_page(text)

    return Target(corpus, _text(run, ApiError))


def _dns() -> Target:
    query = bytes.fromhex("123401000001000000000001") + b"\x03web\x07default\x03svc\x00\x00\x01\x00\x01"
    query += b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
    answer = (
        bytes.fromhex("123481800001000100000000")
        + b"\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x0a\x00\x00\x01"
    )

    def run(data: bytes) -> object:
        for parse in (dns.parse_query, dns.parse_reply):
            with contextlib.suppress(dns.WireError):
                parse(data)
        return None

    return Target((query, answer), run)


def _spdy() -> Target:
    client = spdy.Session(client=True)
    stream, opened = client.open({"streamtype": "stdin", "port": "80"})
    corpus = (opened + client.data(stream, b"abc", end=True), client.reset(stream), client.reply(2))

    def run(data: bytes) -> object:
        return list(spdy.Session(client=False).receive(data))

    return Target(corpus, _quietly(spdy.ProtocolError)(run))


class _Wire(asyncio.Transport):
    """The client's side of a connection: keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _raw(method: str, path: str, body: bytes = b"", kind: str = "application/json", *more: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: a", "Authorization: Bearer adm", f"Content-Type: {kind}", *more]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _cel() -> Target:
    """Rules from definitions and policies: parsed, checked, priced and run within a call's budget."""
    from k3s.api import cel
    from k3s.api.cel.types import DYN

    corpus = _texts(
        "object.spec.replicas <= 5 && object.spec.containers.all(c, has(c.image) && c.image.startsWith('x'))",
        "object.metadata.labels.exists(k, k.matches('^a+$')) || size(object.spec.containers.map(c, c.name)) > 1u",
        "cel.bind(x, object.?spec[?'a'].orValue([1, 2.5, 3]), x.filter(i, i > 1).size() % 2 == 0 ? 'a' : b'\\xff'[0])",
        "quantity('1Gi').isGreaterThan(quantity('5M')) && ip('10.0.0.1').family() == 4",
        "url('http://a/b').getHost() == 'a' && [[1], [2]].flatten().sum() > duration('1h').getHours()",
        "object.spec.containers.transformMap(i, c, {c.name: i}).size() > 0",
        "'%s %d'.format(['a', 3]) + r'\\d'.replace('d', 'e', -1).split('')[0]",
        "string(timestamp('2026-01-02T03:04:05Z')) < 'a'",
    )
    environment = cel.Environment({"object": DYN})

    def run(text: str) -> object:
        return cel.compile(text, environment).evaluate({"object": POD}, cel.Budget())

    return Target(corpus, _text(run, cel.CompileError, cel.EvaluationError))


async def _account(server: ApiServer, account: dict[str, Any]) -> int:
    """Pods are not made before their service account is there."""
    caller = Caller(server.ports[0])
    status, _ = await caller.call("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    caller.close()
    return status


def _requests_of_clients() -> tuple[bytes, ...]:
    """Whole requests: reads, watches, writes of every form, patches, deletions."""
    pods = "/api/v1/namespaces/default/pods"
    return (
        _raw(
            "GET",
            pods + "?limit=3&labelSelector=a%3Db",
            b"",
            "",
            "Accept: application/json;as=Table;v=v1;g=meta.k8s.io",
        ),
        _raw("GET", pods + "?watch=1&allowWatchBookmarks=true"),
        _raw("DELETE", pods + "/web", b'{"propagationPolicy":"Foreground","preconditions":{"uid":"x"}}'),
        _raw(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            b'{"spec":{"resourceAttributes":{"verb":"get"}}}',
        ),
        _raw("POST", pods, JSONS[0].replace(b"managedFields", b"x")) * 2,
        b"POST /api/v1/namespaces HTTP/1.1\r\nAuthorization: Bearer adm\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
        *(
            _raw("POST", kind.path("default" if kind.namespaced else ""), text)
            for text, obj in zip(JSONS, OBJECTS, strict=True)
            if (kind := builtin(obj["apiVersion"], obj["kind"]))
        ),
        _raw(
            *("POST", "/apis/example.com/v1/namespaces/default/widgets"),
            b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"n":1,"p":"aa"}}',
        ),
        *(_raw("PATCH", pods + "/web", text, "application/json-patch+json") for text in PATCHES[:3]),
        *(_raw("PATCH", pods + "/web", text, "application/strategic-merge-patch+json") for text in PATCHES[3:]),
        _raw("PATCH", pods + "/web?fieldManager=f&force=true", JSONS[0], "application/apply-patch+yaml"),
        *(_raw("POST", pods, wire.encode(POD), "application/vnd.kubernetes.protobuf") for _ in range(1)),
    )


def _http() -> Target:
    """A whole API server behind one connection: whatever comes in, no answer is an internal error."""
    loop = asyncio.new_event_loop()
    store = MemoryStore()
    loop.run_until_complete(store.open())
    server = build(store)
    loop.run_until_complete(server.start())
    front = server._http
    reasons: list[str] = []

    class Reasons(logging.Handler):
        """What the server tells of its own mistakes."""

        def emit(self, record: logging.LogRecord) -> None:
            reasons[:] = [self.format(record)]

    logging.getLogger("k3s").addHandler(Reasons())
    account = {"metadata": {"name": "default"}}
    made = loop.run_until_complete(_account(server, account))
    assert made == 201

    async def serve(data: bytes) -> bytes:
        wire_end = _Wire()
        connection = Connection(front)
        connection.connection_made(wire_end)
        middle = len(data) * (data[-1] if data else 0) // 256
        for piece in (data[:middle], data[middle:]):
            if piece and not wire_end.closed:
                connection.data_received(piece)
        for _ in range(40):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        return bytes(wire_end.sent)

    def run(data: bytes) -> None:
        sent = loop.run_until_complete(serve(data))
        # Some mistakes of clients are 500 in upstream, too; ours say where to look.
        at = sent.find(b"see the server's log")
        if at >= 0:
            raise AssertionError(sent[at - 400 : at + 100].decode("latin-1") + "".join(reasons))

    return Target(_requests_of_clients(), run)


TARGETS: dict[str, Callable[[], Target]] = {
    "protobuf": _protobuf,
    "json": _shape,
    "yaml": _yaml,
    "patches": _patches,
    "apply": _apply,
    "labels": _labels,
    "fields": _fields,
    "quantity": _quantity,
    "times": _times,
    "names": _names,
    "requests": _requests,
    "dns": _dns,
    "spdy": _spdy,
    "cel": _cel,
    "http": _http,
}
