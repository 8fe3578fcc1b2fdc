"""Protobuf and JSON say the same of every built-in kind: objects by chance from the schema, there and back."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from k3s.api import wire, wiretables
from k3s.api.errors import BadRequest
from k3s.api.kinds import REGISTRY, Kind
from k3s.api.schema import Node, definition_of

SAMPLES = 4
KINDS = [kind for kind in REGISTRY.all() if wire.supports(kind.api_version, kind.kind)]
_DEPTH = 9


def value(node: Node, chance: random.Random, depth: int) -> Any:
    """Something that the schema allows, and that differs from nothing."""
    if node.type == "object":
        return fields(node, chance, depth)
    if node.type == "map":
        inner = node.items()
        assert inner is not None
        return {f"k{i}": value(inner, chance, depth + 1) for i in range(chance.randrange(1, 3))}
    if node.type == "array":
        inner = node.items()
        assert inner is not None
        return [value(inner, chance, depth + 1) for _ in range(chance.randrange(1, 3))]
    return scalar(node, chance)


def scalar(node: Node, chance: random.Random) -> Any:
    """A value without parts."""
    number = chance.choice((1, -1, 7, 2**31 - 1, -(2**31)))
    if node.type == "string":
        return (
            base64.b64encode(b"\x00\xff").decode()
            if node.format == "byte"
            else chance.choice(("a", "ü\U0001f600", "x y"))
        )
    if node.type == "integer":
        return number if node.format == "int32" else number * chance.choice((1, 2**31))
    simple = {
        "boolean": True,
        "number": 1.5,
        "quantity": chance.choice(("1", "500m", "1.5Gi")),
        "int-or-string": chance.choice((5, "25%")),
        "time": "2026-01-02T03:04:05Z",
        "microtime": "2026-01-02T03:04:05.678901Z",
        "any": {"f:x": {}},
    }
    return simple[node.type]


def fields(node: Node, chance: random.Random, depth: int) -> dict[str, Any]:
    """An object with some of its fields, with none that would go on for ever."""
    out = {}
    names = list(node.fields)
    if depth and node.name == "PersistentVolumeClaim":
        # A whole object inside another: its type stands in JSON alone.
        names = [name for name in names if name not in ("apiVersion", "kind")]
    for name in names:
        child = node.fields[name]
        deep = depth >= _DEPTH and child.type in ("object", "map", "array")
        if not deep and (len(names) == 1 or chance.random() < 0.7):
            made = value(child, chance, depth + 1)
            if made not in ({}, []):
                out[name] = made
    return out


def sample(kind: Kind, chance: random.Random) -> dict[str, Any]:
    """An object of a kind."""
    obj = fields(definition_of(kind), chance, 0)
    return {**obj, "kind": kind.kind, "apiVersion": kind.api_version}


def without_nothing(obj: Any) -> Any:
    """The object without parts that hold nothing: a struct that is empty and one that is absent are the same bytes."""
    if isinstance(obj, dict):
        kept = {key: without_nothing(inner) for key, inner in obj.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [], "", 0, False, None)}
    return [without_nothing(inner) for inner in obj] if isinstance(obj, list) else obj


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.group or 'core'}/{kind.version}/{kind.kind}")
def test_there_and_back(kind: Kind) -> None:
    """No field is lost, renamed or changed, whichever way it goes."""
    chance = random.Random(f"{kind.api_version} {kind.kind}")
    for _ in range(SAMPLES):
        obj = sample(kind, chance)
        data = wire.encode(obj)
        back = wire.decode(data)
        assert without_nothing(back) == without_nothing(obj)
        assert wire.encode(back) == wire.encode(wire.decode(wire.encode(back)))


def test_every_stored_kind_has_a_message() -> None:
    """And nothing that is a custom kind's has one."""
    missing = [k.kind for k in REGISTRY.all() if k.stored and not wire.supports(k.api_version, k.kind)]
    assert missing == []
    assert not wire.supports("example.com/v1", "Status")
    assert not wire.supports("example.com/v1", "Time")
    assert wire.supports("example.com/v1", "DeleteOptions")
    assert not wire.supports("meta.k8s.io/v1", "Table")


def test_what_is_cut_off_is_a_clients_mistake() -> None:
    """Every beginning of a body is read or refused, never a failure of ours."""
    data = wire.encode(sample(KINDS[0], random.Random(1)))
    for end in range(len(data)):
        try:
            wire.decode(data[:end], "v1", "Pod")
        except BadRequest:
            continue


def _envelope(kind: str, raw: bytes) -> bytes:
    empty = wire.encode({"apiVersion": "v1", "kind": kind})
    head = empty[: 4 + 2 + empty[5]]
    return head + b"\x12" + bytes([len(raw)]) + raw


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        # ReplicationController{spec: 2{replicas: 1}}: a number beyond 32 bits keeps its lower bits
        (b"\x12\x07\x08\x85\x80\x80\x80\x80\x01", {"spec": {"replicas": 5}}),
        (b"\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", {"spec": {"replicas": -1}}),
        # the same message twice adds up
        (b"\x12\x02\x08\x05\x12\x02\x20\x07", {"spec": {"replicas": 5, "minReadySeconds": 7}}),
        # an unknown group with another inside is passed over
        (b"\xa3\x06\xab\x06\x08\x01\xac\x06\xa4\x06\x12\x02\x08\x05", {"spec": {"replicas": 5}}),
        # a field of a later version
        (b"\xfa\x07\x03abc\x12\x02\x08\x05", {"spec": {"replicas": 5}}),
    ],
)
def test_forms_that_go_reads_too(raw: bytes, wanted: dict[str, Any]) -> None:
    """What other encoders may send for the same values."""
    found = wire.decode(_envelope("ReplicationController", raw))
    assert {key: found[key] for key in wanted} == wanted


def test_packed_numbers() -> None:
    """Repeated numbers in one piece, as proto3 writes them."""
    context = next(f for f in wiretables.fields("core.v1.PodSpec") if f.name == "securityContext").number
    groups = next(f for f in wiretables.fields("core.v1.PodSecurityContext") if f.name == "supplementalGroups").number
    inner = bytes([groups << 3 | 2, 3, 1, 2, 127])
    spec = bytes([context << 3 | 2, len(inner)]) + inner
    found = wire.decode(_envelope("Pod", bytes([0x12, len(spec)]) + spec))
    assert found["spec"]["securityContext"]["supplementalGroups"] == [1, 2, 127]


@pytest.mark.parametrize("raw", [b"\x12\x7f", b"\x12\x02\x0b", b"\x0c", b"\x80" * 11, b"\xa3\x06\x08", b"\x00\x01"])
def test_malformed(raw: bytes) -> None:
    """Lengths beyond the end, groups without an end, numbers that are too long, tag 0."""
    with pytest.raises(BadRequest, match="cannot decode the protobuf body"):
        wire.decode(_envelope("ReplicationController", raw))


def test_what_is_not_utf_8_is_replaced() -> None:
    """As in JSON: the object is not refused for it."""
    data = wire.encode({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "abcd"}}).replace(b"abcd", b"a\xff\xfed")
    assert wire.decode(data)["data"] == {"k": "a\ufffd\ufffdd"}
