"""What the flags of the audit log may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s.apiserver.audit.settings import AuditError, settings

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"


def test_nothing_said_is_no_log() -> None:
    """Without a flag nothing is recorded."""
    assert settings({"anonymous-auth": "true"}) is None


def test_defaults(tmp_path: Path) -> None:
    """Those of upstream."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    made = settings({"audit-policy-file": str(file), "audit-log-path": "-"})
    assert made is not None
    assert made.words["audit-log-mode"] == "blocking" and made.words["audit-log-format"] == "json"
    assert made.numbers["audit-webhook-batch-max-size"] == 400
    assert made.seconds["audit-webhook-batch-max-wait"] == 30.0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"audit-log-path": "-"}, "without audit-policy-file"),
        ({"audit-policy-file": "FILE"}, "without audit-log-path or audit-webhook-config-file"),
        ({"audit-policy-file": "/none", "audit-log-path": "-"}, "/none cannot be read: No such file"),
        ({"audit-policy-file": "FILE", "audit-log-path": "-", "audit-log-mode": "fast"}, "audit-log-mode: 'fast'"),
        ({"audit-policy-file": "FILE", "audit-log-path": "-", "audit-log-maxage": "x"}, "audit-log-maxage: 'x'"),
        ({"audit-policy-file": "BAD", "audit-log-path": "-"}, "rules[0].level"),
        (
            {"audit-policy-file": "FILE", "audit-log-path": "-", "audit-webhook-batch-max-wait": "1"},
            "audit-webhook-batch-max-wait: '1' is no duration",
        ),
    ],
)
def test_wrong_flags_are_named(tmp_path: Path, flags: dict[str, str], text: str) -> None:
    """The text names the flag, the file, the field."""
    good, bad = tmp_path / "policy.yaml", tmp_path / "bad.yaml"
    good.write_text(POLICY)
    bad.write_text(POLICY.replace("Metadata", "All"))
    given = {name: {"FILE": str(good), "BAD": str(bad)}.get(value, value) for name, value in flags.items()}
    with pytest.raises(AuditError) as error:
        settings(given)
    assert text in str(error.value)
