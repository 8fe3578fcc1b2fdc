"""CronJobs: which Jobs they make, when, and what their status says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from tests.unit.controllers.test_with_api_server import Plane
from tests.unit.controllers.test_with_api_server import quiet as quiet  # a fixture
from tests.unit.controllers.worlds import TEMPLATE, flat, meta, world_of

from k3s.api.object import Object
from k3s.controllers import cronjob
from k3s.controllers.actions import Create, Decision, Delete, Emit, Update
from k3s.controllers.known import CRON_JOB, JOB, POD, SERVICE_ACCOUNT
from k3s.sim import loop

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z, when what is in these worlds was made
KEY = "default/c"
MINUTE = int(NOW // 60)

decide = cronjob.decider(lambda: UTC)


def cron(status: Object | None = None, schedule: str = "*/5 * * * *", **spec: Any) -> Object:
    job = {"metadata": {"labels": {"a": "b"}, "annotations": {"n": "m"}}, "spec": {"template": TEMPLATE}}
    body = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta("c")}
    return {**body, "spec": {"schedule": schedule, "jobTemplate": job, **spec}, "status": status or {}}


def job(minute: int, ending: str = "", **more: Any) -> Object:
    status: Object = {}
    if ending:
        status = {"conditions": [{"type": ending, "status": "True"}], "startTime": f"2026-01-01T00:{minute:02}:00Z"}
        status |= {"completionTime": f"2026-01-01T00:{minute:02}:30Z"} if ending == "Complete" else {}
    name = more.pop("name", f"c-{MINUTE + minute}")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta(name, owner=cron(), **more),
        "spec": {"template": TEMPLATE},
        "status": status,
    }


def ref(found: Object) -> Object:
    return {"uid": found["metadata"]["uid"], "name": found["metadata"]["name"]}


def at(minutes: float, *found: Object, memory: Any = None) -> Decision:
    return decide(KEY, world_of(*found, memory=memory), NOW + minutes * 60)


def made(decision: Decision) -> list[str]:
    return [a.obj["metadata"]["name"] for a in flat(decision) if isinstance(a, Create)]


def reasons(decision: Decision) -> list[str]:
    return [a.reason for a in flat(decision) if isinstance(a, Emit)]


def test_a_job_when_it_is_due() -> None:
    """Not before; then one, named by its minute, with the template's labels and the time it was due at."""
    early = at(4, cron())
    assert not early.actions and early.requeue_after_s == pytest.approx(60.1)
    (create,) = flat(at(5, cron()))
    assert isinstance(create, Create)
    found = create.obj["metadata"]
    assert found["name"] == f"c-{MINUTE + 5}" and found["labels"] == {"a": "b"}
    assert found["annotations"] == {"n": "m", cronjob.SCHEDULED: "2026-01-01T00:05:00Z"}
    assert found["ownerReferences"][0]["controller"] and found["ownerReferences"][0]["kind"] == "CronJob"
    assert create.obj["spec"] == {"template": TEMPLATE}


def test_of_many_missed_times_the_last_one_counts() -> None:
    """Whatever was missed, one Job is made; where it was very much, that is told."""
    assert made(at(63, cron())) == [f"c-{MINUTE + 60}"]
    assert reasons(at(63, cron())) == []
    long = at(60 * 24, cron())
    assert made(long) == [f"c-{MINUTE + 1440}"] and reasons(long) == ["TooManyMissedTimes"]


@pytest.mark.parametrize(
    ("status", "spec", "minutes"),
    [
        pytest.param({"lastScheduleTime": "2026-01-01T00:05:00Z"}, {}, 9, id="done already"),
        pytest.param({}, {"startingDeadlineSeconds": 60}, 7, id="too late"),
        pytest.param({}, {"suspend": True}, 7, id="suspended"),
    ],
)
def test_no_job(status: Object, spec: Object, minutes: int) -> None:
    """Nothing is made twice, later than its deadline, or while suspended."""
    assert not at(minutes, cron(status, **spec)).actions


def test_a_schedule_or_zone_that_nobody_understands_is_told_once() -> None:
    """As an event, and again only when something else is wrong."""
    for found, reason in (
        (cron(schedule="x"), "UnparseableSchedule"),
        (cron(timeZone="No/Where"), "UnknownTimeZone"),
    ):
        first = at(7, found)
        assert reasons(first) == [reason] and not made(first)
        assert not at(7, found, memory=first.memory).actions


