"""Rules for autoscalers (autoscaling/v2). Source: the HorizontalPodAutoscaler API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation.causes import (
    NEGATIVE,
    Causes,
    each,
    forbidden,
    invalid,
    name_of,
    not_negative,
    one_of,
    required,
)

Spec = Mapping[str, Any]
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}

# The order in which sources are looked for; only the first is looked at.
_IN_TURN = [(kind, _SOURCES[kind]) for kind in ("Object", "External", "Pods", "Resource", "ContainerResource")]
_RAW = (
    "must set either a target raw value or a target utilization",
    "may not set both a target raw value and a target utilization",
)


def autoscaler(obj: Object) -> Causes:
    """An autoscaler; one of the first version is looked at as one of the second."""
    spec = obj.get("spec") or {}
    most, least = spec.get("maxReplicas", 0), spec.get("minReplicas", 1)
    if least < 1:
        yield invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    if most < least:
        yield invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    first = obj.get("apiVersion") == "autoscaling/v1"
    yield from _reference("spec.scaleTargetRef", spec.get("scaleTargetRef") or {}, groupless=first)
    yield from _metrics(spec, least)
    behavior = spec.get("behavior") or {}
    for part in ("scaleUp", "scaleDown"):
        if behavior.get(part) is not None:
            yield from _rules(f"spec.behavior.{part}", behavior[part])


def status(obj: Object) -> Causes:
    """The status of an autoscaler."""
    yield from not_negative("status", obj.get("status") or {}, "currentReplicas", "desiredReplicas")


def _reference(at: str, target: Spec, *, groupless: bool) -> Causes:
    """What an object is named by; one to scale needs a group, or to be of the first version."""
    for part in ("kind", "name"):
        yield from name_of(f"{at}.{part}", target.get(part, ""), names.path_segment)
    version = target.get("apiVersion", "")
    if version.count("/") > 1:
        yield invalid(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    elif not groupless and "/" not in version and version != "v1":
        yield invalid(f"{at}.apiVersion", version, "apiVersion must specify API group")


def _metrics(spec: Spec, least: int) -> Causes:
    metrics = spec.get("metrics") or ()
    for i, metric in enumerate(metrics):
        yield from _metric(f"spec.metrics[{i}]", metric)
    if least == 0 and not {metric.get("type") for metric in metrics} & {"Object", "External"}:
        why = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden("spec.metrics", why)


def _metric(at: str, metric: Spec) -> Causes:
    """One metric: a type, and the source of that type alone."""
    kind = metric.get("type", "")
    if not kind:
        yield required(f"{at}.type", "must specify a metric source type")
    yield from one_of(f"{at}.type", kind, sorted(_SOURCES))
    own = _SOURCES.get(kind)
    given = [(type_, field) for type_, field in _IN_TURN if metric.get(field) is not None]
    for type_, field in given[:1]:
        yield from _source(f"{at}.{field}", type_, metric[field])
    if own is None:
        # Named twice: as no known type, and as one without a source.
        yield from one_of(f"{at}.type", kind, sorted(_SOURCES))
    elif metric.get(own) is None:
        yield required(f"{at}.{own}", "must populate information for the given metric source")
    if len(given) > 1:
        for _, field in given:
            if field != own:
                yield forbidden(f"{at}.{field}", "must populate the given metric source only")


def _source(at: str, kind: str, source: Spec) -> Causes:
    if kind == "Object":
        yield from _reference(f"{at}.describedObject", source.get("describedObject") or {}, groupless=True)
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            yield required(f"{at}.name", "must specify a resource name")
        if kind == "ContainerResource" and not source.get("container"):
            yield required(f"{at}.container", "must specify a container")
    else:
        name = (source.get("metric") or {}).get("name", "")
        if not name:
            yield required(f"{at}.metric.name", "must specify a metric name")
        yield from each(f"{at}.metric.name", name, names.path_segment(name) if name else ())
    target = source.get("target") or {}
    yield from _target(f"{at}.target", target)
    yield from _enough(f"{at}.target", kind, target)


def _target(at: str, target: Spec) -> Causes:
    kind = target.get("type", "")
    if not kind:
        yield required(f"{at}.type", "must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        yield invalid(f"{at}.type", kind, "must be either Utilization, Value, or AverageValue")
    for part in ("value", "averageValue"):
        if part in target and quantity.compare(target[part], "0") <= 0:
            yield invalid(f"{at}.{part}", target[part], "must be positive")
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        yield invalid(f"{at}.averageUtilization", utilization, "must be greater than 0")


# What a source of each type has to be measured by, and what it cannot be measured by at once.
_MEASURES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "Resource": (("averageUtilization", "averageValue"), *_RAW),
    "ContainerResource": (("averageUtilization", "averageValue"), *_RAW),
    "Object": (("averageValue", "value"), "must set either a target value or averageValue", ""),
    "External": (
        ("averageValue", "value"),
        "must set either a target value for metric or a per-pod target",
        "may not set both a target value for metric and a per-pod target",
    ),
}


def _enough(at: str, kind: str, target: Spec) -> Causes:
    if kind == "Pods":
        if "averageValue" not in target or quantity.compare(target["averageValue"], "0") <= 0:
            yield required(f"{at}.averageValue", "must specify a positive target averageValue")
        return
    (first, second), missing, both = _MEASURES[kind]
    if target.get(first) is None and target.get(second) is None:
        yield required(f"{at}.{first}", missing)
    elif both and target.get(first) is not None and target.get(second) is not None:
        yield forbidden(f"{at}.{second}", both)


def _rules(at: str, rules: Spec) -> Causes:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        yield invalid(f"{at}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if window is not None and window > 3600:
        yield invalid(f"{at}.stabilizationWindowSeconds", window, "must be less than or equal to 3600")
    if rules.get("selectPolicy") is not None:
        yield from one_of(f"{at}.selectPolicy", rules["selectPolicy"], ("Disabled", "Max", "Min"))
    policies = rules.get("policies") or ()
    if not policies:
        yield required(f"{at}.policies", "must specify at least one Policy")
    for i, policy in enumerate(policies):
        here = f"{at}.policies[{i}]"
        yield from one_of(f"{here}.type", policy.get("type", ""), ("Percent", "Pods"))
        if policy.get("value", 0) <= 0:
            yield invalid(f"{here}.value", policy.get("value", 0), "must be greater than zero")
        period = policy.get("periodSeconds", 0)
        if period <= 0:
            yield invalid(f"{here}.periodSeconds", period, "must be greater than zero")
        elif period > 1800:
            yield invalid(f"{here}.periodSeconds", period, "must be less than or equal to 1800")
    tolerance = rules.get("tolerance")
    if tolerance is not None and quantity.compare(tolerance, "0") < 0:
        yield invalid(f"{at}.tolerance", tolerance, NEGATIVE)
