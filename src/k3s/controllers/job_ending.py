"""When a Job is over, and how it says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from k3s.api import times
from k3s.api.object import Object
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Decision, delete
from k3s.controllers.job_pods import parse_indexes
from k3s.controllers.known import JOB
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World


def condition(type: str, reason: str, message: str) -> Object:
    """A condition that is True, without its times."""
    return {"type": type, "status": "True", "reason": reason, "message": message}


def with_condition(status: Object, new: Object, now: float) -> Object:
    """The status with a condition set; its times move only when its status does."""
    conditions = status.get("conditions") or []
    old = next((found for found in conditions if found["type"] == new["type"]), None)
    if old is not None and old["status"] == new["status"]:
        return status
    at = times.format(now)
    others = [found for found in conditions if found is not old]
    return {**status, "conditions": [*others, {**new, "lastProbeTime": at, "lastTransitionTime": at}]}


def finished(job: Object) -> bool:
    """Whether the Job is Complete or Failed."""
    return pods.is_true(job, "Complete") or pods.is_true(job, "Failed")


def ending(
    job: Object,
    succeeded: int,
    failed: int,
    active: Sequence[Object],
    fail_job: str,
    indexes: Collection[int],
    now: float,
) -> tuple[Object | None, float | None]:
    """FailureTarget or SuccessCriteriaMet when the Job is over, and seconds until its deadline.

    `fail_job` is the message of a failure that ends the Job, `indexes` are the completion indexes that succeeded.
    """
    for type in ("FailureTarget", "SuccessCriteriaMet"):
        found = pods.condition(job, type)
        if found is not None and found["status"] == "True":
            return condition(type, found["reason"], found["message"]), None
    if fail_job:
        return condition("FailureTarget", "PodFailurePolicy", fail_job), None
    spec = job["spec"]
    limit = spec.get("backoffLimit", 6)
    if failed > limit or _restarted_too_often(spec, active, limit):
        text = "Job has reached the specified backoff limit"
        return condition("FailureTarget", "BackoffLimitExceeded", text), None
    left = _deadline_in(job, now)
    if left is not None and left <= 0:
        text = "Job was active longer than specified deadline"
        return condition("FailureTarget", "DeadlineExceeded", text), None
    rule = _success_rule(spec, indexes)
    if rule is not None:
        return condition("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}"), None
    completions = spec.get("completions")
    done = (succeeded > 0 and not active) if completions is None else succeeded >= completions
    if done and not spec.get("suspend"):
        text = "Reached expected number of succeeded pods"
        return condition("SuccessCriteriaMet", "CompletionsReached", text), None
    return None, left


def _success_rule(spec: Object, indexes: Collection[int]) -> int | None:
    """The position of the first rule of successPolicy that holds (KEP-3998)."""
    for position, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or ()):
        named = rule.get("succeededIndexes")
        wanted = parse_indexes(named) if named else set(indexes)
        matched = len(wanted & set(indexes))
        if matched >= rule.get("succeededCount", len(wanted)) and matched:
            return position
    return None


def _restarted_too_often(spec: Object, active: Sequence[Object], limit: int) -> bool:
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.get("restartCount", 0)
        for pod in active
        for part in ("initContainerStatuses", "containerStatuses")
        for status in pod.get("status", {}).get(part) or ()
    )
    return bool(restarts > 0 if limit == 0 else restarts >= limit)


def _deadline_in(job: Object, now: float) -> float | None:
    seconds, start = job["spec"].get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
    if seconds is None or start is None or job["spec"].get("suspend"):
        return None
    return times.parse(start) + float(seconds) - now


def expire(key: str, world: World, now: float) -> Decision:
    """Decides a finished Job with ttlSecondsAfterFinished: deleted with its pods when the time is over."""
    job = world.get(JOB, key)
    if job is None or "deletionTimestamp" in job["metadata"]:
        return NOTHING
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    ended = next((c for c in job.get("status", {}).get("conditions") or () if _is_final(c)), None)
    if ttl_s is None or ended is None:
        return NOTHING
    left = times.parse(ended["lastTransitionTime"]) + float(ttl_s) - now
    return Decision(requeue_after_s=left) if left > 0 else Decision([delete(JOB, job, propagation="Foreground")])


def _is_final(found: Object) -> bool:
    return bool(found["type"] in ("Complete", "Failed") and found["status"] == "True")


SPECS = (
    ControllerSpec(
        name="ttl-after-finished-controller", decide=expire, kind=JOB, account="ttl-after-finished-controller"
    ),
)
