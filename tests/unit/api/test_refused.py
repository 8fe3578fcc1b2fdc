"""Objects of the smaller groups that are refused, against what upstream's rules say of them.

`tests/data/refused.json`: of each case the kind, the object (and the one of before), and how each cause begins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k3s.api import schema
from k3s.api.kinds import Kind, builtin
from k3s.api.validation import certificates, validate_create, validate_update

CASES = json.loads((Path(__file__).parents[2] / "data/refused.json").read_text())


def _ready(kind: Kind, given: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "x", **({"namespace": "n"} if kind.namespaced else {}), **given.get("metadata", {})}
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, **given, "metadata": meta}
    return schema.defaults(kind, schema.prune(kind, obj)[0])


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['kind'].rpartition('/')[2]}" for i, c in enumerate(CASES)])
def test_causes_are_those_of_upstream(case: dict[str, Any]) -> None:
    """Field and words of each cause, in order; none where upstream has none."""
    version, _, name = case["kind"].rpartition("/")
    kind = builtin(version, name)
    new = _ready(kind, case["object"])
    causes = validate_update(kind, _ready(kind, case["old"]), new) if "old" in case else validate_create(kind, new)
    found = [f"{c['field']}: {c['message']}" for c in causes]
    assert len(found) == len(case["causes"]), found
    for cause, wanted in zip(found, case["causes"], strict=True):
        assert cause.startswith(wanted)


def _request(*conditions: str, certificate: str = "") -> dict[str, Any]:
    """A signing request as it looks with these conditions."""
    status = {"conditions": [{"type": c, "status": "True"} for c in conditions], "certificate": certificate}
    return {"spec": {"usages": ["any"], "signerName": "a.io/b", "request": "YQ=="}, "status": status}


@pytest.mark.parametrize(
    ("old", "new", "path", "expected"),
    [
        (_request(), _request("Approved"), "approval", []),
        (_request(), _request("Approved"), "status", ['updates may not add a condition of type "Approved"']),
        (_request("Approved"), _request(), "approval", ['updates may not remove a condition of type "Approved"']),
        (_request("Approved"), _request("Approved", "Denied"), "approval", ["conditions are mutually exclusive"]),
        (_request("A", "A"), _request("A", "A", "B"), "status", ['Duplicate value: "A"']),
        (_request(), _request(certificate="YQ=="), "approval", ["CERTIFICATE PEM block", "may not set certificate"]),
        (_request(certificate="YQ=="), _request(certificate="Yg=="), "status", ["PEM", "may not modify existing"]),
    ],
)
def test_decisions_and_certificates_come_once(old: Any, new: Any, path: str, expected: list[str]) -> None:
    """Each path of a signing request changes its own part, and nothing is taken back."""
    found = [c["message"] for c in certificates.update(old, new, path) if c["field"] != "spec.request"]
    assert len(found) == len(expected), found
    assert all(part in message for part, message in zip(expected, found, strict=True))
