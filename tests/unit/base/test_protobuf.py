"""The table-driven protobuf codec, against bytes that are known and by the round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.base.protobuf import Codec
from k3s.kubelet.runtime import events
from k3s.kubelet.runtime.interface import RuntimeEvent

CODEC = Codec(
    {
        "All": {
            "text": [1, "string"],
            "number": [2, "int64"],
            "flag": [3, "bool"],
            "data": [4, "bytes"],
            "color": [5, "Color"],
            "inner": [6, "Inner"],
            "texts": [7, "string", "repeated"],
            "numbers": [8, "int64", "repeated"],
            "pairs": [9, "map<string,string>"],
            "inners": [10, "Inner", "repeated"],
            "small": [11, "uint32"],
            "real": [12, "double"],
        },
        "Inner": {"value": [1, "int64"]},
    },
    {"Color": {"RED": 0, "BLUE": 1}},
)


def test_known_bytes():
    """Examples of the encoding specification."""
    assert CODEC.encode("All", {"number": 150}) == b"\x10\x96\x01"
    assert CODEC.encode("All", {"text": "testing"}) == b"\x0a\x07testing"
    assert CODEC.encode("All", {"inner": {"value": 150}}) == b"\x32\x03\x08\x96\x01"
    assert CODEC.encode("All", {"numbers": [3, 270, 86942]}) == b"\x42\x06\x03\x8e\x02\x9e\xa7\x05"
    assert CODEC.encode("All", {"number": -1}) == b"\x10" + b"\xff" * 9 + b"\x01"
    assert CODEC.encode("All", {"number": 0, "text": "", "color": "RED"}) == b""


_INNER = st.fixed_dictionaries({"value": st.integers(-(2**63), 2**63 - 1)})
_ALL = st.fixed_dictionaries(
    {
        "text": st.text(),
        "number": st.integers(-(2**63), 2**63 - 1),
        "flag": st.booleans(),
        "data": st.binary(),
        "color": st.sampled_from(["RED", "BLUE"]),
        "inner": st.one_of(st.none(), _INNER),
        "texts": st.lists(st.text(), max_size=3),
        "numbers": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "pairs": st.dictionaries(st.text(), st.text(), max_size=3),
        "inners": st.lists(_INNER, max_size=3),
        "small": st.integers(0, 2**32 - 1),
        "real": st.floats(allow_nan=False),
    }
)


@given(_ALL)
def test_round_trip(value):
    """Decoding gives back what was encoded."""
    assert CODEC.decode("All", CODEC.encode("All", value)) == value


def test_what_is_unknown_or_broken():
    """Unknown fields are skipped; cut-off data is an error; an unknown key is one of ours."""
    assert CODEC.decode("Inner", b"\x08\x05\x92\x3f\x01x")["value"] == 5
    for bad in (b"\x0a\x07tes", b"\x10\x96", b"\x0b"):
        with pytest.raises(ValueError, match="Cannot decode"):
            CODEC.decode("All", bad)
    with pytest.raises(KeyError):
        CODEC.encode("All", {"none": 1})


def test_containerd_events():
    """The exit of a container is told, that of an exec in it is not."""

    def envelope(topic: str, message: str, **fields: object) -> dict[str, object]:
        return {"topic": topic, "event": {"value": events.codec.encode(message, fields)}}

    exit_of = envelope("/tasks/exit", "TaskExit", container_id="c", id="c", exit_status=1)
    assert events.from_envelope(exit_of) == RuntimeEvent("exit", "c")
    assert events.from_envelope(envelope("/tasks/exit", "TaskExit", container_id="c", id="exec")) is None
    assert events.from_envelope(envelope("/tasks/oom", "Task", container_id="c")) == RuntimeEvent("oom", "c")
    assert events.from_envelope(envelope("/other", "Task", container_id="c")) is None
