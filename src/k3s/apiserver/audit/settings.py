"""What the flags say of the audit log, and the log made from it. Names and defaults are those of upstream's flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api import times
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.audit.auditor import Auditor
    from k3s.apiserver.audit.policy import Policy
    from k3s.apiserver.audit.webhook import Webhook

#: The flags, with what they take.
FLAGS = {
    "audit-policy-file": "a file",
    "audit-log-path": "a file, or - for the standard output",
    "audit-log-maxage": "a number of days",
    "audit-log-maxbackup": "a number of files",
    "audit-log-maxsize": "a number of megabytes",
    "audit-log-compress": "true or false",
    "audit-log-format": "json or legacy",
    "audit-log-mode": "batch, blocking or blocking-strict",
    "audit-webhook-config-file": "a kubeconfig file",
    "audit-webhook-mode": "batch",
    "audit-webhook-batch-buffer-size": "a number",
    "audit-webhook-batch-max-size": "a number",
    "audit-webhook-batch-max-wait": "a duration",
    "audit-webhook-initial-backoff": "a duration",
}
_WORDS = {
    "audit-log-compress": ("false", "true"),
    "audit-log-format": ("json", "legacy"),
    "audit-log-mode": ("blocking", "batch", "blocking-strict"),
    "audit-webhook-mode": ("batch",),
}
_NUMBERS = {
    "audit-log-maxage": 0,
    "audit-log-maxbackup": 0,
    "audit-log-maxsize": 0,
    "audit-webhook-batch-buffer-size": 10000,
    "audit-webhook-batch-max-size": 400,
}
_DURATIONS = {"audit-webhook-batch-max-wait": "30s", "audit-webhook-initial-backoff": "10s"}


class AuditError(ValueError):
    """A flag or a file that cannot be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The values of the flags, checked."""

    policy: Path
    words: Mapping[str, str]
    numbers: Mapping[str, int]
    seconds: Mapping[str, float]
    log: str = ""
    webhook: str = ""


def settings(args: Mapping[str, str]) -> AuditSettings | None:
    """From the flags; None when nothing is to be recorded. Raises AuditError."""
    given = {name: args[name] for name in FLAGS if name in args}
    if not given:
        return None
    log, webhook, policy = (
        given.get(f"audit-{name}", "") for name in ("log-path", "webhook-config-file", "policy-file")
    )
    if not policy or not (log or webhook):
        missing = "audit-policy-file" if not policy else "audit-log-path or audit-webhook-config-file"
        raise AuditError(f"{', '.join(given)} without {missing}: nothing would be recorded; add it")
    words = {name: given.get(name, choices[0]) for name, choices in _WORDS.items()}
    for name, word in words.items():
        if word not in _WORDS[name]:
            raise AuditError(f"{name}: {word!r} is none of {', '.join(_WORDS[name])}")
    made = AuditSettings(
        Path(policy),
        words,
        {name: _number(name, given.get(name, str(default))) for name, default in _NUMBERS.items()},
        {name: _seconds(name, given.get(name, default)) for name, default in _DURATIONS.items()},
        log,
        webhook,
    )
    _policy(made.policy)
    return made


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise AuditError(f"{name}: {text!r} is no number")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        return times.duration(text)
    except times.TimeError as error:
        raise AuditError(f"{name}: {text!r} is no duration such as 30s ({error})") from error


def _policy(path: Path) -> Policy:
    from k3s.api import yamltext
    from k3s.apiserver.audit.policy import PolicyError, parse

    try:
        return parse(yamltext.load(path.read_bytes()))
    except OSError as error:
        raise AuditError(f"audit-policy-file: {path} cannot be read: {error.strerror}") from error
    except PolicyError as error:
        raise AuditError(f"audit-policy-file: {path}: {error}") from error
    except ValueError as error:
        raise AuditError(f"audit-policy-file: {path} is no YAML: {error}") from error


def auditor(said: AuditSettings, clock: Clock, entropy: Entropy) -> Auditor:
    """The log that the flags ask for. Raises AuditError."""
    from k3s.apiserver.audit.auditor import Auditor
    from k3s.apiserver.audit.logfile import LogFile, LogSettings

    policy = _policy(said.policy)
    numbers, words = said.numbers, said.words
    file = None
    if said.log:
        age, count, size = (numbers[f"audit-log-{name}"] for name in ("maxage", "maxbackup", "maxsize"))
        file = LogFile(LogSettings(said.log, age, count, size, words["audit-log-compress"] == "true"), clock.now)
    legacy, strict = words["audit-log-format"] == "legacy", words["audit-log-mode"] == "blocking-strict"
    return Auditor(policy, file, _webhook(said), clock, entropy, legacy=legacy, strict=strict)


def _webhook(said: AuditSettings) -> Webhook | None:
    if not said.webhook:
        return None
    from k3s.apiserver.audit.webhook import Batches, Webhook
    from k3s.client.https import from_kubeconfig
    from k3s.client.kubeconfig import load

    path, numbers, seconds = Path(said.webhook), said.numbers, said.seconds
    try:
        transport = from_kubeconfig(load(path.read_text(), path.parent))
    except (OSError, ValueError) as error:
        raise AuditError(f"audit-webhook-config-file: {path}: {error}") from error
    buffer, size = (numbers[f"audit-webhook-batch-{name}"] for name in ("buffer-size", "max-size"))
    wait, backoff = (seconds[f"audit-webhook-{name}"] for name in ("batch-max-wait", "initial-backoff"))
    return Webhook(transport, Batches(buffer, size, wait, backoff))
