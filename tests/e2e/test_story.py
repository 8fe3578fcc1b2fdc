"""One application's life, from its first pod to a restart of k3s below it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cluster import BUSYBOX, Cluster, Kubectl
from tests.e2e.objects import web

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

_ASK = (
    "until [ -e /tmp/stop ]; do if wget -q -T 5 -O /dev/null http://web/; then echo answered; else echo LOST; fi; done"
)


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """The current kubectl in a namespace of this test."""
    client = cluster.kubectl(namespace="story")
    client("create", "namespace", "story")
    yield client
    client("delete", "namespace", "story", "--wait=false")


def _processes(container: str) -> set[int]:
    """The processes of a container, found by its control group."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if container in (entry / "cgroup").read_text():
                    found.add(int(entry.name))
    return found


def _containers(kubectl: Kubectl) -> dict[str, str]:
    """Pod -> id of its container."""
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        for pod in kubectl.get("pods")["items"]
    }


def _restarts(kubectl: Kubectl, pod: str) -> int:
    return int(kubectl.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"])


def test_an_application_lives(kubectl: Kubectl, cluster: Cluster) -> None:
    """run, expose, DNS, HTTP, scale, an update without a lost request, a crash, a restart of the server."""
    kubectl("run", "client", f"--image={BUSYBOX}", "--command", "--", "sleep", "3600")
    kubectl.apply(web("web", 2))
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=60s")

    address = kubectl.get("service", "web")["spec"]["clusterIP"]
    assert address in kubectl("exec", "client", "--", "nslookup", "web.story.svc.cluster.local")
    assert kubectl("exec", "client", "--", "wget", "-qO-", "http://web/").startswith("web-")

    kubectl("scale", "deployment", "web", "--replicas=3")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = {name for name in _containers(kubectl) if name.startswith("web-")}
    assert len(pods) == 3
    asked = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do wget -qO- http://web/; done"
    _all_answer(kubectl, asked, pods)

    _update_without_loss(kubectl)

    victim = next(name for name in _containers(kubectl) if name.startswith("web-"))
    for pid in _processes(_containers(kubectl)[victim]):
        os.kill(pid, signal.SIGKILL)
    column = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}{'\\n'}"
    kubectl.until(f"pod/{victim}", "-o", column, wanted=lambda line: line == "1 true")

    _restart_below(kubectl, cluster)


def _all_answer(kubectl: Kubectl, asked: str, pods: set[str]) -> None:
    """Every pod gets some of the requests: the rules may need a moment, so it is asked again until then."""
    seen: set[str] = set()
    for _ in range(20):
        seen |= set(kubectl("exec", "client", "--", "sh", "-c", asked).split())
        if seen == pods:
            return
    assert seen == pods


def _update_without_loss(kubectl: Kubectl) -> None:
    """All pods are replaced while a client asks all the time; each request is answered."""
    with kubectl.start("exec", "client", "--", "sh", "-c", _ASK) as asking:
        asking.line(lambda line: line == "answered")
        kubectl("set", "env", "deployment/web", "VERSION=2")
        kubectl("rollout", "status", "deployment/web", "--timeout=90s")
        kubectl("exec", "client", "--", "touch", "/tmp/stop")
        answers = asking.rest()
    assert "LOST" not in answers, f"{answers.count('LOST')} of {len(answers)} requests were lost"
    assert len(answers) > 20


def _restart_below(kubectl: Kubectl, cluster: Cluster) -> None:
    """Containers go on while k3s stops and starts, and it finds them again."""
    old = kubectl.get("pods", "-l", "app=web")["items"]
    live = [pod for pod in old if "deletionTimestamp" not in pod["metadata"]]
    names = {pod["metadata"]["name"] for pod in live}
    before = {name: _processes(found) for name, found in _containers(kubectl).items() if name in names}
    restarts = {name: _restarts(kubectl, name) for name in names}
    cluster.stop()
    ids = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"] for pod in live}
    for name in names:
        assert before[name] <= _processes(ids[name].removeprefix("containerd://"))
    cluster.start()
    kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=60s")
    assert {name: _processes(found) for name, found in _containers(kubectl).items() if name in names} == before
    assert {name: _restarts(kubectl, name) for name in names} == restarts
    assert kubectl("exec", "client", "--", "wget", "-qO-", "http://web/").startswith("web-")
