"""Conversion between versions."""

from __future__ import annotations

import pytest

from k3s.api import convert, schema
from k3s.api.kinds import builtin

V1 = builtin("autoscaling/v1", "HorizontalPodAutoscaler")
V2 = builtin("autoscaling/v2", "HorizontalPodAutoscaler")
OLD, NEW = builtin("v1", "Event"), builtin("events.k8s.io/v1", "Event")


def test_cpu_percentage_is_a_metric() -> None:
    """What v1 says in one field v2 says in a list."""
    spec = {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    obj = {"apiVersion": "autoscaling/v1", "kind": V1.kind, "metadata": {"name": "x"}, "spec": spec}
    obj = schema.defaults(V1, obj | {"spec": spec | {"targetCPUUtilizationPercentage": 50}})
    new = convert.convert(obj, V1, V2)
    target = {"type": "Utilization", "averageUtilization": 50}
    assert new["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    assert new["apiVersion"] == "autoscaling/v2"
    assert schema.defaults(V1, schema.prune(V1, convert.convert(new, V2, V1))[0]) == obj
    bare = convert.convert({"apiVersion": "autoscaling/v1", "metadata": {"name": "x"}, "spec": spec}, V1, V2)
    assert bare["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80


def test_what_v1_cannot_say_travels_in_annotations() -> None:
    """A v2 object survives the way to v1 and back."""
    metrics = [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}},
        {"type": "Pods", "pods": {"metric": {"name": "p"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
        {
            "type": "Object",
            "object": {
                "describedObject": {"kind": "Service", "name": "s"},
                "metric": {"name": "o", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "Value", "value": "5"},
            },
        },
        {"type": "External", "external": {"metric": {"name": "e"}, "target": {"type": "Value", "value": "7"}}},
    ]
    obj = {
        "apiVersion": "autoscaling/v2",
        "kind": V2.kind,
        "metadata": {"name": "x", "annotations": {"mine": "1"}},
        "spec": {"maxReplicas": 3, "metrics": metrics, "behavior": {"scaleUp": {"selectPolicy": "Max"}}},
        "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]},
    }
    old = convert.convert(obj, V2, V1)
    assert old["spec"]["targetCPUUtilizationPercentage"] == 5
    assert "metrics" not in old["spec"]
    assert old["metadata"]["annotations"]["mine"] == "1"
    assert convert.convert(old, V1, V2) == schema.defaults(V2, obj)


def test_events_change_their_field_names() -> None:
    """And come back as they were."""
    obj = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}}
    obj.update({"message": "m", "count": 2, "source": {"component": "kubelet"}, "reportingComponent": "kubelet"})
    new = convert.convert(obj, OLD, NEW)
    assert new["regarding"] == {"kind": "Pod"}
    assert (new["note"], new["deprecatedCount"], new["reportingController"]) == ("m", 2, "kubelet")
    assert convert.convert(new, NEW, OLD) == obj
    assert convert.to_storage(NEW, new) == obj


def test_there_is_no_way_between_kinds() -> None:
    """A KeyError names both."""
    with pytest.raises(KeyError, match="Event to autoscaling/v1"):
        convert.convert({}, OLD, V1)
