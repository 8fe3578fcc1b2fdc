"""Objects that the end-to-end tests apply."""

from __future__ import annotations

from typing import Any

from tests.cluster import BUSYBOX


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod with one container `main` that runs a shell script."""
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


# A web server that answers with the pod's name and stops in order: busybox's httpd has no way to finish what it began,
# so that it goes on for a moment after it was asked to stop.
SERVE = (
    "mkdir -p /www && hostname > /www/index.html && httpd -p 8080 -h /www && trap 'sleep 2; exit 0' TERM && "
    "while true; do sleep 1 & wait $!; done"
)


def web(name: str, replicas: int) -> dict[str, Any]:
    """A deployment of web servers that says when each of them answers."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    container = {
        "name": "web",
        "image": BUSYBOX,
        "command": ["sh", "-c", SERVE],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": probe,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
            },
        },
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A config map."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
