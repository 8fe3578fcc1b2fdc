"""What the expressions of webhooks and policies may refer to, and what that is for a write. Import this lazily.

Source: "CEL in Kubernetes" and the ValidatingAdmissionPolicy type in the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from k3s.api.cel import Environment, Lazy, Program, compile
from k3s.api.cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of, object_type
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver.admission.reviews import attributes
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizes

_STRINGS = map_of(STRING, STRING)


def _named(group: str, third: str) -> Type:
    return object_type(f"kubernetes.{group}", {"group": STRING, "version": STRING, third: STRING})


_USER = object_type(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST = object_type(
    "kubernetes.AdmissionRequest",
    {
        "kind": _named("GroupVersionKind", "kind"),
        "resource": _named("GroupVersionResource", "resource"),
        "subResource": STRING,
        "requestKind": _named("GroupVersionKind", "kind"),
        "requestResource": _named("GroupVersionResource", "resource"),
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_METADATA = object_type(
    "kubernetes.NamespaceMetadata",
    {
        "name": STRING,
        "generateName": STRING,
        "namespace": STRING,
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "UID": STRING,
        "creationTimestamp": TIMESTAMP,
        "deletionGracePeriodSeconds": INT,
        "deletionTimestamp": TIMESTAMP,
        "generation": INT,
        "resourceVersion": STRING,
        "finalizers": list_of(STRING),
    },
)
NAMESPACE = object_type(
    "kubernetes.Namespace",
    {
        "metadata": _METADATA,
        "spec": object_type("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}),
        "status": object_type("kubernetes.NamespaceStatus", {"phase": STRING}),
    },
)
_OWN_METADATA = ("name", "generateName", "namespace", "labels", "annotations", "creationTimestamp", "generation")


@cache
def environment(*, params: bool = False, namespace: bool = True) -> Environment:
    """What expressions may refer to; those of policies see the namespace, and params if they say so."""
    variables: dict[str, Type] = {"object": DYN, "oldObject": DYN, "request": REQUEST}
    if namespace:
        variables["namespaceObject"] = NAMESPACE
    if params:
        variables["params"] = DYN
    authorizer = _authorizer_type()
    if authorizer is not None:
        variables |= authorizer
    return Environment(variables)


@cache
def condition(source: str) -> Program:
    """A match condition of a webhook. Raises CompileError."""
    return compile(source, environment(namespace=False), (BOOL,))


def bindings(
    request: AdmissionRequest,
    kind: Kind,
    obj: Object | None,
    old: Object | None,
    authorizer: Authorizes,
    namespace: Object | None = None,
    params: Object | None = None,
) -> dict[str, Any]:
    """The values of the variables for one write."""
    return {
        "object": obj,
        "oldObject": old,
        "request": Lazy(lambda: attributes(request, kind)),
        "namespaceObject": None if namespace is None else _shown(namespace),
        "params": params,
        **_authorizer_values(request, authorizer),
    }


def _shown(namespace: Object) -> Object:
    """A namespace as far as expressions may see it."""
    meta = {key: value for key, value in namespace["metadata"].items() if key in _OWN_METADATA}
    meta["UID"] = namespace["metadata"].get("uid", "")
    meta["resourceVersion"] = namespace["metadata"].get("resourceVersion", "")
    parts: Object = {key: namespace[key] for key in ("spec", "status") if key in namespace}
    return {"metadata": meta, **parts}


def _authorizer_type() -> Mapping[str, Type] | None:
    return None


def _authorizer_values(request: AdmissionRequest, authorizer: Authorizes) -> Mapping[str, Any]:
    return {}
