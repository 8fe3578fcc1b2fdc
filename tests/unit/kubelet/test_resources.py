"""Requests and limits as the kernel has them."""

from __future__ import annotations

import pytest
from tests.unit.kubelet.pods import pod, spec

from k3s.kubelet import resources


def wants(requests=None, limits=None, name="main"):
    """A container with resources."""
    return spec(name, resources={k: v for k, v in (("requests", requests), ("limits", limits)) if v})


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([spec()], "BestEffort"),
        ([wants({"cpu": "100m"})], "Burstable"),
        ([wants({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        ([wants(None, {"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        ([wants(None, {"cpu": "1"})], "Burstable"),
        ([wants(None, {"cpu": "1", "memory": "1Gi"}), spec("b")], "Burstable"),
        ([wants({"cpu": "1", "memory": "1Gi"}, {"cpu": "2", "memory": "1Gi"})], "Burstable"),
    ],
)
def test_quality_of_service(containers, expected):
    """The class of a pod follows from what its containers ask for."""
    assert resources.qos_class(pod(*containers)) == expected


def test_shares_quota_and_weight():
    """The kernel's numbers at their edges."""
    assert [resources.cpu_shares(m) for m in (0, 1, 100, 1000, 10**9)] == [2, 2, 102, 1024, 262_144]
    assert [resources.cpu_quota(m) for m in (0, 1, 500, 2000)] == [0, 1000, 50_000, 200_000]
    assert (resources.cpu_weight(2), resources.cpu_weight(1024), resources.cpu_weight(262_144)) == (1, 39, 10_000)


def test_oom_scores():
    """Guaranteed pods go last, best-effort first, the others by what they asked for."""
    gi = 1 << 30
    cases = [
        (wants({"memory": "4Gi", "cpu": "1"}, {"memory": "4Gi", "cpu": "1"}), -997),
        (spec(), 1000),
        (wants({"memory": "4Gi"}), 500),
        (wants({"memory": "8Gi"}), 3),
        (wants({"memory": "1Mi"}), 999),
    ]
    for container, expected in cases:
        assert resources.oom_score(pod(container), container, 8 * gi) == expected
    assert resources.oom_score(pod(spec(), priority=2_000_001_000), spec(), gi) == -997


def test_cgroups_of_pods():
    """Guaranteed pods lie directly below the root, the others below their class."""
    assert resources.cgroup_parent(pod()).startswith("/kubepods/besteffort/pod1111")
    full = wants(None, {"cpu": "1", "memory": "1Gi"})
    assert resources.cgroup_parent(pod(full)).startswith("/kubepods/pod1111")


def test_pod_limits():
    """A pod's own limits: the most it holds at once, only when every container has one."""
    limited = wants({"cpu": "100m"}, {"cpu": "500m", "memory": "64Mi"})
    assert resources.pod_limits(pod(limited)) == {"cpu_shares": 102, "cpu_quota": 50_000, "memory": 64 << 20}
    assert resources.pod_limits(pod(limited, spec("b"))) == {"cpu_shares": 102}
    init = wants(None, {"cpu": "2", "memory": "1Gi"}, "init")
    assert resources.pod_limits(pod(limited, initContainers=[init]))["memory"] == 1 << 30


def test_container_resources():
    """Limits go to the runtime; swap is not given."""
    made = resources.container_resources(pod(), wants({"cpu": "250m"}, {"memory": "1Mi", "cpu": "1"}), 1 << 30)
    assert made["cpu_shares"] == 256 and made["cpu_quota"] == 100_000
    assert made["memory_limit_in_bytes"] == made["memory_swap_limit_in_bytes"] == 1 << 20


def test_resource_fields():
    """A field of resources, in units of the divisor and rounded up; an absent limit is the node's."""
    one = pod(wants({"cpu": "1500m"}, {"memory": "100Mi"}))
    node = {"cpu": 4000, "memory": 8 << 30}
    ask = lambda resource, divisor="0": resources.resource_field(  # noqa: E731
        one, "main", {"resource": resource, "divisor": divisor}, node
    )
    assert (ask("requests.cpu"), ask("requests.cpu", "1m"), ask("limits.cpu")) == ("2", "1500", "4")
    assert ask("limits.memory", "1Mi") == "100"
