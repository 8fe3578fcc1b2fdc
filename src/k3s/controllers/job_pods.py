"""The pods of a Job: how one is made, which index it works on, what its failure means, when the next may start."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object, evolve
from k3s.api.selectors import LabelSelector, from_labels
from k3s.controllers import claims, pods

#: Holds a pod until the Job has counted how it ended.
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"

# After failures in a row a new pod waits 10 s, 20 s, 40 s … at most 10 minutes (DefaultJobPodFailureBackOff).
_BACKOFF_S, _BACKOFF_MOST_S = 10.0, 600.0


def labels_of(job: Object) -> dict[str, str]:
    """The labels that tie pods to their Job; the API server writes the same into the template, unless told not to."""
    if job["spec"].get("manualSelector"):
        return {}
    uid, name = objects.uid(job), objects.name(job)
    return {"controller-uid": uid, CONTROLLER_UID: uid, "job-name": name, JOB_NAME: name}


def selector_of(job: Object) -> LabelSelector:
    """The Job's selector; without one, its pods are known by its uid."""
    return claims.selector_of(job) if job["spec"].get("selector") else from_labels({CONTROLLER_UID: objects.uid(job)})


def is_tracked(pod: Object) -> bool:
    """Whether the pod still waits to be counted."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def is_indexed(job: Object) -> bool:
    """Whether each completion has a number."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def replaces_only_failed(job: Object) -> bool:
    """Whether a pod is replaced only after it ended (podReplacementPolicy Failed)."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "Failed")


def has_failed(job: Object, pod: Object) -> bool:
    """Whether a pod counts as failed: it ended so, or it is being deleted and nobody waits for its end."""
    phase = pods.phase(pod)
    if phase == "Failed":
        return True
    return objects.is_deleting(pod) and phase != "Succeeded" and not replaces_only_failed(job)


def index_of(pod: Object) -> int | None:
    """The completion index that the pod works on."""
    text = objects.annotations(pod).get(INDEX, "")
    return int(text) if text.isdecimal() else None


def pod(job: Object, index: int | None) -> Object:
    """A pod of the Job's template, for an index when the Job is indexed."""
    template = job["spec"]["template"]
    if index is None:
        return pods.from_template(template, job, labels=labels_of(job), finalizers=[FINALIZER])
    note = {INDEX: str(index)}
    spec = {**template["spec"], "hostname": f"{objects.name(job)}-{index}"}
    for part in ("initContainers", "containers"):
        if spec.get(part):
            spec[part] = [_with_index(container) for container in spec[part]]
    labels = {**labels_of(job), **note}
    made = pods.from_template(template, job, labels=labels, annotations=note, finalizers=[FINALIZER], spec=spec)
    return evolve(made, ("metadata", "generateName"), f"{objects.name(job)}-{index}-"[-58:])


def _with_index(container: Object) -> Object:
    env = container.get("env") or []
    if any(variable["name"] == "JOB_COMPLETION_INDEX" for variable in env):
        return container
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]}


def parse_indexes(text: str) -> set[int]:
    """The numbers of a text such as `0-3,5`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """Numbers as ranges: `0-3,5`; two neighbours are written `1,2`, as upstream does."""
    parts: list[str] = []
    run: list[int] = []
    for number in [*sorted(indexes), None]:
        if run and number != run[-1] + 1:
            parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(n) for n in run]
            run = []
        if number is not None:
            run.append(number)
    return ",".join(parts)


def ended_at(pod: Object) -> float:
    """When the pod ended: its last container, else when it stopped to be ready, else its deletion or creation."""
    moments = [
        times.parse(status["state"]["terminated"]["finishedAt"])
        for status in pod.get("status", {}).get("containerStatuses") or ()
        if objects.get(status, "state", "terminated", "finishedAt")
    ]
    if moments:
        return max(moments)
    ready = pods.condition(pod, "Ready") or {}
    text = ready.get("lastTransitionTime") or pod["metadata"].get("deletionTimestamp")
    return times.parse(text) if text else pods.created_at(pod)


def backoff_in(job: Object, owned: Sequence[Object], now: float) -> float:
    """Seconds until a new pod may be made, after the failures since the last success."""
    successes = [ended_at(pod) for pod in owned if pods.phase(pod) == "Succeeded"]
    last_success = max(successes, default=-math.inf)
    failures = [at for pod in owned if has_failed(job, pod) and (at := ended_at(pod)) > last_success]
    if not failures:
        return 0.0
    wait = min(_BACKOFF_S * 2.0 ** min(len(failures) - 1, 16), _BACKOFF_MOST_S)
    return max(max(failures) + wait - now, 0.0)


def verdict(job: Object, pod: Object) -> tuple[str, str]:
    """What podFailurePolicy says of a failed pod: (FailJob | Ignore | Count, message); Count when no rule matches."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    if pods.phase(pod) != "Failed":
        return "Count", ""
    for position, rule in enumerate(rules):
        reason = _matches(rule, pod)
        if reason:
            return rule["action"], f"{reason} matching {rule['action']} rule at index {position}"
    return "Count", ""


def _matches(rule: Object, pod: Object) -> str:
    if wanted := rule.get("onExitCodes"):
        status = pod.get("status", {})
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            code = objects.get(container, "state", "terminated", "exitCode", default=0)
            named = wanted.get("containerName") in (None, container["name"])
            inside = code in wanted["values"]
            if code and named and inside == (wanted["operator"] == "In"):
                return f"Container {container['name']} for pod {objects.key(pod)} failed with exit code {code}"
    for pattern in rule.get("onPodConditions") or ():
        found = pods.condition(pod, pattern["type"])
        if found is not None and found["status"] == pattern.get("status", "True"):
            return f"Pod {objects.key(pod)} has condition {pattern['type']}"
    return ""
