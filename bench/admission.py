"""What admission and authorization cost a warm write: python bench/admission.py [--policies 20] [--bindings 200].

Microseconds of CPU of this process for a request, the least of some series: 200 RBAC bindings, of which the asked for
user has one, and a number of validating policies that are bound to every write of ConfigMaps and Pods.
"""

from __future__ import annotations

import argparse
import asyncio
import timeit
from typing import Any

from k3s.api.kinds import REGISTRY, Kind, builtin
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.admission.chain import Chain
from k3s.apiserver.admission.defaults import chain
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizer
from k3s.apiserver.cache import Cache, serialise
from k3s.apiserver.conversion import computed
from k3s.apiserver.identity import User, authenticated
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.aio import begun
from k3s.base.clock import SystemClock
from k3s.base.entropy import SeededEntropy
from k3s.store.memory import MemoryStore

_NUMBER, _SERIES = 2000, 7
_RBAC = "rbac.authorization.k8s.io"
_POLICIES = "admissionregistration.k8s.io/v1"


def obj(api_version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Object:
    """An object."""
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), "uid": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **rest}


def rights(bindings: int) -> list[Object]:
    """A role, and bindings of it in one namespace, each to a user of its own."""
    rule = {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["create"]}
    ref = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "writer"}
    found = [obj(f"{_RBAC}/v1", "ClusterRole", "writer", rules=[rule])]
    for number in range(bindings):
        subject = {"kind": "User", "apiGroup": _RBAC, "name": f"user{number}"}
        found.append(obj(f"{_RBAC}/v1", "RoleBinding", f"b{number}", "a", subjects=[subject], roleRef=ref))
    return found


def policies(count: int) -> list[Object]:
    """Policies that all hold: labels and images are looked at, names are measured."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps", "pods"]}
    rules = [
        {"expression": "!has(object.metadata.labels) || object.metadata.labels.size() < 64"},
        {"expression": "object.metadata.name.size() < 200 && !object.metadata.name.startsWith('bad-')"},
    ]
    found = []
    for number in range(count):
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": rules}
        found.append(obj(_POLICIES, "ValidatingAdmissionPolicy", f"p{number}", spec=spec))
        bound = {"policyName": f"p{number}", "validationActions": ["Deny"]}
        found.append(obj(_POLICIES, "ValidatingAdmissionPolicyBinding", f"p{number}", spec=bound))
    return found


async def filled(objects: list[Object]) -> Cache:
    """A cache that has these objects."""
    store = MemoryStore()
    await store.open()
    for one in objects:
        kind = REGISTRY.of(one)
        assert kind is not None
        meta = one["metadata"]
        await store.put(kind.key(meta.get("namespace", ""), meta["name"]), serialise(one), 0)
    cache = Cache(computed(REGISTRY))
    await cache.load(store)
    await store.close()
    return cache


def micros(work: Any) -> float:
    """The least cost of a call, in µs of CPU."""
    import time

    return min(timeit.repeat(work, timer=time.process_time, number=_NUMBER, repeat=_SERIES)) / _NUMBER * 1e6


def admitted(plugins: Chain, kind: Kind, body: Object, user: User) -> None:
    """What the write path does with a create."""
    request = AdmissionRequest("CREATE", kind, "", "a", "x", None, body, user)
    begun(plugins.validate(request.with_object(begun(plugins.admit(request)))))


def main() -> None:
    """Prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--bindings", type=int, default=200)
    options = parser.parse_args()
    base = [obj("v1", "Namespace", "a"), obj("v1", "ServiceAccount", "default", "a"), *rights(options.bindings)]
    user = authenticated(f"user{options.bindings // 2}")
    bodies = {
        "ConfigMap": obj("v1", "ConfigMap", "x", "a", data={"k": "v"}),
        "Pod": obj("v1", "Pod", "x", "a", spec={"containers": [{"name": "c", "image": "i"}]}),
    }
    for count in (0, options.policies):
        cache = asyncio.run(filled([*base, *policies(count)]))
        authorizer = Authorizer(Rbac(cache), NodeAuthorizer(cache, rbac_bootstrap.node_rules()))
        plugins = chain(cache, authorizer, SystemClock(), SeededEntropy(1), REGISTRY, cache.convert)
        for name, body in bodies.items():
            kind = builtin("v1", name)
            asked = Attributes(user, "create", "", "v1", kind.plural, namespace="a")
            assert authorizer.authorize(asked).allowed
            admitted(plugins, kind, body, user)
            rights_cost = micros(lambda asked=asked, who=authorizer: who.authorize(asked))
            cost = micros(lambda kind=kind, body=body, to=plugins: admitted(to, kind, body, user))
            print(
                f"{name}, {options.bindings} bindings, {count} policies: authorization {rights_cost:.1f} µs, "
                f"admission {cost:.1f} µs, together {rights_cost + cost:.1f} µs"
            )


if __name__ == "__main__":
    main()
