"""What is counted of authorization that is configured: decisions, questions to webhooks, and reloads."""

from __future__ import annotations

import hashlib

from k3s.base.metrics import Registry

_P = "apiserver_authorization_"
_WEBHOOK = "Webhook"


class Meters:
    """The metrics; `server` is the identity of this API server (see `presence.name_of`)."""

    def __init__(self, registry: Registry, server: str) -> None:
        self._server = _digest(server.encode())
        by_authorizer, by_result = ("type", "name"), ("name", "result")
        counter = registry.counter
        self._decisions = counter(f"{_P}decisions_total", "Decisions of authorizers", ("type", "name", "decision"))
        self._asked = counter(f"{_P}webhook_evaluations_total", "Questions to webhooks", by_result)
        self._open = counter(f"{_P}webhook_evaluations_fail_open_total", "Failures that refused nothing", by_result)
        self._seconds = registry.histogram(
            f"{_P}webhook_duration_seconds",
            "How long webhooks took",
            by_result,
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        prefix = f"{_P}match_condition_"
        self._exclusions = counter(f"{prefix}exclusions_total", "Requests that conditions excluded", by_authorizer)
        self._errors = counter(f"{prefix}evaluation_errors_total", "Conditions that failed", by_authorizer)
        self._matching = registry.histogram(
            f"{prefix}evaluation_seconds",
            "How long conditions took",
            by_authorizer,
            (0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25),
        )
        prefix, labels = f"{_P}config_controller_", ("apiserver_id_hash", "status")
        self._reloads = counter(f"{prefix}automatic_reloads_total", "Reloads of the configuration", labels)
        self._last = registry.gauge(
            f"{prefix}automatic_reload_last_timestamp_seconds", "When it was reloaded last", labels
        )
        self._info = registry.gauge(
            f"{prefix}last_config_info", "The configuration that is used", ("apiserver_id_hash", "hash")
        )
        self._used: bytes | None = None

    def decided(self, type: str, name: str, decision: str) -> None:
        """An authorizer said allowed or denied."""
        self._decisions.add(type, name, decision)

    def asked(self, name: str, result: str, seconds: float) -> None:
        """A webhook was asked: `success`, `error` or `timeout`."""
        self._asked.add(name, result)
        self._seconds.observe(seconds, name, result)

    def failed_open(self, name: str, result: str) -> None:
        """A webhook failed whose failures refuse nothing."""
        self._open.add(name, result)

    def excluded(self, name: str) -> None:
        """The conditions of a webhook kept a request from it."""
        self._exclusions.add(_WEBHOOK, name)

    def matched(self, name: str, seconds: float, errors: int) -> None:
        """The conditions of a webhook excluded nothing; so many could not be told."""
        self._matching.observe(seconds, _WEBHOOK, name)
        if errors:
            self._errors.add(_WEBHOOK, name, by=errors)

    def reloaded(self, status: str, now: float) -> None:
        """The configuration was read again: `success` or `failure`."""
        self._reloads.add(self._server, status)
        self._last.set(now, self._server, status)

    def uses(self, config: bytes) -> None:
        """The configuration that counts from now on."""
        if self._used is not None:
            self._info.set(0, self._server, _digest(self._used))
        self._used = config
        self._info.set(1, self._server, _digest(config))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
