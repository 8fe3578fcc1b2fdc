"""Rules for what is run on a container from outside: probes and lifecycle hooks. Source: the Pod API documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.validation.causes import (
    Causes,
    each,
    forbidden,
    invalid,
    not_negative,
    one_of,
    port,
    port_or_name,
    required,
)

Spec = Mapping[str, Any]
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_KINDS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_KINDS = ("exec", "httpGet", "tcpSocket", "sleep")
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def of_container(at: str, container: Spec, grace: int | None) -> Causes:
    """Hooks and probes of a container that runs as long as its pod; `grace` is the pod's time to end, in seconds."""
    hooks: Spec = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if name in hooks:
            yield from _handler(f"{at}.lifecycle.{name}", hooks[name], _HOOK_KINDS, grace)
    for name in PROBES:
        if name in container:
            yield from _probe(f"{at}.{name}", container[name], name)


def _probe(at: str, probe: Spec, kind: str) -> Causes:
    yield from _handler(at, probe, _PROBE_KINDS, None)
    yield from not_negative(at, probe, *_NUMBERS)
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        yield invalid(f"{at}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    if kind == "readinessProbe":
        if grace is not None:
            yield invalid(f"{at}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
    elif probe.get("successThreshold", 1) != 1:
        yield invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(at: str, handler: Spec, kinds: Sequence[str], grace: int | None) -> Causes:
    found = False
    for kind in kinds:
        action = handler.get(kind)
        if action is None:
            continue
        if found:
            yield forbidden(f"{at}.{kind}", "may not specify more than 1 handler type")
            continue
        found = True
        if kind == "exec":
            if not action.get("command"):
                yield required(f"{at}.exec.command")
        elif kind == "httpGet":
            yield from _http(f"{at}.httpGet", action)
        elif kind == "tcpSocket":
            yield from port_or_name(f"{at}.tcpSocket.port", action.get("port"))
        elif kind == "grpc":
            yield from port(f"{at}.grpc.port", action.get("port"))
        elif grace is not None and not 0 <= action.get("seconds", 0) <= grace:
            why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            yield invalid(f"{at}.sleep", action.get("seconds", 0), why)
    if not found:
        yield required(at, "must specify a handler type")


def _http(at: str, action: Spec) -> Causes:
    if not action.get("path", "/"):
        yield required(f"{at}.path")
    yield from port_or_name(f"{at}.port", action.get("port"))
    yield from one_of(f"{at}.scheme", action.get("scheme", "HTTP"), ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        yield from each(f"{at}.httpHeaders", header.get("name", ""), names.http_header_name(header.get("name", "")))
