"""Conversion between the versions of one kind that share storage.

    convert(obj, from_kind, to_kind)     autoscaling v1 <-> v2, events v1 <-> events.k8s.io/v1
    to_storage(kind, obj)                the object in the version it is stored in

What one version cannot say travels in annotations (autoscalers) or has a `deprecated` twin (events), so a round trip
loses nothing. Source: the API documentation of both versions; the annotations are those that upstream uses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from k3s.api import schema
from k3s.api.kinds import REGISTRY, Kind, builtin
from k3s.api.object import Object, decode, encode

_AUTOSCALER = builtin("autoscaling/v2", "HorizontalPodAutoscaler")
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"


def convert(obj: Object, from_kind: Kind, to_kind: Kind) -> Object:
    """The object as another version of its kind; raises KeyError when there is no way between the two.

    Custom kinds change only their apiVersion (conversion strategy None).
    """
    new = reshape(obj, from_kind, to_kind)
    # The second version has defaults of its own (a metric), and an object is complete in the version it is stored in.
    complete = to_kind is _AUTOSCALER and from_kind is not to_kind
    return schema.defaults(_AUTOSCALER, new) if complete else new


def reshape(obj: Object, from_kind: Kind, to_kind: Kind) -> Object:
    """As `convert`, without what the other version would fill in."""
    if from_kind is to_kind:
        return obj
    step = _STEPS.get((from_kind.api_version, to_kind.api_version, from_kind.kind))
    if step is not None:
        return step(obj)
    if from_kind.custom and from_kind.group == to_kind.group and from_kind.kind == to_kind.kind:
        return {**obj, "apiVersion": to_kind.api_version}
    raise KeyError(f"{from_kind.api_version} {from_kind.kind} to {to_kind.api_version} {to_kind.kind}")


def to_storage(kind: Kind, obj: Object) -> Object:
    """A built-in object in the version it is stored in."""
    return convert(obj, kind, REGISTRY.storage_kind(kind))


def _renamed(obj: Object, names: dict[str, str], api_version: str) -> Object:
    out = {names.get(field, field): value for field, value in obj.items()}
    out["apiVersion"] = api_version
    return out


# v1 field -> events.k8s.io/v1 field
_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_EVENT_FIELDS_BACK = {new: old for old, new in _EVENT_FIELDS.items()}


def _event_to_new(obj: Object) -> Object:
    return _renamed(obj, _EVENT_FIELDS, "events.k8s.io/v1")


def _event_to_old(obj: Object) -> Object:
    return _renamed(obj, _EVENT_FIELDS_BACK, "v1")


def _autoscaler_to_v1(obj: Object) -> Object:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    notes: dict[str, str] = {}
    rest = []
    for metric in spec.pop("metrics", None) or ():
        target = (metric.get("resource") or {}).get("target") or {}
        is_cpu = metric.get("type") == "Resource" and metric["resource"].get("name") == "cpu"
        if is_cpu and "averageUtilization" in target and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
        else:
            rest.append(_metric_to_v1(metric))
    if rest:
        notes[_METRICS] = _written(rest)
    current = status.pop("currentMetrics", None)
    for metric in current or ():
        used = ((metric.get("resource") or {}).get("current") or {}).get("averageUtilization")
        if metric.get("type") == "Resource" and metric["resource"].get("name") == "cpu" and used is not None:
            status["currentCPUUtilizationPercentage"] = used
    if current:
        notes[_CURRENT] = _written([_current_to_v1(metric) for metric in current])
    if status.get("conditions"):
        notes[_CONDITIONS] = _written(status.pop("conditions"))
    if spec.get("behavior"):
        notes[_BEHAVIOR] = encode(_behavior_to_v1(spec.pop("behavior"))).decode()
    status.setdefault("currentReplicas", 0)
    return _with(obj, "autoscaling/v1", spec, status, notes)


def _autoscaler_to_v2(obj: Object) -> Object:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    notes = (obj.get("metadata") or {}).get("annotations") or {}
    metrics = [_metric_to_v2(metric) for metric in _read(notes, _METRICS) or ()]
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    behavior = _read(notes, _BEHAVIOR)
    if behavior:
        spec["behavior"] = _uncapitalised(behavior)
    current = [_current_to_v2(metric) for metric in _read(notes, _CURRENT) or ()]
    used = status.pop("currentCPUUtilizationPercentage", None)
    if used is not None and not current:
        current = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}}]
    if current:
        status["currentMetrics"] = current
    if not status.get("currentReplicas"):
        status.pop("currentReplicas", None)
    conditions = _read(notes, _CONDITIONS)
    if conditions:
        status["conditions"] = conditions
    return _with(obj, "autoscaling/v2", spec, status, {})


def _with(obj: Object, api_version: str, spec: Object, status: Object, notes: dict[str, str]) -> Object:
    """The object with a new spec and status, and with these of the conversion's annotations and no others."""
    metadata = dict(obj.get("metadata") or {})
    own = (_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR)
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in own}
    annotations.update(notes)
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    out = {**obj, "apiVersion": api_version, "metadata": metadata, "spec": spec}
    if status or "status" in obj:
        out["status"] = status
    return out


def _read(notes: dict[str, str], key: str) -> Any:
    """The value of an annotation; None when a client wrote something there that is not JSON."""
    if key not in notes:
        return None
    try:
        return decode(notes[key])
    except msgspec.DecodeError:
        return None


