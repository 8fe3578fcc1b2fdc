"""Phases, conditions and container states as everyone sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kubelet.pods import exited, pod, running, spec

from k3s.api.patch import merge_patch
from k3s.kubelet.containers import Run
from k3s.kubelet.status import Facts, changes, pod_status

FACTS = Facts(host_ips=("192.0.2.1",), started_at=0.0, pod_ips=("10.42.0.2",), sandbox_ready=True)
UP = Run(current=running(), started=True, ready=True)


def status(one, runs, facts=FACTS, old=None, now=100.0):
    """The status, and its conditions by type."""
    made = pod_status(one, runs, facts, now, old or {})
    return made, {c["type"]: c for c in made["conditions"]}


def ended(code, **more):
    """A run that ended."""
    return Run(current=exited(code=code, **more))


@pytest.mark.parametrize(
    ("policy", "runs", "terminal", "phase"),
    [
        ("Always", {}, False, "Pending"),
        ("Always", {"main": UP}, False, "Running"),
        ("Always", {"main": ended(1)}, False, "Running"),
        ("Always", {"main": ended(0)}, True, "Succeeded"),
        ("Always", {"main": ended(143)}, True, "Failed"),
        ("OnFailure", {"main": ended(1)}, False, "Running"),
        ("Never", {"main": ended(0)}, True, "Succeeded"),
        ("Never", {"main": ended(1)}, True, "Failed"),
        ("Never", {"main": ended(0)}, False, "Pending"),
    ],
)
def test_phases(policy, runs, terminal, phase):
    """The phase follows from policy and states; it is final only when nothing runs any more."""
    facts = Facts(("192.0.2.1",), 0.0, initialized=True, terminal=terminal)
    assert status(pod(restartPolicy=policy), runs, facts)[0]["phase"] == phase


def test_a_running_pod():
    """All conditions hold; addresses and states are there."""
    made, conditions = status(pod(), {"main": UP})
    assert {kind: c["status"] for kind, c in conditions.items()} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    assert made["podIP"] == "10.42.0.2" and made["hostIPs"] == [{"ip": "192.0.2.1"}]
    assert made["containerStatuses"][0]["state"] == {"running": {"startedAt": "1970-01-01T00:00:00Z"}}
    assert made["observedGeneration"] == 1


def test_what_is_not_ready_is_named():
    """Unready containers and unfinished init containers are in the messages."""
    one = pod(spec("a"), spec("b"), initContainers=[spec("init")])
    made, conditions = status(one, {"init": Run(current=running("init"))})
    assert conditions["Ready"]["message"] == "containers with unready status: [a b]"
    assert conditions["Initialized"]["message"] == "containers with incomplete status: [init]"
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert made["phase"] == "Pending"


def test_a_crash_loop():
    """Waiting with the reason, and the last state with the exit code."""
    run = Run(current=exited(code=2), waiting=("CrashLoopBackOff", "back-off"), restarts=3)
    made, _ = status(pod(), {"main": run})
    shown = made["containerStatuses"][0]
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 2 and shown["restartCount"] == 3


def test_transition_times_and_others_conditions_stay():
    """A condition that did not change keeps its time; conditions of others are kept."""
    before, _ = status(pod(), {"main": UP}, now=100.0)
    old = {**before, "conditions": [*before["conditions"], {"type": "example.com/gate", "status": "True"}]}
    _, conditions = status(pod(), {"main": UP}, old=old, now=200.0)
    assert conditions["Ready"]["lastTransitionTime"] == "1970-01-01T00:01:40Z"
    assert conditions["example.com/gate"] == {"type": "example.com/gate", "status": "True"}


def test_readiness_gates():
    """A gate without its condition keeps the pod from being Ready."""
    one = pod(readinessGates=[{"conditionType": "example.com/gate"}])
    _, conditions = status(one, {"main": UP})
    assert conditions["Ready"]["reason"] == "ReadinessGatesNotReady"
    assert conditions["ContainersReady"]["status"] == "True"


def test_final_phases_stay():
    """A pod that has ended does not come back."""
    assert status(pod(), {"main": UP}, old={"phase": "Failed"})[0]["phase"] == "Failed"


def test_a_container_that_was_lost():
    """In the final status a container without a trace is said to be so."""
    facts = Facts(("192.0.2.1",), 0.0, initialized=True, terminal=True)
    made, _ = status(pod(), {}, facts)
    assert made["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_the_host_network_has_the_nodes_address():
    """podIP is the node's."""
    assert status(pod(hostNetwork=True), {"main": UP})[0]["podIP"] == "192.0.2.1"


_VALUES = st.recursive(
    st.one_of(st.integers(0, 3), st.text("ab", max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner)
    ),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.text("xyz", min_size=1, max_size=1), _VALUES)


@given(_OBJECTS, _OBJECTS)
def test_the_patch_makes_the_new_status(old, new):
    """Applying the changes to the old object gives the new one; no change is an empty patch."""
    assert merge_patch(old, changes(old, new)) == new
    assert changes(old, old) == {}