def test_zones() -> None:
    """A schedule is in its own zone; the Job says when that was."""
    (create,) = flat(at(24 * 60, cron(schedule="30 1 * * *", timeZone="Europe/Berlin")))
    assert isinstance(create, Create)
    assert create.obj["metadata"]["annotations"][cronjob.SCHEDULED] == "2026-01-01T01:30:00+01:00"


def test_the_status_is_what_the_jobs_are() -> None:
    """Running ones are listed, ended ones leave the list, times go forward; somebody's own Job is none of it."""
    running, done, own = job(10), job(5, "Complete"), job(7, name="by-hand")
    gone = {"uid": "gone", "name": "gone"}
    before = {"active": [ref(done), gone], "lastScheduleTime": "2026-01-01T00:05:00Z"}
    decision = at(11, cron(before), running, done, own)
    assert reasons(decision) == ["SawCompletedJob", "MissingJob"]
    (update,) = [a for a in flat(decision) if isinstance(a, Update)]
    status = update.obj["status"]
    assert [entry["name"] for entry in status["active"]] == [running["metadata"]["name"]]
    assert status["lastScheduleTime"] == "2026-01-01T00:10:00Z"
    assert status["lastSuccessfulTime"] == "2026-01-01T00:05:30Z"
    assert not at(11, cron(status), running, done, own).actions


def test_concurrency() -> None:
    """While one runs: another beside it, none, or one in its place."""
    running = job(5)
    status = {"active": [ref(running)], "lastScheduleTime": "2026-01-01T00:05:00Z"}
    assert made(at(10, cron(status), running)) == [f"c-{MINUTE + 10}"]
    forbidden = at(10, cron(status, concurrencyPolicy="Forbid"), running)
    assert not made(forbidden) and reasons(forbidden) == ["JobAlreadyActive"]
    replaced = flat(at(10, cron(status, concurrencyPolicy="Replace"), running))
    assert [type(a) for a in replaced] == [Delete, Create]
    assert isinstance(replaced[0], Delete) and replaced[0].name == running["metadata"]["name"]


def test_history() -> None:
    """Of ended Jobs the newest are kept, three that succeeded and one that failed unless told otherwise."""
    jobs = [job(n, "Complete") for n in range(1, 6)] + [job(n, "Failed") for n in range(6, 9)]
    status = {"lastScheduleTime": "2026-01-01T00:08:00Z", "lastSuccessfulTime": "2026-01-01T00:05:30Z"}

    def deleted(**spec: Any) -> list[int]:
        found = flat(at(9, cron(status, **spec), *jobs))
        return [int(a.name.rpartition("-")[2]) - MINUTE for a in found if isinstance(a, Delete)]

    assert deleted() == [1, 2, 6, 7]
    assert deleted(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=5) == [1, 2, 3, 4, 5]


def test_jobs_every_minute_over_the_api(quiet: Callable[[], None]) -> None:
    """Five minutes of a cluster: a Job a minute, each once, three kept, the status follows."""

    async def main() -> None:
        async with Plane(8) as plane:
            await plane.until(lambda: bool(plane.all(SERVICE_ACCOUNT, "default")))
            template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
            spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}
            body = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "default"}}
            await plane.root.create(CRON_JOB, {**body, "spec": spec})
            seen: set[str] = set()
            ended: set[str] = set()

            def enough() -> bool:
                seen.update(found["metadata"]["name"] for found in plane.all(JOB))
                for pod in plane.all(POD):
                    if pod["status"]["phase"] == "Running" and pod["metadata"]["uid"] not in ended:
                        ended.add(pod["metadata"]["uid"])
                        plane.tasks.spawn(plane.set_status(pod, {"phase": "Succeeded", "conditions": []}), "end")
                return len(seen) == 5 and len(plane.all(JOB)) == 3

            await plane.until(enough, within_s=600)
            minutes = sorted(int(name.rpartition("-")[2]) for name in seen)
            assert minutes == list(range(minutes[0], minutes[0] + 5))
            await asyncio.sleep(20)
            status = (plane.cache.get(CRON_JOB, "default", "c") or {})["status"]
            assert "active" not in status and status["lastScheduleTime"] <= status["lastSuccessfulTime"]
            quiet()

    loop.run(8, main())
