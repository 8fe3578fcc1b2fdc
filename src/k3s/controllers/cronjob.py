"""CronJobs: a Job each time the schedule is due.

A Job's name tells the minute it was due at, so that a time is never worked on twice, whatever is restarted in between;
what the status says (active Jobs, the last time) is derived from the Jobs there are. Source: the CronJob documentation
and the API documentation of batch/v1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo

from k3s.api import cron, times
from k3s.api import object as objects
from k3s.api.object import Object
from k3s.base.clock import zone_of
from k3s.controllers import pods
from k3s.controllers.actions import NOTHING, Action, Create, Decision, Emit, Update, delete
from k3s.controllers.job_ending import finished
from k3s.controllers.known import CRON_JOB, JOB
from k3s.controllers.spec import ControllerSpec, Decide, Watch
from k3s.controllers.world import World

#: On each Job: when it was due, in the zone of the schedule.
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_MANY_MISSED = 100
# Decided so long after a time is due: the clock has passed it for sure.
_AFTER_S = 0.1
_MINUTE = 60


class _Unscheduled(Exception):
    """A schedule or zone that cannot be understood: the event's reason and message."""


def decider(local: Callable[[], tzinfo]) -> Decide:
    """The decider; schedules without a zone are in the one that `local` answers."""

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides a CronJob."""
        found = world.get(CRON_JOB, key)
        if found is None or objects.is_deleting(found):
            return NOTHING
        jobs = world.owned(JOB, objects.uid(found))
        status, told = _status(found, jobs)
        if status != (found.get("status") or {}):
            return Decision([*told, Update(CRON_JOB, {**found, "status": status}, "status")])
        old = _beyond_history(found, jobs)
        if old:
            return Decision([delete(JOB, job, found, propagation="Background") for job in old])
        if found["spec"].get("suspend"):
            return NOTHING
        try:
            schedule, zone = _schedule(found, local)
        except _Unscheduled as error:
            return _once(world, Emit(found, "Warning", *error.args))
        return _due(found, jobs, schedule, zone, world, now)

    return decide


def _status(found: Object, jobs: Sequence[Object]) -> tuple[Object, list[Action]]:
    """The status to which the Jobs add up, and what is to be told of how it changes."""
    before = found.get("status") or {}
    own = sorted((job for job in jobs if _minute(found, job)), key=lambda job: (_minute(found, job), objects.uid(job)))
    running = {objects.uid(job): job for job in own if not finished(job)}
    known = {objects.uid(job): job for job in jobs}
    listed = before.get("active") or []
    told: list[Action] = []
    for ref in listed:
        job = known.get(ref["uid"])
        if job is None:
            told.append(Emit(found, "Normal", "MissingJob", f"Active job went missing: {ref['name']}"))
        elif ref["uid"] not in running:
            said = f"Saw completed job: {ref['name']}, condition: {_ending(job)}"
            told.append(Emit(found, "Normal", "SawCompletedJob", said))
    active = [ref for ref in listed if ref["uid"] in running]
    active += [_reference(job) for uid, job in running.items() if uid not in {ref["uid"] for ref in active}]
    status = {**before, "active": active}
    if not active:
        del status["active"]
    _advance(status, "lastScheduleTime", (times.format(_minute(found, job) * _MINUTE) for job in own))
    ends = (job.get("status", {}).get("completionTime", "") for job in jobs if pods.is_true(job, "Complete"))
    _advance(status, "lastSuccessfulTime", ends)
    return status, told


def _advance(status: Object, field: str, candidates: Iterable[str]) -> None:
    """Times of one form are in order as their texts are."""
    newest = max((status.get(field) or "", *candidates))
    if newest:
        status[field] = newest


def _ending(job: Object) -> str:
    return "Complete" if pods.is_true(job, "Complete") else "Failed"


def _minute(found: Object, job: Object) -> int:
    """The minute since 1970 at which a Job was due; 0 for a Job that somebody else made from the template."""
    head, _, tail = objects.name(job).rpartition("-")
    return int(tail) if head == objects.name(found) and tail.isdigit() else 0


def _reference(job: Object) -> Object:
    meta = job["metadata"]
    named = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    return {"kind": "Job", "apiVersion": "batch/v1", **named, "resourceVersion": meta["resourceVersion"]}


def _beyond_history(found: Object, jobs: Sequence[Object]) -> list[Object]:
    """The oldest ended Jobs that are more than the history is to keep."""
    out: list[Object] = []
    for field, default, ending in (
        ("successfulJobsHistoryLimit", 3, "Complete"),
        ("failedJobsHistoryLimit", 1, "Failed"),
    ):
        ended = [job for job in jobs if pods.is_true(job, ending) and not objects.is_deleting(job)]
        ended.sort(key=lambda job: (job.get("status", {}).get("startTime") or "", objects.name(job)))
        limit = found["spec"].get(field)
        out += ended[: max(len(ended) - (default if limit is None else limit), 0)]
    return out


def _schedule(found: Object, local: Callable[[], tzinfo]) -> tuple[cron.Schedule, tzinfo]:
    text = found["spec"]["schedule"]
    try:
        schedule = cron.parse(text)
    except cron.CronError as error:
        raise _Unscheduled("UnparseableSchedule", f"unparseable schedule: {text!r} : {error}") from None
    zone = schedule.zone or found["spec"].get("timeZone") or ""
    try:
        return schedule, zone_of(zone) if zone else local()
    except ValueError:
        raise _Unscheduled("UnknownTimeZone", f'invalid timeZone: "{zone}": unknown time zone {zone}') from None


def _due(
    found: Object, jobs: Sequence[Object], schedule: cron.Schedule, zone: tzinfo, world: World, now: float
) -> Decision:
    """A Job for the last time that was due, when there is one nobody has worked on."""
    spec, status = found["spec"], found.get("status") or {}
    deadline = spec.get("startingDeadlineSeconds")
    since = times.parse(status["lastScheduleTime"]) if status.get("lastScheduleTime") else pods.created_at(found)
    if deadline is not None:
        since = max(since, now - float(deadline))
    at = schedule.latest(since, now, zone)
    following = schedule.next(now, zone)
    wait = None if following is None else following - now + _AFTER_S
    if at is None or any(_minute(found, job) == at // _MINUTE for job in jobs):
        return Decision(requeue_after_s=wait)
    told = _missed(found, schedule, since, now, zone)
    active = status.get("active") or []
    policy = spec.get("concurrencyPolicy", "Allow")
    if active and policy == "Forbid":
        why = "Not starting job because prior execution is running and concurrency policy is Forbid"
        return _once(world, Emit(found, "Normal", "JobAlreadyActive", why), wait)
    actions: list[Action] = [*told]
    if policy == "Replace":
        running = {ref["uid"] for ref in active}
        actions += [delete(JOB, job, found, propagation="Background") for job in jobs if objects.uid(job) in running]
    return Decision([*actions, Create(JOB, _job(found, at, zone), found)], wait)


def _missed(found: Object, schedule: cron.Schedule, since: float, now: float, zone: tzinfo) -> list[Action]:
    if cron.missed(schedule, since, now, zone, _MANY_MISSED + 1) <= _MANY_MISSED:
        return []
    why = "Set or decrease .spec.startingDeadlineSeconds or check clock skew"
    text = f"too many missed start times: more than {_MANY_MISSED}. {why}"
    return [Emit(found, "Warning", "TooManyMissedTimes", text)]


def _once(world: World, emit: Emit, wait: float | None = None) -> Decision:
    """Tells something, unless the last decision told the same."""
    said = (emit.reason, emit.message)
    return Decision([] if world.memory == said else [emit], wait, said)


def _job(found: Object, at: float, zone: tzinfo) -> Object:
    template = found["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    moment = datetime.fromtimestamp(at, zone).isoformat(timespec="seconds").replace("+00:00", "Z")
    meta: Object = {
        "name": f"{objects.name(found)}-{int(at // _MINUTE)}",
        "namespace": objects.namespace(found),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED: moment},
        "ownerReferences": [objects.owner_ref(found)],
    }
    if given.get("labels"):
        meta["labels"] = given["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}


def _of_job(old: Object | None, new: Object | None, world: World) -> Iterable[str]:
    obj = new or old
    return pods.owner_key(obj, "CronJob") if obj is not None else ()


def specs(local: Callable[[], tzinfo]) -> tuple[ControllerSpec, ...]:
    """The controller; schedules without a zone are in the one that `local` answers."""
    return (
        ControllerSpec(
            name="cronjob-controller",
            decide=decider(local),
            kind=CRON_JOB,
            watches=(Watch(JOB, _of_job),),
            account="cronjob-controller",
        ),
    )
