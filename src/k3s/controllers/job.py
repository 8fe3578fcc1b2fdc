"""Jobs: pods that run to their end, counted once each.

A pod carries a finalizer until its end is in the Job's status: first its uid is written to uncountedTerminatedPods,
then the finalizer is removed, then the uid becomes one more in `succeeded` or `failed`. So no end is lost or counted
twice, whatever is restarted in between (KEP-2307). Other sources: the API documentation of batch/v1 Job, KEP-2214
(indexes), KEP-2232 (suspend), KEP-3329 (pod failure policy), KEP-3939 (replacement policy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object, evolve
from k3s.controllers import job_pods, pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Emit, Parallel, Patch, Update, delete, earliest
from k3s.controllers.claims import claim
from k3s.controllers.job_ending import condition, ending, finished, with_condition
from k3s.controllers.job_pods import is_indexed, is_tracked
from k3s.controllers.known import JOB, POD
from k3s.controllers.replicaset import rank
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

_BURST = 500
_CONTROLLER = "kubernetes.io/job-controller"


@dataclass(frozen=True, slots=True)
class Tally:
    """A Job with its pods, and the status to which their ends add up."""

    job: Object
    owned: tuple[Object, ...]
    status: Object
    active: tuple[Object, ...]
    terminating: int
    succeeded: int
    failed: int
    indexes: frozenset[int]
    fail_job: str

    @property
    def completions(self) -> int | None:
        """How many successes are wanted; None when one success of any pod ends the work."""
        wanted = self.job["spec"].get("completions")
        return None if wanted is None else int(wanted)


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Job."""
    job = world.get(JOB, key)
    space, name = objects.split_key(key)
    strays = [pod for pod in world.pods_with(space, {job_pods.JOB_NAME: name}) if _is_stray(pod, job, name)]
    if strays:
        return Decision([Parallel([_untrack(pod) for pod in strays])])
    if job is None or job["spec"].get("managedBy", _CONTROLLER) != _CONTROLLER:
        return NOTHING
    owned = world.owned(POD, objects.uid(job))
    claims = claim(POD, job, job_pods.selector_of(job), owned, world.orphans(POD, space))
    if claims:
        return Decision(claims)
    if finished(job) or objects.is_deleting(job):
        over = [pod for pod in owned if is_tracked(pod) and _is_let_go(pod, job)]
        return Decision([Parallel([_untrack(pod) for pod in over])] if over else [])
    tally = count(job, owned)
    return _conclude(tally, now)


def _is_let_go(pod: Object, job: Object) -> bool:
    """Whether nobody will count the pod any more, because its Job has ended or is going."""
    return finished(job) or pods.is_finished(pod) or objects.is_deleting(pod)


def _is_stray(pod: Object, job: Object | None, name: str) -> bool:
    """A pod that waits to be counted by a Job that is gone."""
    ref = objects.controller_of(pod)
    if ref is None:
        return is_tracked(pod) and job is None
    same = job is not None and ref["uid"] == objects.uid(job)
    return ref["kind"] == "Job" and ref["name"] == name and not same and is_tracked(pod)


def _untrack(pod: Object) -> Patch:
    meta = pod["metadata"]
    left = [name for name in meta["finalizers"] if name != job_pods.FINALIZER]
    patch = {"metadata": {"finalizers": left or None, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}}
    return Patch(POD, meta["namespace"], meta["name"], patch)


