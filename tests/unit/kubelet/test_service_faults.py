"""A kubelet in which something fails: the fault stays with one pod, nothing is lost and nothing costs too much."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.kubelet.kubelet_world import POD, World

from k3s.client.client import Client
from k3s.kubelet import pod as pod_machine
from k3s.kubelet import status as status_module
from k3s.kubelet.runtime import interface as cri


def test_a_bug_in_one_pod_stays_with_it(simulate):
    """An error that nobody expected is told as an event and tried again; other pods are not touched."""

    async def body(w: World) -> None:
        files = w.host.files

        def broken(client: Client, sources: Any) -> Any:
            made = files(client, sources)
            made.make_log_folder = lambda pod, _container: 1 / (pod["metadata"]["name"] != "bad")
            return made

        w.host.files = broken  # type: ignore[method-assign]
        await w.create("bad")
        await w.create("good")
        await w.until_running("good")
        await w.until(lambda: w.reason("bad") == "CreateContainerError")
        assert any("ZeroDivisionError" in e["message"] for e in w.events("FailedSync"))
        await w.client.delete(POD, "default", "bad", grace_s=1)
        await w.until(lambda: w.api.get("pods", "default", "bad") is None)

    simulate(body)


@pytest.mark.parametrize("part", ["step", "next_wake"])
def test_a_pod_that_cannot_be_handled_stays_alone(simulate, monkeypatch, part):
    """The state machine fails on one pod: it is told as its event and tried again; others and the kubelet go on."""
    healthy = getattr(pod_machine, part)
    cured: list[bool] = []

    def broken(state: Any, *arguments: Any) -> Any:
        if state.pod["metadata"]["name"] == "bad" and not cured:
            raise ZeroDivisionError("told")
        return healthy(state, *arguments)

    async def body(w: World) -> None:
        monkeypatch.setattr(pod_machine, part, broken)
        await w.create("bad")
        await w.until(lambda: w.events("FailedSync"))
        assert "ZeroDivisionError: told" in w.events("FailedSync")[0]["message"]
        await w.create("good")
        await w.until_running("good")
        cured.append(True)
        await w.until_running("bad")
        assert w.running is not None and not w.running.done()

    simulate(body)


def test_a_status_that_cannot_be_made_is_tried_again(simulate, monkeypatch):
    """The publisher of one pod's status fails once: it does not stay silent for ever."""
    healthy = status_module.pod_status
    failed: list[bool] = []

    def broken(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError
        return healthy(*arguments)

    async def body(w: World) -> None:
        monkeypatch.setattr(status_module, "pod_status", broken)
        await w.create("web")
        await w.until_running()
        assert failed

    simulate(body)


def test_what_changes_while_pods_are_adopted_is_seen(simulate):
    """Pods that come and go while a starting kubelet asks the runtime about the others are neither lost nor kept."""

    async def body(w: World) -> None:
        await w.create("web")
        await w.create("gone")
        await w.until(lambda: w.ready("web") and w.ready("gone"))
        await w.stop()
        asked = w.runtime.container_status

        async def slow(container_id: str) -> cri.Container:
            if w.api.get("pods", "default", "new") is None:
                await w.create("new")
                await w.client.delete(POD, "default", "gone", grace_s=0)
                await asyncio.sleep(5)
            return await asked(container_id)

        w.runtime.container_status = slow  # type: ignore[method-assign]
        await w.start()
        await w.until_running("new")
        await asyncio.sleep(10)
        assert len(await w.runtime.list_containers()) == 2

    simulate(body)


def test_a_pod_that_begins_while_orphans_end_keeps_its_files(simulate):
    """What a gone pod left takes its time to end; the files of pods that came meanwhile are not taken for it."""

    async def body(w: World) -> None:
        await w.create("gone")
        await w.until_running("gone")
        await w.stop()
        await w.client.delete(POD, "default", "gone", grace_s=0)
        known: list[set[str]] = []
        stop, ending = w.runtime.stop_container, asyncio.Event()

        async def slow(container_id: str, timeout_s: float) -> None:
            ending.set()
            await asyncio.sleep(5)
            await stop(container_id, timeout_s)

        w.runtime.stop_container = slow  # type: ignore[method-assign]
        w.host.remove_orphans = known.append  # type: ignore[method-assign]
        await w.start()
        await ending.wait()
        made = await w.create("new")
        await asyncio.sleep(20)
        assert known == [{made["metadata"]["uid"]}]

    simulate(body)


def test_a_pod_costs_few_requests(simulate):
    """A pod costs the API server one status patch to come up, and one patch and one delete to go."""

    async def body(w: World) -> None:
        w.api.requests.clear()
        await w.create("web")
        await w.until_running()
        await asyncio.sleep(1)
        await w.client.delete(POD, "default", "web", grace_s=5)
        await w.until(lambda: w.api.get("pods", "default", "web") is None)
        asked = [method for method, path in w.api.requests if path.startswith("/api/v1/namespaces/default/pods/")]
        assert asked == ["PATCH", "DELETE", "PATCH", "DELETE"]

    simulate(body)


def test_a_full_disk_evicts(simulate):
    """While the disk is too full pods go, one at a time, as Failed with reason Evicted; then it stops."""

    async def body(w: World) -> None:
        await w.create("one")
        await w.create("two")
        await w.until(lambda: w.ready("one") and w.ready("two"))
        w.host.free_disk = 1 << 30

        def failed() -> list[str]:
            return [n for n in ("one", "two") if w.status(n).get("phase") == "Failed"]

        await w.until(failed, 200)
        w.host.free_disk = 50 << 30
        assert w.status(failed()[0])["reason"] == "Evicted"
        await asyncio.sleep(200)
        assert len(failed()) == 1

    simulate(body)
