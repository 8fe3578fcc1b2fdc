"""The chain of admission plugins over a few objects, for the tests of plugins."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from tests.fakes.reader import FakeReader

from k3s.api.errors import ApiError
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.admission import defaults
from k3s.apiserver.admission.chain import Chain
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.identity import User, authenticated
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.aio import begun
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy

ADMIN = authenticated("admin", "system:masters")
ALICE = authenticated("alice")
NODE = authenticated("system:node:n1", "system:nodes")
CORE = {"Pod", "Node", "ConfigMap", "Secret", "Namespace", "ServiceAccount", "PersistentVolumeClaim", "LimitRange"}


def obj(api_version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Object:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}


def pod(spec: Object | None = None, **metadata: Any) -> Object:
    wanted = {"containers": [{"name": "c", "image": "i"}], **(spec or {})}
    return obj("v1", "Pod", metadata.pop("name", "p"), "a", metadata=metadata, spec=wanted)


ACCOUNT = obj("v1", "ServiceAccount", "default", "a", metadata={"uid": "u"})
SPACE = obj("v1", "Namespace", "a")


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    result = begun(work)
    assert not hasattr(result, "__await__"), f"{work!r} waits, where it has nobody to wait for"
    return result


class World:
    """A chain over objects."""

    def __init__(self, *objects: Object) -> None:
        self.reader = FakeReader([ACCOUNT, SPACE, *objects])
        node = NodeAuthorizer(self.reader, rbac_bootstrap.node_rules())
        self.authorizer = Authorizer(Rbac(self.reader), node)
        self.chain: Chain = defaults.chain(self.reader, self.authorizer, SystemClock(), SeededEntropy(1))

    def request(
        self,
        operation: str,
        new: Object | None,
        old: Object | None = None,
        user: User = ADMIN,
        subresource: str = "",
        kind: Kind | None = None,
    ) -> AdmissionRequest:
        shown = new or old
        assert shown is not None
        meta = (old or shown)["metadata"]
        kind = kind or builtin(shown["apiVersion"], shown["kind"])
        return AdmissionRequest(
            operation, kind, subresource, meta.get("namespace", ""), meta.get("name", ""), old, new, user
        )

    def create(self, new: Object, user: User = ADMIN, **more: Any) -> Object:
        request = self.request("CREATE", new, user=user, **more)
        admitted = at_once(self.chain.admit(request))
        at_once(self.chain.validate(request.with_object(admitted)))
        self.warnings = request.warnings
        return admitted

    def update(self, old: Object, new: Object, user: User = ADMIN, **more: Any) -> Object:
        request = self.request("UPDATE", new, old, user, **more)
        admitted = at_once(self.chain.admit(request))
        at_once(self.chain.validate(request.with_object(admitted)))
        return admitted

    def delete(self, old: Object, user: User = ADMIN) -> None:
        at_once(self.chain.validate(self.request("DELETE", None, old, user)))


def refusal(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*args, **named)
    return caught.value.message