def count(job: Object, owned: Sequence[Object]) -> Tally:
    """Adds up how the pods ended: what was written before, what became final, what is new."""
    before = job.get("status", {})
    uncounted = before.get("uncountedTerminatedPods") or {}
    tracked = {objects.uid(pod): pod for pod in owned if is_tracked(pod)}
    succeeded, failed = before.get("succeeded", 0), before.get("failed", 0)
    waiting: dict[str, list[str]] = {"succeeded": [], "failed": []}
    for uid in uncounted.get("succeeded") or ():
        succeeded += uid not in tracked
        waiting["succeeded"] += [uid] if uid in tracked else []
    for uid in uncounted.get("failed") or ():
        failed += uid not in tracked
        waiting["failed"] += [uid] if uid in tracked else []
    indexes = job_pods.parse_indexes(before.get("completedIndexes", ""))
    fail_job = ""
    for uid, pod in tracked.items():
        if uid in waiting["succeeded"] or uid in waiting["failed"]:
            continue
        if pods.phase(pod) == "Succeeded":
            index = job_pods.index_of(pod)
            if not is_indexed(job):
                waiting["succeeded"].append(uid)
            elif index is not None and index < job["spec"].get("completions", 0):
                indexes.add(index)
        elif job_pods.has_failed(job, pod):
            action, message = job_pods.verdict(job, pod)
            fail_job = message if action == "FailJob" else fail_job
            if action != "Ignore":
                waiting["failed"].append(uid)
    if is_indexed(job):
        # An index counts once, whatever number of pods succeeded for it.
        succeeded = len(indexes)
    active = tuple(pod for pod in owned if pods.is_active(pod))
    terminating = sum(1 for pod in owned if objects.is_deleting(pod) and not pods.is_finished(pod))
    counts = {"succeeded": succeeded, "failed": failed}
    status = _status(job, counts, waiting, indexes, active, terminating)
    all_good = succeeded + (0 if is_indexed(job) else len(waiting["succeeded"]))
    all_bad = failed + len(waiting["failed"])
    return Tally(job, tuple(owned), status, active, terminating, all_good, all_bad, frozenset(indexes), fail_job)


def _status(
    job: Object,
    counts: dict[str, int],
    waiting: dict[str, list[str]],
    indexes: Iterable[int],
    active: Sequence[Object],
    terminating: int,
) -> Object:
    computed = ("active", "ready", "succeeded", "failed", "terminating", "completedIndexes", "uncountedTerminatedPods")
    status = {name: value for name, value in job.get("status", {}).items() if name not in computed}
    shown = {**counts, "active": len(active)}
    status |= {name: number for name, number in shown.items() if number}
    status["ready"] = sum(1 for pod in active if pods.is_ready(pod))
    status["terminating"] = terminating
    status["uncountedTerminatedPods"] = {name: uids for name, uids in waiting.items() if uids}
    if is_indexed(job):
        text = job_pods.format_indexes(indexes)
        if text:
            status["completedIndexes"] = text
    return status


def _conclude(tally: Tally, now: float) -> Decision:
    """The status first, then finalizers of what it counts, then pods."""
    job, status = tally.job, tally.status
    events: list[Action] = []
    steps: list[Action] = []
    wait: float | None = None
    suspended = job["spec"].get("suspend", False)
    if "startTime" not in status and not suspended:
        status = {**status, "startTime": times.format(now)}
    verdict, deadline_in = ending(job, tally.succeeded, tally.failed, tally.active, tally.fail_job, tally.indexes, now)
    if verdict is not None:
        status, over = _end(tally, status, verdict, now)
        events = over
        steps = _delete_active(tally.active)
    elif suspended:
        status, events = _suspend(job, status, now)
        steps = _take_back(tally.active)
    else:
        status, events = _resume(job, status, now)
        made, backoff_in = _manage(tally, now)
        steps, wait = made, earliest(backoff_in, deadline_in)
    actions: list[Action] = []
    if status != job.get("status", {}):
        actions.append(Update(JOB, evolve(job, ("status",), status), "status"))
    ended = [pod for pod in tally.owned if is_tracked(pod) and _is_over(job, pod)]
    if ended:
        actions.append(Parallel([_untrack(pod) for pod in ended[:_BURST]]))
    return Decision([*actions, *events, *steps], wait)


def _is_over(job: Object, pod: Object) -> bool:
    return pods.phase(pod) == "Succeeded" or job_pods.has_failed(job, pod)


