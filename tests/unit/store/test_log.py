"""The decisions that datastores share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.store.interface import Compacted, FutureRevision
from k3s.store.log import check_readable, compaction_target, prefix_end

KEYS = st.text(st.sampled_from("a/0é\ud7ff\ue000\U0010ffff"), max_size=4)


@given(prefix=KEYS, key=KEYS)
def test_a_key_has_the_prefix_exactly_when_it_is_in_the_range(prefix, key):
    end = prefix_end(prefix)
    inside = prefix <= key and (end is None or key < end)
    assert inside == key.startswith(prefix)


def test_the_end_of_a_prefix_can_be_stored():
    """Half a surrogate pair is no text that a database takes."""
    assert prefix_end("/a") == "/b"
    assert prefix_end("\ud7ff") == "\ue000"
    assert prefix_end("a\U0010ffff") == "b"
    assert prefix_end("") is None


def test_what_can_be_read():
    for revision in (0, 5, 7, 9):
        check_readable(revision, 5, 9)
    with pytest.raises(FutureRevision):
        check_readable(10, 5, 9)
    with pytest.raises(Compacted):
        check_readable(4, 5, 9)


@given(seen=st.integers(0, 5000), more=st.integers(0, 5000), keep=st.integers(0, 2000))
def test_compaction_spares_what_is_newer_than_the_last_visit_and_the_newest(seen, more, keep):
    newest = seen + more
    target = compaction_target(seen, newest, keep)
    assert 0 <= target <= seen
    assert newest - target >= min(keep, newest)
