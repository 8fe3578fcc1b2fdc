"""What the flags of the audit log may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s.apiserver.audit.delivery import Batching, Delivery, Truncation
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
    assert made.words["audit-log-format"] == "json"
    assert made.delivery("log") == Delivery("blocking", Batching(10000, 1, 0.0))
    assert made.delivery("webhook") == Delivery("batch", Batching(10000, 400, 30.0, 10.0, 15))
    assert [made.numbers[f"audit-log-{name}"] for name in ("maxage", "maxbackup", "maxsize")] == [366, 100, 100]


def test_every_flag(tmp_path: Path) -> None:
    """Of both backends alike."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    given = {"audit-policy-file": str(file), "audit-log-path": "-"}
    for place in ("log", "webhook"):
        at = f"audit-{place}-"
        given |= {f"{at}mode": "batch", f"{at}batch-buffer-size": "7", f"{at}batch-max-size": "3"}
        given |= {f"{at}batch-max-wait": "1m", f"{at}batch-throttle-enable": "true", f"{at}batch-throttle-qps": "2.5"}
        given |= {f"{at}batch-throttle-burst": "4", f"{at}truncate-enabled": "true", f"{at}version": "audit.k8s.io/v1"}
        given |= {f"{at}truncate-max-batch-size": "2000", f"{at}truncate-max-event-size": "1000"}
    made = settings(given)
    assert made is not None
    wanted = Delivery("batch", Batching(7, 3, 60.0, 2.5, 4), Truncation(1000, 2000))
    assert made.delivery("log") == made.delivery("webhook") == wanted


LOG = {"audit-policy-file": "FILE", "audit-log-path": "-"}


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
        (
            {**LOG, "audit-log-mode": "batch", "audit-log-batch-buffer-size": "0"},
            "audit-log-batch-buffer-size: it must",
        ),
        ({**LOG, "audit-webhook-batch-max-size": "0"}, "audit-webhook-batch-max-size: it must be a positive number"),
        ({**LOG, "audit-webhook-batch-throttle-qps": "0"}, "audit-webhook-batch-throttle-qps: it must be a positive"),
        ({**LOG, "audit-webhook-batch-throttle-qps": "-1"}, "audit-webhook-batch-throttle-qps: '-1' is no number"),
        (
            {**LOG, "audit-webhook-mode": "fast"},
            "audit-webhook-mode: 'fast' is none of batch, blocking, blocking-strict",
        ),
        ({**LOG, "audit-log-version": "audit.k8s.io/v1beta1"}, "audit-log-version: 'audit.k8s.io/v1beta1' is none of"),
        (
            {**LOG, "audit-log-truncate-enabled": "true", "audit-log-truncate-max-event-size": "0"},
            "audit-log-truncate-max-event-size: it must be a positive number",
        ),
        (
            {**LOG, "audit-log-truncate-enabled": "true", "audit-log-truncate-max-batch-size": "9"},
            "audit-log-truncate-max-batch-size: 9 is less than audit-log-truncate-max-event-size 102400",
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