def _end(tally: Tally, status: Object, verdict: Object, now: float) -> tuple[Object, list[Action]]:
    """FailureTarget or SuccessCriteriaMet at once; Failed or Complete when the last pod is gone and counted."""
    status = with_condition(status, verdict, now)
    left = any(pods.is_active(pod) for pod in tally.owned) or tally.terminating
    if left or status.get("uncountedTerminatedPods") or any(map(is_tracked, tally.owned)):
        return status, []
    success = verdict["type"] == "SuccessCriteriaMet"
    final = {**verdict, "type": "Complete" if success else "Failed"}
    status = with_condition(status, final, now)
    if success:
        status["completionTime"] = times.format(now)
        return status, [Emit(tally.job, "Normal", "Completed", "Job completed")]
    return status, [Emit(tally.job, "Warning", verdict["reason"], verdict["message"])]


def _delete_active(active: Sequence[Object]) -> list[Action]:
    return [Parallel([delete(POD, pod) for pod in active[:_BURST]])] if active else []


def _take_back(unwanted: Sequence[Object]) -> list[Action]:
    """Deletes pods that did not fail: without the finalizer nobody counts them."""
    marks = [_untrack(pod) for pod in unwanted[:_BURST] if is_tracked(pod)]
    return [Parallel(marks), *_delete_active(unwanted)] if marks else _delete_active(unwanted)


def _suspend(job: Object, status: Object, now: float) -> tuple[Object, list[Action]]:
    status = {name: value for name, value in status.items() if name != "startTime"}
    if pods.is_true(job, "Suspended"):
        return status, []
    new = condition("Suspended", "JobSuspended", "Job suspended")
    return with_condition(status, new, now), [Emit(job, "Normal", "Suspended", "Job suspended")]


def _resume(job: Object, status: Object, now: float) -> tuple[Object, list[Action]]:
    if not pods.is_true(job, "Suspended"):
        return status, []
    new = {**condition("Suspended", "JobResumed", "Job resumed"), "status": "False"}
    status = {**with_condition(status, new, now), "startTime": times.format(now)}
    return status, [Emit(job, "Normal", "Resumed", "Job resumed")]


def _manage(tally: Tally, now: float) -> tuple[list[Action], float | None]:
    """Makes or deletes pods so that as many run as are wanted."""
    job, active = tally.job, tally.active
    parallelism = job["spec"].get("parallelism", 1)
    if tally.completions is None:
        wanted = len(active) if tally.succeeded else parallelism
    else:
        wanted = max(min(tally.completions - tally.succeeded, parallelism), 0)
    if len(active) > wanted:
        excess = rank(active, Counter(pod["spec"].get("nodeName", "") for pod in active), now)[: len(active) - wanted]
        return _take_back(excess), None
    held = tally.terminating if job_pods.replaces_only_failed(job) else 0
    missing = wanted - len(active) - held
    if missing <= 0:
        return [], None
    wait = job_pods.backoff_in(job, tally.owned, now)
    if wait > 0:
        return [], wait
    numbers: Sequence[int | None] = [None] * missing
    if is_indexed(job):
        numbers = _free_indexes(tally)[:missing]
    creations = [Create(POD, job_pods.pod(job, number), about=job) for number in numbers[:_BURST]]
    return ([Parallel(creations, slow_start=True)] if creations else []), None


def _free_indexes(tally: Tally) -> list[int]:
    used = set(tally.indexes)
    for pod in tally.owned:
        lives = pods.is_active(pod) or (job_pods.replaces_only_failed(tally.job) and not pods.is_finished(pod))
        if lives and (index := job_pods.index_of(pod)) is not None:
            used.add(index)
    return [index for index in range(tally.completions or 0) if index not in used]


def _of_pod(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    if pods.same_for_owner(old, new):
        return ()
    found: dict[str, None] = {}
    for pod in pods.sides(old, new):
        found |= dict.fromkeys(pods.owner_key(pod, "Job"))
        if objects.controller_of(pod) is None and job_pods.JOB_NAME in objects.labels(pod):
            found[f"{objects.namespace(pod)}/{objects.labels(pod)[job_pods.JOB_NAME]}"] = None
    return found


SPECS = (
    ControllerSpec(
        name="job-controller",
        decide=decide,
        kind=JOB,
        watches=(Watch(POD, _of_pod),),
        account="job-controller",
    ),
)
