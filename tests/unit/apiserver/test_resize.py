"""What a pod cannot be resized to, and in which words that is said."""

from __future__ import annotations

from typing import Any

import pytest

from k3s.api import schema
from k3s.api.object import Object
from k3s.apiserver.subresources import resize

_CPU = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
_MORE = {"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}}
_LESS = {"requests": {"cpu": "1"}}
_OTHER = {"requests": {"cpu": "1", "example.com/x": "1"}, "limits": {"cpu": "2", "example.com/x": "1"}}
_RESTART = {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}
_MIRROR = {"annotations": {"kubernetes.io/config.mirror": "x"}}
_ONLY = "spec: Forbidden: only cpu and memory resources are mutable"


def _container(name: str = "c", resources: Object = _CPU, **more: Any) -> Object:
    return {"name": name, "image": "i:1", "resources": resources, **more}


def _pod(*containers: Object, metadata: Object | None = None, **spec: Any) -> Object:
    meta = {"name": "p", "namespace": "n", **(metadata or {})}
    spec = {"containers": list(containers or (_container(),)), **spec}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"qosClass": "Burstable"}}
    return schema.defaults(resize.POD, pod)


def _init(resources: Object, **more: Any) -> Object:
    return _pod(initContainers=[_container("i", resources, **more)])


def _debugged(resources: Object) -> Object:
    return _pod(_container(resources=resources), ephemeralContainers=[{"name": "e", "image": "i"}])


def _running(status: Object) -> Object:
    return {**_pod(), "status": {"containerStatuses": [{"name": "c", "state": {"running": {}}, **status}]}}


_CASES: dict[str, tuple[Object, Object, list[str]]] = {
    "sound": (_pod(), _pod(_container(resources=_MORE)), []),
    "static": (
        _pod(metadata=_MIRROR),
        _pod(_container(resources=_LESS), metadata=_MIRROR),
        ["[]: Forbidden: static pods cannot be resized"],
    ),
    "windows": (
        _pod(os={"name": "windows"}),
        _pod(_container(resources=_LESS), os={"name": "windows"}),
        ["[]: Forbidden: windows pods cannot be resized"],
    ),
    "class of service": (
        _pod(),
        _pod(_container(resources={})),
        [
            'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ],
    ),
    "removed": (
        _pod(),
        _pod(_container(resources=_LESS)),
        ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
    ),
    "other resources": (_pod(), _pod(_container(resources=_OTHER)), [_ONLY]),
    "more containers": (
        _pod(),
        _pod(_container(), _container("d")),
        ["spec.containers: Forbidden: containers may not be added or removed on resize"],
    ),
    "other containers": (
        _pod(),
        _pod(_container("d")),
        ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
    ),
    "an init container": (_init(_CPU), _init(_MORE), []),
    "of an init container": (
        _init(_CPU),
        _init(_OTHER),
        ["spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable"],
    ),
    "an init container that restarts": (
        _init(_CPU, **_RESTART, restartPolicy="Always"),
        _init(_MORE, **_RESTART, restartPolicy="Always"),
        [],
    ),
    "the whole": (
        _pod(resources=_CPU),
        _pod(),
        ["spec.resources: Forbidden: pod-level resources cannot be removed"],
    ),
    "of the whole": (
        _pod(resources=_CPU),
        _pod(resources=_LESS),
        ["spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"],
    ),
    "other resources of the whole": (
        _pod(resources=_CPU),
        _pod(_container("d"), resources={**_CPU, "limits": {"cpu": "2", "hugepages-2Mi": "2Mi"}}),
        [
            "spec: Forbidden: only cpu and memory resources are mutable at pod-level",
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
        ],
    ),
    "a pod that is debugged": (_debugged(_CPU), _debugged(_MORE), []),
    "a node of old": (
        _running({}),
        _pod(_container(resources=_MORE)),
        ["spec: Forbidden: Pod running on node without support for resize"],
    ),
    "a node that says so": (_running({"resources": _CPU}), _pod(_container(resources=_MORE)), []),
    "an old policy stays": (
        _init(_CPU, **_RESTART),
        _init(_MORE, **_RESTART),
        [
            "spec.initContainers[0]: Forbidden: "
            "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
        ],
    ),
}


@pytest.mark.parametrize("name", _CASES)
def test_why_a_pod_cannot_be_resized(name: str) -> None:
    """The causes of upstream, in its order."""
    old, new, causes = _CASES[name]
    assert [f"{cause['field']}: {cause['message']}" for cause in resize.causes(old, new)] == causes
