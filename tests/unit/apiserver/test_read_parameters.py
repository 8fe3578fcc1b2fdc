"""What parameters of reads mean, and which go together."""

from __future__ import annotations

import pytest

from k3s.api.errors import BadRequest
from k3s.apiserver import reads


@pytest.mark.parametrize(
    ("query", "watching", "fields"),
    [
        ({"resourceVersionMatch": "Bad", "continue": "x"}, False, 3),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0", "sendInitialEvents": "true"}, False, 2),
        ({"resourceVersionMatch": "Exact", "sendInitialEvents": "true"}, True, 2),
        ({"resourceVersionMatch": "NotOlderThan", "sendInitialEvents": "true"}, True, 0),
    ],
)
def test_parameters_that_do_not_go_together_are_all_named(query: dict[str, str], watching: bool, fields: int) -> None:
    """Each rule that a query breaks is a cause of its own."""
    causes = list((reads._watch_causes if watching else reads._list_causes)(query))
    assert len(causes) == fields


@pytest.mark.parametrize(("text", "why"), [("1_0", "invalid syntax"), ("9" * 19, "value out of range")])
def test_numbers_are_those_of_go(text: str, why: str) -> None:
    """What Go's parser does not take is refused in its words."""
    with pytest.raises(BadRequest, match=why):
        reads.number(text)
