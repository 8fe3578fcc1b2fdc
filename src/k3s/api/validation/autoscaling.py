"""Rules for autoscalers (autoscaling/v2). Source: the HorizontalPodAutoscaler API documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import names, quantity
from k3s.api.object import Object
from k3s.api.validation.causes import Causes, each, forbidden, invalid, one_of, required

Spec = Mapping[str, Any]
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


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
    target = spec.get("scaleTargetRef") or {}
    for part in ("kind", "name"):
        value = target.get(part, "")
        if not value:
            yield required(f"spec.scaleTargetRef.{part}")
        else:
            yield from each(f"spec.scaleTargetRef.{part}", value, names.path_segment(value))
    version = target.get("apiVersion", "")
    grouped = "/" in version or version == "v1" or obj.get("apiVersion") == "autoscaling/v1"
    if not grouped:
        yield invalid("spec.scaleTargetRef.apiVersion", version, "apiVersion must specify API group")
    yield from _metrics(spec, least)
    behavior = spec.get("behavior") or {}
    for part in ("scaleUp", "scaleDown"):
        if behavior.get(part) is not None:
            yield from _rules(f"spec.behavior.{part}", behavior[part])


def _metrics(spec: Spec, least: int) -> Causes:
    kinds = set()
    for i, metric in enumerate(spec.get("metrics") or ()):
        at = f"spec.metrics[{i}]"
        kind = metric.get("type", "")
        kinds.add(kind)
        if not kind:
            yield required(f"{at}.type", "must specify a metric source type")
            continue
        yield from one_of(f"{at}.type", kind, sorted(_SOURCES))
        field = _SOURCES.get(kind)
        if field is None:
            # Named twice: as no known type, and as one without a source.
            yield from one_of(f"{at}.type", kind, sorted(_SOURCES))
            continue
        source = metric.get(field)
        if source is None:
            yield required(f"{at}.{field}", "must populate information for the given metric source")
        else:
            yield from _source(f"{at}.{field}", kind, source)
    if least == 0 and not kinds & {"Object", "External"}:
        why = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden("spec.metrics", why)


def _source(at: str, kind: str, source: Spec) -> Causes:
    target = source.get("target") or {}
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            yield required(f"{at}.name", "must specify a resource name")
        if kind == "ContainerResource" and not source.get("container"):
            yield required(f"{at}.container", "must specify a container")
    elif not (source.get("metric") or {}).get("name"):
        yield required(f"{at}.metric.name")
    here = f"{at}.target"
    if not target.get("type"):
        yield required(f"{here}.type", "must specify a metric target type")
    else:
        yield from one_of(f"{here}.type", target["type"], ("Utilization", "Value", "AverageValue"))
    for part in ("value", "averageValue"):
        if part in target and quantity.compare(target[part], "0") <= 0:
            yield invalid(f"{here}.{part}", target[part], "must be positive")
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        yield invalid(f"{here}.averageUtilization", utilization, "must be greater than 0")
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and "averageValue" not in target:
            why = "must set either a target raw value or a target utilization"
            yield required(f"{here}.averageUtilization", why)
        elif utilization is not None and "averageValue" in target:
            yield forbidden(f"{here}.averageValue", "may not set both a target raw value and a target utilization")
    elif kind == "Pods" and "averageValue" not in target:
        yield required(f"{here}.averageValue", "must specify a positive target averageValue")
    elif kind in ("Object", "External") and not target.keys() & {"value", "averageValue"}:
        yield required(f"{here}.averageValue", "must set either a target value or averageValue")


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
