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
    from k3s.apiserver.audit.delivery import Delivery
    from k3s.apiserver.audit.policy import Policy
    from k3s.apiserver.audit.webhook import Webhook

_MODES = "batch, blocking or blocking-strict"
_SWITCH = "true or false"
_VERSION = "audit.k8s.io/v1"
# What both backends have, with what it takes.
_EACH = {
    "mode": _MODES,
    "batch-buffer-size": "a number",
    "batch-max-size": "a number",
    "batch-max-wait": "a duration",
    "batch-throttle-enable": _SWITCH,
    "batch-throttle-qps": "a number of batches per second",
    "batch-throttle-burst": "a number of batches",
    "truncate-enabled": _SWITCH,
    "truncate-max-batch-size": "a number of bytes",
    "truncate-max-event-size": "a number of bytes",
    "version": _VERSION,
}
#: The flags, with what they take.
FLAGS = {
    "audit-policy-file": "a file",
    "audit-log-path": "a file, or - for the standard output",
    "audit-log-maxage": "a number of days",
    "audit-log-maxbackup": "a number of files",
    "audit-log-maxsize": "a number of megabytes",
    "audit-log-compress": _SWITCH,
    "audit-log-format": "json or legacy",
    **{f"audit-log-{name}": takes for name, takes in _EACH.items()},
    "audit-webhook-config-file": "a kubeconfig file",
    "audit-webhook-initial-backoff": "a duration",
    **{f"audit-webhook-{name}": takes for name, takes in _EACH.items()},
}
# The first word is the default.
_BOTH = {"truncate-enabled": ("false", "true"), "version": (_VERSION,)}
_WORDS = {
    "audit-log-compress": ("false", "true"),
    "audit-log-format": ("json", "legacy"),
    "audit-log-mode": ("blocking", "batch", "blocking-strict"),
    "audit-log-batch-throttle-enable": ("false", "true"),
    "audit-webhook-mode": ("batch", "blocking", "blocking-strict"),
    "audit-webhook-batch-throttle-enable": ("true", "false"),
    **{f"audit-{place}-{name}": words for place in ("log", "webhook") for name, words in _BOTH.items()},
}
_NUMBERS = {
    "audit-log-maxage": 366,
    "audit-log-maxbackup": 100,
    "audit-log-maxsize": 100,
    "audit-log-batch-buffer-size": 10000,
    "audit-log-batch-max-size": 1,
    "audit-log-batch-throttle-burst": 0,
    "audit-webhook-batch-buffer-size": 10000,
    "audit-webhook-batch-max-size": 400,
    "audit-webhook-batch-throttle-burst": 15,
    **{f"audit-{place}-truncate-max-batch-size": 10 << 20 for place in ("log", "webhook")},
    **{f"audit-{place}-truncate-max-event-size": 100 << 10 for place in ("log", "webhook")},
}
_RATES = {"audit-log-batch-throttle-qps": 0.0, "audit-webhook-batch-throttle-qps": 10.0}
_DURATIONS = {
    "audit-log-batch-max-wait": "0s",
    "audit-webhook-batch-max-wait": "30s",
    "audit-webhook-initial-backoff": "10s",
}


class AuditError(ValueError):
    """A flag or a file that cannot be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The values of the flags, checked."""

    policy: Path
    words: Mapping[str, str]
    numbers: Mapping[str, int]
    rates: Mapping[str, float]
    seconds: Mapping[str, float]
    log: str = ""
    webhook: str = ""

    def delivery(self, place: str) -> Delivery:
        """How events reach `log` or `webhook`."""
        from k3s.apiserver.audit.delivery import Batching, Delivery, Truncation

        at = f"audit-{place}-"
        throttled = self.words[f"{at}batch-throttle-enable"] == "true"
        batching = Batching(
            self.numbers[f"{at}batch-buffer-size"],
            self.numbers[f"{at}batch-max-size"],
            self.seconds[f"{at}batch-max-wait"],
            self.rates[f"{at}batch-throttle-qps"] if throttled else 0.0,
            self.numbers[f"{at}batch-throttle-burst"],
        )
        limits = Truncation(*(self.numbers[f"{at}truncate-max-{what}-size"] for what in ("event", "batch")))
        return Delivery(
            self.words[f"{at}mode"], batching, limits if self.words[f"{at}truncate-enabled"] == "true" else None
        )


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
        {name: _rate(name, given.get(name, str(default))) for name, default in _RATES.items()},
        {name: _seconds(name, given.get(name, default)) for name, default in _DURATIONS.items()},
        log,
        webhook,
    )
    for place in ("log", "webhook"):
        _check(made, f"audit-{place}-")
    _policy(made.policy)
    return made


def _check(said: AuditSettings, at: str) -> None:
    """What is not used is not checked, as upstream."""
    positive = []
    if said.words[f"{at}mode"] == "batch":
        positive += ["batch-buffer-size", "batch-max-size"]
        if said.words[f"{at}batch-throttle-enable"] == "true":
            positive += ["batch-throttle-qps", "batch-throttle-burst"]
    if said.words[f"{at}truncate-enabled"] == "true":
        positive.append("truncate-max-event-size")
    for name in positive:
        if {**said.numbers, **said.rates}[at + name] <= 0:
            raise AuditError(f"{at}{name}: it must be a positive number")
    event, batch = (said.numbers[f"{at}truncate-max-{what}-size"] for what in ("event", "batch"))
    if said.words[f"{at}truncate-enabled"] == "true" and batch < event:
        raise AuditError(f"{at}truncate-max-batch-size: {batch} is less than {at}truncate-max-event-size {event}")


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise AuditError(f"{name}: {text!r} is no number")
    return int(text)


def _rate(name: str, text: str) -> float:
    whole, _, rest = text.partition(".")
    if not text.isascii() or not (whole + rest).isdecimal():
        raise AuditError(f"{name}: {text!r} is no number")
    return float(text)


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
    from k3s.apiserver.audit.backends import Place
    from k3s.apiserver.audit.logfile import LogFile, LogPlace, LogSettings

    policy = _policy(said.policy)
    places: list[tuple[Place, Delivery]] = []
    if said.log:
        age, count, size = (said.numbers[f"audit-log-{name}"] for name in ("maxage", "maxbackup", "maxsize"))
        packed = said.words["audit-log-compress"] == "true"
        file = LogFile(LogSettings(said.log, age, count, size, packed), clock.now)
        places.append((LogPlace(file, legacy=said.words["audit-log-format"] == "legacy"), said.delivery("log")))
    if said.webhook:
        places.append((_webhook(said), said.delivery("webhook")))
    return Auditor(policy, places, clock, entropy)


def _webhook(said: AuditSettings) -> Webhook:
    from k3s.apiserver.audit.webhook import Webhook
    from k3s.client.https import from_kubeconfig
    from k3s.client.kubeconfig import load

    path = Path(said.webhook)
    try:
        transport = from_kubeconfig(load(path.read_text(), path.parent))
    except (OSError, ValueError) as error:
        raise AuditError(f"audit-webhook-config-file: {path}: {error}") from error
    return Webhook(transport, said.seconds["audit-webhook-initial-backoff"])
