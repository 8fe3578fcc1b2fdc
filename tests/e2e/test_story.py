"""One application's life, from its first pod to a restart of k3s below it."""

from __future__ import annotations

import os
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cluster import BUSYBOX, Cluster, Kubectl
from tests.e2e.objects import web

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


class Asking:
    """A client that asks a URL all the time from now on; what was not answered is kept."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    self.answered += answer.read().startswith(b"web-")
            except OSError as error:
                self.lost.append(str(error))

    def stop(self) -> None:
        """Ends with the request that is under way."""
        self._stop.set()
        self._thread.join()


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """The current kubectl in a namespace of this test."""
    client = cluster.kubectl(namespace="story")
    client("create", "namespace", "story")
    yield client
    client("delete", "namespace", "story", "--wait=false")


def _first(container: str) -> int:
    """The process that a container was started with, number 1 in its own namespace; others come and go."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                status = (entry / "status").read_text()
                if container in (entry / "cgroup").read_text() and re.search(r"^NSpid:.*\s1$", status, re.MULTILINE):
                    return int(entry.name)
    raise AssertionError(f"container {container} does not run")


def _containers(kubectl: Kubectl) -> dict[str, str]:
    """Pod -> id of its container."""
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        for pod in kubectl.get("pods")["items"]
    }


def _living(kubectl: Kubectl) -> list[str]:
    """The pods of the application that are not on their way out."""
    listed = kubectl.get("pods", "-l", "app=web")["items"]
    return [pod["metadata"]["name"] for pod in listed if "deletionTimestamp" not in pod["metadata"]]


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

    _update_without_loss(kubectl, address)

    victim = _living(kubectl)[0]
    os.kill(_first(_containers(kubectl)[victim]), signal.SIGKILL)
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


def _update_without_loss(kubectl: Kubectl, address: str) -> None:
    """All pods are replaced while a client asks all the time; each request is answered."""
    asking = Asking(f"http://{address}/")
    kubectl("set", "env", "deployment/web", "VERSION=2")
    kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    asking.stop()
    assert asking.lost == [], f"lost {len(asking.lost)}, answered {asking.answered}"
    assert asking.answered > 20


def _restart_below(kubectl: Kubectl, cluster: Cluster) -> None:
    """Containers go on while k3s stops and starts, and it finds them again."""
    names = set(_living(kubectl))
    ids = {name: found for name, found in _containers(kubectl).items() if name in names}
    before = {name: _first(found) for name, found in ids.items()}
    restarts = {name: _restarts(kubectl, name) for name in names}
    cluster.stop()
    try:
        assert {name: _first(found) for name, found in ids.items()} == before
    finally:
        cluster.start()
    kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=60s")
    assert {name: _first(found) for name, found in _containers(kubectl).items() if name in names} == before
    assert {name: _restarts(kubectl, name) for name in names} == restarts
    assert kubectl("exec", "client", "--", "wget", "-qO-", "http://web/").startswith("web-")
