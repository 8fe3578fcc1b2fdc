"""The forms of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import names


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.dns_label, ["a", "a-1", "1" * 63], ["", "A", "-a", "a.b", "a" * 64, "a\n"]),
        (names.dns_subdomain, ["a.b-c.1", "x" * 253], ["a..b", ".a", "a_b", "x" * 254]),
        (names.dns1035_label, ["a1"], ["1a", "a-"]),
        (names.wildcard_subdomain, ["*.example.com"], ["example.com", "*."]),
        (names.label_key, ["app", "example.com/App_1"], ["", "/a", "a/", "a/b/c", "-a", "A.com/x", "x" * 64]),
        (names.label_value, ["", "A_b.c", "x" * 63], ["a b", "-", "x" * 64, "é"]),
        (names.env_var_name, ["1", "a b", "A"], ["", "a=b", "é"]),
        (names.config_map_key, ["a.b", "_"], ["", ".", "..", "..a", "a/b"]),
        (names.port_name, ["http", "p-80"], ["", "80", "a--b", "-a", "A", "a" * 16]),
        (names.path_segment, ["a:b", ""], [".", "..", "a/b", "a%b"]),
        (names.http_header_name, ["X-A"], ["a b", ""]),
        (names.percent, ["10%"], ["10", "%"]),
        (names.domain_prefixed_path, ["acme.io/foo"], ["", "foo", "acme.io/"]),
        (names.c_identifier, ["_a1"], ["1a", "a-b"]),
    ],
)
def test_forms(check: object, good: list[str], bad: list[str]) -> None:
    """Each form takes its good examples and finds something wrong with each bad one."""
    assert callable(check)
    assert [text for text in good if check(text)] == []
    assert [text for text in bad if not check(text)] == []


def test_sentences() -> None:
    """The sentences are the recorded ones of the API server, odd comma included."""
    assert names.label_key("a b") == [
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
        "regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ]
    assert names.dns_subdomain("A") == [
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'example.com', "
        r"regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]
    assert names.label_key("x" * 64) == ["name part must be no more than 63 bytes"]


@given(st.text(max_size=80))
def test_no_text_is_too_strange(text: str) -> None:
    """Every check answers for every text."""
    for check in (names.dns_subdomain, names.label_key, names.label_value, names.env_var_name, names.config_map_key):
        assert all(isinstance(problem, str) for problem in check(text))
