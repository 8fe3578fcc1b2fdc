"""Content negotiation."""

from __future__ import annotations

import pytest

from k3s.api.errors import NotAcceptable
from k3s.apiserver.media import JSON, PLAIN, PROTOBUF, YAML, Negotiation, negotiate

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "kind", "shape"),
    [
        ("", JSON, ""),
        ("*/*", JSON, ""),
        ("application/yaml", YAML, ""),
        ("application/json;q=0.5,application/yaml", YAML, ""),
        ("application/xml, */*;q=0.1", JSON, ""),
        ("application/vnd.kubernetes.protobuf,application/json", PROTOBUF, ""),
        (f"{TABLE},application/json", JSON, "Table"),
        ("application/json;as=Nothing;v=v1;g=meta.k8s.io,application/json", JSON, ""),
    ],
)
def test_choice(accept: str, kind: str, shape: str) -> None:
    """The best clause that can be served wins."""
    media = negotiate(accept)
    assert media is not None
    assert (media.type, media.shape) == (kind, shape)


def test_nothing_fits() -> None:
    """406, with what there is."""
    with pytest.raises(NotAcceptable, match="application/json, application/yaml"):
        Negotiation().choose("text/plain", None, "")


def test_people_get_indented_json() -> None:
    """curl sees indented JSON unless it says otherwise; programs get the stored bytes."""
    negotiation = Negotiation()
    assert negotiation.choose("*/*", None, "curl/8").pretty
    assert not negotiation.choose("*/*", "0", "curl/8").pretty
    assert negotiation.choose("application/json", None, "kubectl") is PLAIN
