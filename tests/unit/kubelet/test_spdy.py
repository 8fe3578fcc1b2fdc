"""SPDY/3.1 frames, both sides against each other."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.kubelet.spdy import DICTIONARY, Data, GoAway, Opened, ProtocolError, Replied, Reset, Session


def test_the_dictionary_is_the_protocols() -> None:
    """Length and checksum of draft 3.1's dictionary: peers name it by this checksum."""
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_conversation() -> None:
    """Open, accept, data both ways, end."""
    client, server = Session(client=True), Session(client=False)
    stream, frame = client.open({"streamType": "stdin"})
    second, frame2 = client.open({"streamType": "stdout"})
    assert (stream, second) == (1, 3)
    events = server.receive(frame + frame2)
    assert events == [Opened(1, {"streamtype": "stdin"}), Opened(3, {"streamtype": "stdout"})]
    assert client.receive(server.reply(1) + server.reply(3)) == [Replied(1), Replied(3)]
    assert server.receive(client.data(1, b"abc") + client.data(1, b"", end=True)) == [
        Data(1, b"abc", False),
        Data(1, b"", True),
    ]
    assert server.receive(client.reset(3)) == [Reset(3)]


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 9))
def test_frames_may_be_cut_anywhere(pieces: list[bytes], size: int) -> None:
    """However the network cuts the bytes, the same events come out."""
    client, server = Session(client=True), Session(client=False)
    sent = client.open({"a": "b"})[1] + b"".join(client.data(1, piece) for piece in pieces)
    events = [e for at in range(0, len(sent), size) for e in server.receive(sent[at : at + size])]
    assert events == [Opened(1, {"a": "b"}), *(Data(1, piece, False) for piece in pieces)]


def test_pings_are_answered() -> None:
    """A ping comes back with its number."""
    session = Session(client=True)
    ping = struct.pack(">III", 0x80030006, 4, 7)
    assert session.receive(ping) == []
    assert session.answers() == ping
    assert session.answers() == b""
    assert session.receive(struct.pack(">IIII", 0x80030007, 8, 0, 0)) == [GoAway()]


@given(st.binary(max_size=200))
def test_garbage_is_refused_not_obeyed(data: bytes) -> None:
    """Any bytes give events or a ProtocolError, never anything else."""
    with contextlib.suppress(ProtocolError):
        Session(client=False).receive(data)


def test_limits() -> None:
    """Frames and headers beyond the limits are refused before they are kept."""
    with pytest.raises(ProtocolError, match="too large"):
        Session(client=False).receive(struct.pack(">II", 1, 0xFFFFFF))
    with pytest.raises(ProtocolError, match="too large"):
        Session(client=False).receive(Session(client=True).open({"a": "b" * 100_000})[1])