# Where a metric of the old form (v2beta1, the form of the annotation) keeps what v2 has under `target` or `current`.
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _metric_to_v1(metric: Object) -> Object:
    field = _SOURCES.get(metric.get("type", ""), "")
    source = dict(metric.get(field) or {})
    target = source.pop("target", None) or {}
    _flatten(source, metric.get("type", ""))
    if field in ("resource", "containerResource"):
        _move(target, source, averageUtilization="targetAverageUtilization", averageValue="targetAverageValue")
    elif field == "pods":
        _move(target, source, averageValue="targetAverageValue")
    elif field == "object":
        _move(target, source, averageValue="averageValue")
        source["targetValue"] = target.get("value", "0")
    else:
        _move(target, source, value="targetValue", averageValue="targetAverageValue")
    return {"type": metric.get("type", ""), field: source}


def _metric_to_v2(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    source = dict(metric.get(field) or {})
    target: Object = {}
    for old, new in (
        ("targetAverageUtilization", "averageUtilization"),
        ("targetAverageValue", "averageValue"),
        ("averageValue", "averageValue"),
        ("targetValue", "value"),
    ):
        if old in source:
            value = source.pop(old)
            if not (old == "targetValue" and value == "0"):
                target[new] = value
    words = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}
    target["type"] = next((word for name, word in words.items() if name in target), "Value")
    _nest(source, kind)
    return {"type": kind, field: {**source, "target": target}}


def _current_to_v1(metric: Object) -> Object:
    field = _SOURCES.get(metric.get("type", ""), "")
    source = dict(metric.get(field) or {})
    current = source.pop("current", None) or {}
    _flatten(source, metric.get("type", ""))
    if field in ("resource", "containerResource"):
        _move(current, source, averageUtilization="currentAverageUtilization", averageValue="currentAverageValue")
        source.setdefault("currentAverageValue", "0")
    elif field == "object":
        source["currentValue"] = current.get("value", "0")
        _move(current, source, averageValue="averageValue")
    elif field == "pods":
        source["currentAverageValue"] = current.get("averageValue", "0")
    else:
        source["currentValue"] = current.get("value", "0")
        _move(current, source, averageValue="currentAverageValue")
    return {"type": metric.get("type", ""), field: source}


def _current_to_v2(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    source = dict(metric.get(field) or {})
    current: Object = {}
    for old, new in (
        ("currentAverageUtilization", "averageUtilization"),
        ("currentAverageValue", "averageValue"),
        ("averageValue", "averageValue"),
        ("currentValue", "value"),
    ):
        if old in source:
            current[new] = source.pop(old)
    _nest(source, kind)
    return {"type": kind, field: {**source, "current": current}}


def _move(source: Object, target: Object, **names: str) -> None:
    for old, new in names.items():
        if old in source:
            target[new] = source[old]


def _flatten(source: Object, kind: str) -> None:
    """Metric identifiers lie in the source itself in the old form."""
    metric = source.pop("metric", None) or {}
    if kind in ("Pods", "Object", "External"):
        external = kind == "External"
        source["metricName"] = metric.get("name", "")
        if metric.get("selector"):
            source["metricSelector" if external else "selector"] = metric["selector"]
        if kind == "Object":
            source["target"] = source.pop("describedObject", {})


def _nest(source: Object, kind: str) -> None:
    if kind not in ("Pods", "Object", "External"):
        return
    metric: Object = {"name": source.pop("metricName", "")}
    for field in ("metricSelector", "selector"):
        if field in source:
            metric["selector"] = source.pop(field)
    source["metric"] = metric
    if kind == "Object":
        source["describedObject"] = source.pop("target", {})


# The order in which the annotations name fields: old clients compare them as texts.
_ORDER = (
    *("type", "status", "lastTransitionTime", "reason", "message"),
    *("object", "pods", "resource", "containerResource", "external"),
    *("target", "kind", "name", "apiVersion", "metricName", "metricSelector"),
    *("targetValue", "currentValue", "targetAverageUtilization", "targetAverageValue"),
    *("currentAverageUtilization", "currentAverageValue", "selector", "averageValue", "container"),
    *("matchLabels", "matchExpressions", "key", "operator", "values"),
)
_PLACES = {name: place for place, name in enumerate(_ORDER)}
_RULES = ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")
_POLICY = ("type", "value", "periodSeconds")


def _written(value: Any) -> str:
    return encode(_ordered(value)).decode()


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: _PLACES.get(key, len(_PLACES)))
        return {key: _ordered(value[key]) for key in keys}
    return [_ordered(inner) for inner in value] if isinstance(value, list) else value


def _behavior_to_v1(behavior: Object) -> Object:
    """The annotation of the behavior has the field names of the program's own type, and all of them."""
    return {_capital(part): _rules_to_v1(behavior.get(part)) for part in ("scaleUp", "scaleDown")}


def _rules_to_v1(rules: Object | None) -> Object | None:
    if rules is None:
        return None
    out = {_capital(name): rules.get(name) for name in _RULES}
    policies = rules.get("policies")
    if policies is not None:
        out["Policies"] = [{_capital(name): policy.get(name) for name in _POLICY} for policy in policies]
    return out


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _uncapitalised(value: Any) -> Any:
    if isinstance(value, dict):
        return {k[:1].lower() + k[1:]: _uncapitalised(v) for k, v in value.items() if v is not None}
    return [_uncapitalised(inner) for inner in value] if isinstance(value, list) else value


_STEPS = {
    ("v1", "events.k8s.io/v1", "Event"): _event_to_new,
    ("events.k8s.io/v1", "v1", "Event"): _event_to_old,
    ("autoscaling/v2", "autoscaling/v1", "HorizontalPodAutoscaler"): _autoscaler_to_v1,
    ("autoscaling/v1", "autoscaling/v2", "HorizontalPodAutoscaler"): _autoscaler_to_v2,
}
