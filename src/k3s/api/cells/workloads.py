"""Cells of what runs pods: deployments, sets, jobs, autoscalers and their revisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k3s.api import times
from k3s.api.cells.text import NONE, UNKNOWN, UNSET, Age, containers, created, duration, is_true, pairs, selector
from k3s.api.object import Object, controller_of


def _parts(obj: Object) -> tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    return obj["metadata"].get("name", ""), spec, status, template


def deployment(obj: Object, age: Age) -> list[Any]:
    """name, ready, up to date, available, age, containers, images, selector."""
    name, spec, status, template = _parts(obj)
    return [
        name,
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(created(obj)),
        *containers(template),
        selector(spec.get("selector")),
    ]


def scale(obj: Object, age: Age) -> list[Any]:
    """name, desired, available, age."""
    name, spec, status, _ = _parts(obj)
    return [name, spec.get("replicas", 0), status.get("replicas", 0), age(created(obj))]


def replica_set(obj: Object, age: Age) -> list[Any]:
    """name, desired, current, ready, age, containers, images, selector."""
    name, spec, status, template = _parts(obj)
    chosen = spec.get("selector")
    return [
        name,
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(created(obj)),
        *containers(template),
        pairs(chosen) if obj.get("kind") == "ReplicationController" else selector(chosen),
    ]


def stateful_set(obj: Object, age: Age) -> list[Any]:
    """name, ready, age, containers, images."""
    name, spec, status, template = _parts(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name, ready, age(created(obj)), *containers(template)]


def daemon_set(obj: Object, age: Age) -> list[Any]:
    """name, desired, current, ready, up to date, available, node selector, age, containers, images, selector."""
    name, spec, status, template = _parts(obj)
    return [
        name,
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        pairs(template.get("nodeSelector")),
        age(created(obj)),
        *containers(template),
        selector(spec.get("selector")),
    ]


def job(obj: Object, age: Age) -> list[Any]:
    """name, status, completions, duration, age, containers, images, selector."""
    name, spec, status, template = _parts(obj)
    done, parallel = status.get("succeeded", 0), spec.get("parallelism", 0)
    if "completions" in spec:
        completions = f"{done}/{spec['completions']}"
    else:
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    started, ended = status.get("startTime"), status.get("completionTime")
    took = ""
    if started:
        took = duration(times.parse(ended) - times.parse(started)) if ended else age(started)
    return [
        name,
        _job_status(obj),
        completions,
        took,
        age(created(obj)),
        *containers(template),
        selector(spec.get("selector")),
    ]


def _job_status(obj: Object) -> str:
    for kind in ("Complete", "Failed"):
        if is_true(obj, kind):
            return kind
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_true(obj, kind):
            return kind
    return "Running"


def cron_job(obj: Object, age: Age) -> list[Any]:
    """name, schedule, time zone, suspend, active, last schedule, age, containers, images, selector."""
    name, spec, status, _ = _parts(obj)
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = (job_spec.get("template") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    return [
        name,
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        age(last) if last else NONE,
        age(created(obj)),
        *containers(template),
        selector(job_spec.get("selector")),
    ]


def pod_template(obj: Object, age: Age) -> list[Any]:
    """name, containers, images, labels."""
    template = obj.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    return [obj["metadata"].get("name", ""), *containers(template.get("spec") or {}), pairs(labels)]


def controller_revision(obj: Object, age: Age) -> list[Any]:
    """name, controller, revision, age."""
    owner = controller_of(obj)
    text = NONE
    if owner is not None:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        kind = owner.get("kind", "").lower()
        text = f"{kind}.{group}/{owner.get('name', '')}" if group else f"{kind}/{owner.get('name', '')}"
    return [obj["metadata"].get("name", ""), text, obj.get("revision", 0), age(created(obj))]


def autoscaler(obj: Object, age: Age) -> list[Any]:
    """name, reference, targets, minimum, maximum, replicas, age; of an autoscaling/v2 object."""
    name, spec, status, _ = _parts(obj)
    target = spec.get("scaleTargetRef") or {}
    current = status.get("currentMetrics") or []
    texts = [
        _metric(metric, current[i] if i < len(current) else {}) for i, metric in enumerate(spec.get("metrics") or ())
    ]
    shown = ", ".join(texts[:2]) or NONE
    if len(texts) > 2:
        shown += f" + {len(texts) - 2} more..."
    least = spec.get("minReplicas")
    return [
        name,
        f"{target.get('kind', '')}/{target.get('name', '')}",
        shown,
        UNSET if least is None else str(least),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(created(obj)),
    ]


_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


# A quantity that is not there, as its text form.
_NIL = "<nil>"


def _metric(metric: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind)
    if field is None:
        return "<unknown type>"
    source = metric.get(field) or {}
    target, now = source.get("target") or {}, (state.get(field) or {}).get("current") or {}
    missing = _NIL if field in state else UNKNOWN
    if kind in ("Resource", "ContainerResource"):
        prefix = f"{source.get('name', '')}: "
        if "averageValue" in target:
            return f"{prefix}{now.get('averageValue', missing)}/{target['averageValue']}"
        used = now.get("averageUtilization")
        wanted = target.get("averageUtilization")
        left = UNKNOWN if used is None else f"{used}%"
        return f"{prefix}{left}/{'<auto>' if wanted is None else f'{wanted}%'}"
    if kind == "Pods":
        return f"{now.get('averageValue', missing)}/{target.get('averageValue', _NIL)}"
    if "averageValue" in target:
        return f"{now.get('averageValue', UNKNOWN)}/{target['averageValue']} (avg)"
    return f"{now.get('value', missing)}/{target.get('value', _NIL)}"
