"""Fields of features that are off."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import gates
from k3s.api.kinds import builtin
from k3s.api.object import Object

CONTAINER = {"name": "c", "image": "i"}
TRUST = {"clusterTrustBundle": {"name": "b", "path": "p"}}
PROJECTED = {"name": "v", "projected": {"sources": [TRUST, {"secret": {"name": "s"}}]}}
STOPPED = {**CONTAINER, "lifecycle": {"stopSignal": "SIGUSR1"}}
HOOKED = {**CONTAINER, "lifecycle": {"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 1}}}}


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (
            ("v1", "Pod"),
            {
                "spec": {
                    "schedulingGroup": {"podGroupName": "g"},
                    "containers": [STOPPED, HOOKED],
                    "volumes": [PROJECTED],
                }
            },
            {
                "spec": {
                    "containers": [CONTAINER, {**CONTAINER, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
                    "volumes": [{"name": "v", "projected": {"sources": [{}, {"secret": {"name": "s"}}]}}],
                }
            },
        ),
        (
            ("v1", "Pod"),
            {"spec": {}, "status": {"containerStatuses": [{"name": "c", "stopSignal": "SIGTERM"}]}},
            {"spec": {}, "status": {"containerStatuses": [{"name": "c"}]}},
        ),
        (
            ("batch/v1", "CronJob"),
            {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"initContainers": [STOPPED]}}}}}},
            {"spec": {"jobTemplate": {"spec": {"template": {"spec": {"initContainers": [CONTAINER]}}}}}},
        ),
        (
            ("apps/v1", "StatefulSet"),
            {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0, "maxUnavailable": 2}}}},
            {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}},
        ),
        (
            ("resource.k8s.io/v1", "ResourceSlice"),
            {"spec": {"devices": [{"name": "d", "attributes": {"a": {"ints": [1]}, "b": {"int": 1}}}]}},
            {"spec": {"devices": [{"name": "d", "attributes": {"a": {}, "b": {"int": 1}}}]}},
        ),
        (("storage.k8s.io/v1", "CSIDriver"), {"spec": {"preventPodSchedulingIfMissing": True}}, {"spec": {}}),
    ],
)
def test_fields_of_features_that_are_off(kind: tuple[str, str], given: Object, kept: Object) -> None:
    """Nobody begins to use them, in pods and in templates; who has one keeps it; the given object is as before."""
    found = builtin(*kind)
    before = repr(given)
    assert gates.closed(found, given) == kept
    assert gates.closed(found, given, given) is given
    assert gates.closed(found, kept) is kept
    assert repr(given) == before


def test_another_feature_in_use_opens_nothing() -> None:
    """A pod with a stop signal cannot get a scheduling group."""
    old: Any = {"spec": {"containers": [STOPPED]}}
    new = {"spec": {"containers": [STOPPED], "schedulingGroup": {"podGroupName": "g"}}}
    assert gates.closed(builtin("v1", "Pod"), new, old) == old
