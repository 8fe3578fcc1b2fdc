"""A real node with --hardened: the benchmark's rows of nodes, and the settings of the kubelet at work."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.cluster import ROOT, Cluster, Kubectl, remains
from tests.e2e.objects import pod

# Waiting for another test's node may take longer than a test.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

# The machine's kernel is left as it is: that is what the one row of the benchmark warns of.
_OPTIONS = ("--hardened", "--protect-kernel-defaults=false", "--kubelet-arg=streaming-connection-idle-timeout=2s")
_RESTRICTED = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "container": {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A hardened server with its node; nothing of it is left at the end."""
    made = Cluster(tmp_path_factory.mktemp("hardened"), options=_OPTIONS)
    made.prepare()
    try:
        made.start()
        yield made
    finally:
        made.remove()
    assert remains(made.folder) == []


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Kubectl:
    """The administrator, with a restricted pod that runs."""
    client = cluster.kubectl()
    client.apply(pod("calm", "exec sleep 3600", **_RESTRICTED))
    client("wait", "pod/calm", "--for=condition=Ready", "--timeout=60s")
    return client


def test_the_benchmark_passes_on_a_node(cluster: Cluster, kubectl: Kubectl) -> None:
    """Every row that a program can judge passes, but for the kernel's settings, which are the host's."""
    command = ["./k3s", "check-config", "--cis", f"--data-dir={cluster.data_dir}", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["checks"]
    assert (done.returncode, [row for row in rows if row["state"] == "FAIL"]) == (0, [])
    assert {row["number"]: row["state"] for row in rows if row["number"] in ("1.1.9", "4.1.3", "4.1.5", "4.1.7")} == {
        "1.1.9": "PASS",
        "4.1.3": "PASS",
        "4.1.5": "PASS",
        "4.1.7": "PASS",
    }
    missing = [row["number"] for row in rows if row["found"] == "no such file here"]
    assert missing == []
    warned = {row["number"] for row in rows if row["number"].startswith("4.") and row["state"] == "WARN"}
    assert warned - {"4.2.k"} == {"4.2.13"}


def test_the_kubelet_says_what_it_goes_by(cluster: Cluster, kubectl: Kubectl) -> None:
    """configz shows the settings; containers without a profile get the runtime's."""
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    told = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
    assert (told["seccompDefault"], told["readOnlyPort"], told["protectKernelDefaults"]) == (True, 0, False)
    assert told["authentication"]["anonymous"]["enabled"] is False
    assert kubectl("exec", "calm", "--", "grep", "Seccomp:", "/proc/1/status").split() == ["Seccomp:", "2"]


def test_idle_streams_end(kubectl: Kubectl) -> None:
    """An exec that says nothing is ended by the node after the time that was set, not after four hours."""
    began = time.monotonic()
    kubectl.run("exec", "calm", "--", "sleep", "60", code=None, timeout=50)
    assert time.monotonic() - began < 40


def test_what_is_not_restricted_is_refused(kubectl: Kubectl) -> None:
    """The same pod without its security context."""
    done = kubectl.run("run", "wild", "--image=busybox:1", code=1)
    assert 'violates PodSecurity "restricted:latest"' in done.stderr
