"""The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

Source: the API documentation of DeploymentCondition; reasons and messages are the ones that `kubectl rollout status`
and people look for.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object
from k3s.controllers import pods
from k3s.controllers.deployment_bounds import bounds

# The largest deadline means that there is none.
_NO_DEADLINE = 2147483647


def _total(sets: Sequence[Object], count: str) -> int:
    return sum(rs.get("status", {}).get(count, 0) for rs in sets)


def status(deployment: Object, new: Object | None, old: Sequence[Object], now: float, *, progress: bool) -> Object:
    """The status that the replica sets amount to; `progress` tells whether the deadline is judged too."""
    sets = [*old, new] if new is not None else list(old)
    wanted = sum(rs["spec"].get("replicas", 1) for rs in sets)
    before = deployment.get("status", {})
    available = _total(sets, "availableReplicas")
    counts = {
        "replicas": _total(sets, "replicas"),
        "updatedReplicas": _total([new], "replicas") if new is not None else 0,
        "readyReplicas": _total(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(wanted - available, 0),
    }
    result: Object = {"observedGeneration": deployment["metadata"].get("generation", 0)}
    result |= {name: count for name, count in counts.items() if count}
    result["terminatingReplicas"] = _total(sets, "terminatingReplicas")
    if "collisionCount" in before:
        result["collisionCount"] = before["collisionCount"]
    conditions = _available(deployment, available, now)
    if progress:
        conditions = _progress(deployment, conditions, result, new, now)
        conditions = _failure(conditions, sets, now)
    if conditions:
        result["conditions"] = conditions
    return result


def _set(conditions: Sequence[Object], type: str, state: str, reason: str, message: str, now: float) -> list[Object]:
    """The conditions with this one in them; one with the same status and reason stays as it is."""
    old = next((found for found in conditions if found["type"] == type), None)
    if old is not None and old["status"] == state and old.get("reason") == reason:
        return list(conditions)
    since = old["lastTransitionTime"] if old is not None and old["status"] == state else times.format(now)
    return _replace(conditions, _condition(type, state, reason, message, since, now))


def _condition(type: str, state: str, reason: str, message: str, since: str, now: float) -> Object:
    return {
        "type": type,
        "status": state,
        "lastUpdateTime": times.format(now),
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }


def _replace(conditions: Sequence[Object], new: Object) -> list[Object]:
    return [*(found for found in conditions if found["type"] != new["type"]), new]


def _available(deployment: Object, available: int, now: float) -> list[Object]:
    conditions = deployment.get("status", {}).get("conditions") or []
    _, max_unavailable = bounds(deployment)
    if available >= deployment["spec"].get("replicas", 1) - max_unavailable:
        text = "Deployment has minimum availability."
        return _set(conditions, "Available", "True", "MinimumReplicasAvailable", text, now)
    text = "Deployment does not have minimum availability."
    return _set(conditions, "Available", "False", "MinimumReplicasUnavailable", text, now)


def _deadline_s(deployment: Object) -> int | None:
    seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
    return None if seconds == _NO_DEADLINE else int(seconds)


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether all replicas are new and available, and nothing older is left."""
    wanted = deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return counts == [wanted] * 3 and seen


def _advanced(before: Object, after: Object) -> bool:
    """Whether the rollout moved: more new, fewer old, more ready or more available replicas."""

    def old(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    more = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old(after) < old(before) or any(after.get(name, 0) > before.get(name, 0) for name in more)


def _progress(
    deployment: Object, conditions: list[Object], after: Object, new: Object | None, now: float
) -> list[Object]:
    deadline_s = _deadline_s(deployment)
    current = pods.condition(deployment, "Progressing")
    if deadline_s is None:
        return [found for found in conditions if found["type"] != "Progressing"]
    done = after.get("replicas", 0) == after.get("updatedReplicas", 0)
    if done and current is not None and current.get("reason") == "NewReplicaSetAvailable":
        return conditions
    subject = f'ReplicaSet "{objects.name(new)}"' if new is not None else f'Deployment "{objects.name(deployment)}"'
    if is_complete(deployment, after):
        text = f"{subject} has successfully progressed."
        return _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", text, now)
    if _advanced(deployment.get("status", {}), after):
        since = times.format(now)
        if current is not None and current["status"] == "True":
            since = current["lastTransitionTime"]
        text = f"{subject} is progressing."
        return _replace(conditions, _condition("Progressing", "True", "ReplicaSetUpdated", text, since, now))
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        # A rollout begins, and with it the time that it may take.
        text = f"Created new replica set {subject.rpartition(' ')[2]}"
        return _set(conditions, "Progressing", "True", "NewReplicaSetCreated", text, now)
    if _timed_out(current, deadline_s, now):
        text = f"{subject} has timed out progressing."
        return _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", text, now)
    return conditions


def _timed_out(current: Object, deadline_s: int, now: float) -> bool:
    if current.get("reason") == "ProgressDeadlineExceeded":
        return True
    return times.parse(current["lastUpdateTime"]) + deadline_s < now


def deadline_in(deployment: Object, status: Object, now: float) -> float | None:
    """Seconds until a rollout that does not move has timed out; None when nothing is waited for."""
    deadline_s = _deadline_s(deployment)
    current = pods.condition({"status": status}, "Progressing")
    if deadline_s is None or current is None or is_complete(deployment, status):
        return None
    if current.get("reason") in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable", "DeploymentPaused"):
        return None
    # Times in objects have whole seconds: a second more makes sure that the deadline is over then.
    return max(times.parse(current["lastUpdateTime"]) + deadline_s - now, 0.0) + 1


def _failure(conditions: list[Object], sets: Sequence[Object], now: float) -> list[Object]:
    for rs in reversed(sets):
        found = pods.condition(rs, "ReplicaFailure")
        if found is not None and found["status"] == "True":
            return _set(conditions, "ReplicaFailure", "True", found["reason"], found["message"], now)
    return [found for found in conditions if found["type"] != "ReplicaFailure"]


def pause_changed(deployment: Object, now: float) -> list[Object] | None:
    """The conditions after the Deployment was paused or resumed; None when they say so already."""
    if _deadline_s(deployment) is None:
        return None
    current = pods.condition(deployment, "Progressing")
    reason = current.get("reason") if current is not None else None
    if reason == "ProgressDeadlineExceeded":
        return None
    conditions = deployment.get("status", {}).get("conditions") or []
    paused = deployment["spec"].get("paused", False)
    if paused and reason != "DeploymentPaused":
        return _set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
    if not paused and reason == "DeploymentPaused":
        return _set(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    return None
