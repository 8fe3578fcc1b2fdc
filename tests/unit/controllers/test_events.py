"""What carries actions out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.controllers.fake_api import FakeApi
from tests.unit.controllers.worlds import pod

from k3s.api.errors import Forbidden
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.client.transport import Request, Response
from k3s.controllers import job_ending, job_pods
from k3s.controllers.actions import Create, Emit, Parallel
from k3s.controllers.execute import Executor, Written
from k3s.controllers.hashes import fnv1a, safe, template_hash
from k3s.controllers.known import CONFIG_MAP

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Refusing(FakeApi):
    """Refuses every creation after the first `good` ones."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good
        self.tried = 0

    async def send(self, request: Request) -> Response:
        self.tried += 1
        if self.tried > self.good:
            raise Forbidden("quota")
        return await super().send(request)


def test_slow_start_stops_at_the_first_failing_batch(run: Run) -> None:
    """Of 100 creations that will be refused after the third only 1 + 2 + 4 are tried, and the failure is told."""

    async def main() -> None:
        api, told, written = Refusing(3), list[Emit](), Written()
        obj: Object = {"metadata": {"generateName": "a-", "namespace": "default"}}
        batch = Parallel([Create(CONFIG_MAP, obj, about=pod("owner"))] * 100, slow_start=True)
        with pytest.raises(Forbidden):
            await Executor(Client(api), told.append).do(batch, written)
        assert api.tried == 7
        assert written.revisions == {CONFIG_MAP: 3}
        assert [emit.reason for emit in told] == ["SuccessfulCreate"] * 3 + ["FailedCreate"] * 4
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((3,), "3"), ((0, 1), "0,1"), ((0, 1, 2, 5, 7, 8, 9), "0-2,5,7-9")]
)
def test_completed_indexes(numbers: tuple[int, ...], text: str) -> None:
    """Indexes are written as ranges and read back."""
    assert job_pods.format_indexes(numbers) == text
    assert job_pods.parse_indexes(text) == set(numbers)


def test_pod_failure_policy() -> None:
    """The first rule that matches says what a failure means."""
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]
    job = {"metadata": {"name": "j"}, "spec": {"podFailurePolicy": {"rules": rules}}}
    failed = pod("p", phase="Failed")
    failed["status"]["containerStatuses"] = [{"name": "c", "state": {"terminated": {"exitCode": 42}}}]
    action, text = job_pods.verdict(job, failed)
    assert action == "FailJob"
    assert text == "Container c for pod default/p failed with exit code 42 matching FailJob rule at index 1"
    failed["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True"})
    assert job_pods.verdict(job, failed)[0] == "Ignore"
    assert job_pods.verdict(job, pod("q", phase="Running"))[0] == "Count"


@pytest.mark.parametrize(
    ("rule", "succeeded", "expected"),
    [
        ({"succeededIndexes": "0,2"}, {0, 2}, "SuccessPolicy"),
        ({"succeededIndexes": "0-3", "succeededCount": 2}, {1, 2}, "SuccessPolicy"),
        ({"succeededIndexes": "0,2"}, {0, 1}, None),
        ({"succeededCount": 2}, {4}, None),
    ],
)
def test_success_policy(rule: Object, succeeded: set[int], expected: str | None) -> None:
    """Some indexes may be enough for a Job to have succeeded."""
    spec = {"completions": 5, "successPolicy": {"rules": [rule]}, "template": {"spec": {}}}
    verdict, _ = job_ending.ending({"spec": spec}, len(succeeded), 0, (), "", succeeded, 0.0)
    assert (verdict or {}).get("reason") == expected


def test_hashes() -> None:
    """FNV-1a of the standard's own example; stable over the order of keys; another one after a collision."""
    assert fnv1a(b"") == 0x811C9DC5 and fnv1a(b"a") == 0xE40C292C
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 1}, 1)
    assert not set(safe("0123456789")) & set("aeiou013")
