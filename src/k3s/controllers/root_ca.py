"""Puts the certificate authority of the API server into each namespace, where pods find it (kube-root-ca.crt)."""

from __future__ import annotations

from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers.actions import NOTHING, Create, Decision, Update
from k3s.controllers.known import CONFIG_MAP, NAMESPACE
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

NAME = "kube-root-ca.crt"
_KEY = "ca.crt"
_NOTE = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using "
    "internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
    "distributions of Kubernetes clusters."
}


def specs(root_ca: str) -> tuple[ControllerSpec, ...]:
    """The controller that publishes this bundle (PEM text)."""

    def decide(key: str, world: World, now: float) -> Decision:
        """Decides a namespace."""
        space = world.get(NAMESPACE, key)
        if space is None or objects.is_deleting(space):
            return NOTHING
        published = world.get(CONFIG_MAP, f"{key}/{NAME}")
        if published is None:
            meta = {"name": NAME, "namespace": key, "annotations": _NOTE}
            new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {_KEY: root_ca}}
            return Decision([Create(CONFIG_MAP, new)])
        if published.get("data") == {_KEY: root_ca} and _NOTE.items() <= objects.annotations(published).items():
            return NOTHING
        notes = {**objects.annotations(published), **_NOTE}
        new = evolve(evolve(published, ("data",), {_KEY: root_ca}), ("metadata", "annotations"), notes)
        return Decision([Update(CONFIG_MAP, new)])

    return (
        ControllerSpec(
            name="root-ca-certificate-publisher-controller",
            decide=decide,
            kind=NAMESPACE,
            watches=(Watch(CONFIG_MAP, _published),),
            account="root-ca-cert-publisher",
        ),
    )


def _published(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    obj = new or old
    return (objects.namespace(obj),) if obj is not None and objects.name(obj) == NAME else ()
