"""How objects end: the real collectors over the real API server in memory, as their accounts may."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.test_with_api_server import Plane

from k3s.api.errors import ApiError, Conflict, Forbidden, NotFound
from k3s.api.kinds import Kind, builtin
from k3s.api.object import Object, evolve
from k3s.apiserver import identity
from k3s.client.client import Client
from k3s.controllers.known import API_SERVICE, CONFIG_MAP, CUSTOM_RESOURCE, EVENT, NAMESPACE, NODE, POD, SERVICE_ACCOUNT
from k3s.sim import loop

SECRET = builtin("v1", "Secret")
CLUSTER_ROLE = builtin("rbac.authorization.k8s.io/v1", "ClusterRole")
GOOD = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def made(kind: Kind, name: str, namespace: str = "default", owner: Object | None = None, **more: Any) -> Object:
    """An object with metadata `more`; `owner` blocks its owner's deletion in the foreground."""
    meta: Object = {"name": name, **({"namespace": namespace} if kind.namespaced else {}), **more}
    if owner is not None:
        meta["ownerReferences"] = [reference(owner)]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}


def reference(owner: Object, blocks: bool = True) -> Object:
    meta = owner["metadata"]
    named = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {**named, "blockOwnerDeletion": blocks}


def conditions(plane: Plane, name: str) -> dict[str, tuple[str, str, str]]:
    space = plane.cache.get(NAMESPACE, "", name) or {}
    found = space.get("status", {}).get("conditions") or ()
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found}


def problems(plane: Plane, name: str) -> dict[str, tuple[str, str]]:
    """The conditions that are true, once all five are there; the others have upstream's texts."""
    found = conditions(plane, name)
    if not found:
        return {}
    assert list(found) == list(GOOD)
    for type, (status, *text) in found.items():
        assert status == "True" or tuple(text) == GOOD[type]
    return {type: (reason, text) for type, (status, reason, text) in found.items() if status == "True"}


async def release(client: Client, kind: Kind, namespace: str, name: str) -> None:
    await client.patch(kind, namespace, name, {"metadata": {"finalizers": None}})


def test_a_namespace_tells_what_remains_and_whose_finalizers_hold_it() -> None:
    """Objects of built-in and custom kinds with finalizers keep it; when the finalizers go, so do they and it."""

    async def main() -> None:
        async with Plane() as plane:
            names = {"plural": "crontabs", "singular": "crontab", "kind": "CronTab"}
            schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            version = {"name": "v1", "served": True, "storage": True, "schema": schema}
            spec = {"group": "stable.example.com", "names": names, "scope": "Namespaced", "versions": [version]}
            await plane.root.create(
                CUSTOM_RESOURCE, {**made(CUSTOM_RESOURCE, "crontabs.stable.example.com"), "spec": spec}
            )
            registry = plane.api.registry
            await plane.until(lambda: registry.by_kind("stable.example.com", "v1", "CronTab") is not None)
            tab = registry.by_kind("stable.example.com", "v1", "CronTab")
            assert tab is not None
            await plane.root.create(NAMESPACE, made(NAMESPACE, "shop"))
            await plane.until(lambda: plane.cache.get(SERVICE_ACCOUNT, "shop", "default") is not None)
            for name in ("a", "b"):
                await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, name, "shop", finalizers=["example.com/x"]))
            await plane.root.create(tab, made(tab, "t", "shop", finalizers=["example.com/x", "example.com/y"]))
            await plane.root.create(SECRET, made(SECRET, "s", "shop"))
            await plane.root.delete(NAMESPACE, "", "shop")
            await plane.until(lambda: bool(problems(plane, "shop")))
            assert problems(plane, "shop") == {
                "NamespaceContentRemaining": (
                    "SomeResourcesRemain",
                    "Some resources are remaining: configmaps. has 2 resource instances, "
                    "crontabs.stable.example.com has 1 resource instances",
                ),
                "NamespaceFinalizersRemaining": (
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: "
                    "example.com/x in 3 resource instances, example.com/y in 1 resource instances",
                ),
            }
            assert not plane.all(SECRET, "shop")
            with pytest.raises(Forbidden, match="because it is being terminated"):
                await plane.root.create(SECRET, made(SECRET, "late", "shop"))
            for kind, name in ((CONFIG_MAP, "a"), (CONFIG_MAP, "b"), (tab, "t")):
                await release(plane.root, kind, "shop", name)
            await plane.until(lambda: plane.cache.get(NAMESPACE, "", "shop") is None)

    loop.run(1, main())


def test_a_namespace_waits_for_a_group_that_nobody_knows_and_tells_when_a_deletion_is_refused() -> None:
    """An extension API server that does not answer and a policy that refuses deletions are told, and hold it; an own
    finalizer keeps it when everything else is done."""

    async def main() -> None:
        async with Plane(2) as plane:
            service = {"namespace": "kube-system", "name": "metrics"}
            spec = {"group": "metrics.k8s.io", "version": "v1beta1", "service": service, "insecureSkipTLSVerify": True}
            spec |= {"groupPriorityMinimum": 100, "versionPriority": 100}
            api = await plane.root.create(API_SERVICE, {**made(API_SERVICE, "v1beta1.metrics.k8s.io"), "spec": spec})
            down = {"type": "Available", "status": "False", "reason": "X", "message": "", "lastTransitionTime": None}
            await plane.root.update(API_SERVICE, {**api, "status": {"conditions": [down]}}, subresource="status")
            await plane.root.create(NAMESPACE, made(NAMESPACE, "shop", finalizers=["example.com/own"]))
            await refuse_deletions(plane)
            await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "kept", "shop"))
            await plane.root.delete(NAMESPACE, "", "shop")
            await plane.until(lambda: "NamespaceDeletionContentFailure" in problems(plane, "shop"))
            found = problems(plane, "shop")
            assert found["NamespaceDeletionDiscoveryFailure"] == (
                "DiscoveryFailed",
                "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
                "metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1",
            )
            reason, text = found["NamespaceDeletionContentFailure"]
            assert reason == "ContentDeletionFailed"
            assert text.startswith('Failed to delete all resource types, 1 remaining: configmaps "kept" is forbidden')
            assert found["NamespaceContentRemaining"][1].endswith("configmaps. has 1 resource instances")
            await plane.root.delete(POLICY_BINDING, "", "keep")
            await plane.until(lambda: list(problems(plane, "shop")) == ["NamespaceDeletionDiscoveryFailure"])
            await plane.root.delete(API_SERVICE, "", "v1beta1.metrics.k8s.io")
            await plane.until(lambda: not (plane.cache.get(NAMESPACE, "", "shop") or {})["spec"].get("finalizers"))
            assert problems(plane, "shop") == {} and len(conditions(plane, "shop")) == 5
            await release(plane.root, NAMESPACE, "", "shop")
            await plane.until(lambda: plane.cache.get(NAMESPACE, "", "shop") is None)

    loop.run(2, main())


POLICY = builtin("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")
POLICY_BINDING = builtin("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")


async def refuse_deletions(plane: Plane) -> None:
    """Nobody deletes a ConfigMap called kept, until the binding goes."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}
    policy: Object = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "oldObject.metadata.name != 'kept'"}],
    }
    await plane.root.create(POLICY, {**made(POLICY, "keep"), "spec": policy})
    binding = {"policyName": "keep", "validationActions": ["Deny"]}
    await plane.root.create(POLICY_BINDING, {**made(POLICY_BINDING, "keep"), "spec": binding})


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_three_ways_to_delete_an_owner(policy: str) -> None:
    """Background: the owner goes first. Foreground: it waits for those that block it, not for the others. Orphan: they
    forget it and stay."""

    async def main() -> None:
        async with Plane(3) as plane:
            owner = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "owner"))
            held = {"finalizers": ["example.com/hold"]}
            await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "blocks", owner=owner, **held))
            loose = made(CONFIG_MAP, "loose", **held)
            await plane.root.create(
                CONFIG_MAP, evolve(loose, ("metadata", "ownerReferences"), [reference(owner, False)])
            )
            deleted = await plane.root.delete(CONFIG_MAP, "default", "owner", propagation=policy)
            finalizers = {"Foreground": ["foregroundDeletion"], "Orphan": ["orphan"]}
            assert deleted.get("metadata", {}).get("finalizers", []) == finalizers.get(policy, [])

            def get(name: str) -> Object | None:
                return plane.cache.get(CONFIG_MAP, "default", name)

            def ending(name: str) -> bool:
                return "deletionTimestamp" in (get(name) or {"metadata": {}})["metadata"]

            if policy == "Orphan":
                await plane.until(lambda: get("owner") is None)
                for name in ("blocks", "loose"):
                    left = get(name)
                    assert left is not None and "ownerReferences" not in left["metadata"] and not ending(name)
                return
            await plane.until(lambda: ending("blocks") and ending("loose"))
            assert (get("owner") is not None) is (policy == "Foreground")
            await release(plane.root, CONFIG_MAP, "default", "blocks")
            await plane.until(lambda: get("owner") is None)
            assert get("loose") is not None
            await release(plane.root, CONFIG_MAP, "default", "loose")
            await plane.until(lambda: get("loose") is None)

    loop.run(3, main())


def test_owners_in_a_circle_go_in_the_foreground() -> None:
    """Two objects that own and block each other do not wait for each other for ever."""

    async def main() -> None:
        async with Plane(4) as plane:
            first = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "first"))
            second = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "second", owner=first))
            owners = {"metadata": {"ownerReferences": [reference(second)]}}
            await plane.root.patch(CONFIG_MAP, "default", "first", owners)
            await plane.root.delete(CONFIG_MAP, "default", "first", propagation="Foreground")
            await plane.until(lambda: not {"first", "second"} & {m["metadata"]["name"] for m in plane.all(CONFIG_MAP)})

    loop.run(4, main())


def strays(plane: Plane) -> list[tuple[str, str]]:
    events = [event for event in plane.all(EVENT) if event["reason"] == "OwnerRefInvalidNamespace"]
    return sorted((event["metadata"]["namespace"], event["message"]) for event in events)


def test_an_owner_elsewhere_is_none_and_that_is_told() -> None:
    """A reference reaches only its own namespace: the object goes, with an event, and the owner keeps its real
    dependents. What has no namespace stays when it names an owner that has one; owners without a namespace are fine."""

    async def main() -> None:
        async with Plane(5) as plane:
            await plane.root.create(NAMESPACE, made(NAMESPACE, "shop"))
            owner = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "owner", "shop"))
            uid = owner["metadata"]["uid"]
            real = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "real", "shop", owner))
            await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "stray", owner=owner))
            await plane.root.create(CLUSTER_ROLE, made(CLUSTER_ROLE, "wide", owner=owner))
            node = await plane.root.create(NODE, made(NODE, "n1"))
            await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "of-node", owner=node))
            await plane.until(lambda: len(strays(plane)) == 2)
            named = f"v1/ConfigMap, namespace: {{}}, name: owner, uid: {uid}"
            assert strays(plane) == [
                ("default", f'ownerRef [{named.format("")}] does not exist in namespace ""'),
                ("default", f'ownerRef [{named.format("default")}] does not exist in namespace "default"'),
            ]
            await plane.until(lambda: plane.cache.get(CONFIG_MAP, "default", "stray") is None)
            await plane.root.delete(NODE, "", "n1")
            await plane.until(lambda: plane.cache.get(CONFIG_MAP, "default", "of-node") is None)
            assert plane.cache.get(CONFIG_MAP, "shop", "real") == real
            assert plane.cache.get(CLUSTER_ROLE, "", "wide") is not None

    loop.run(5, main())


def test_an_owner_of_an_unknown_kind_keeps_its_object() -> None:
    """Nobody can tell whether it is there; the other references are left alone, too."""

    async def main() -> None:
        async with Plane(6) as plane:
            obj = made(CONFIG_MAP, "kept")
            unknown = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "1"}
            gone = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "2"}
            await plane.root.create(CONFIG_MAP, evolve(obj, ("metadata", "ownerReferences"), [gone, unknown]))
            await asyncio.sleep(300)
            left = plane.cache.get(CONFIG_MAP, "default", "kept")
            assert left is not None and len(left["metadata"]["ownerReferences"]) == 2

    loop.run(6, main())


def test_preconditions_of_a_deletion() -> None:
    """Another uid or revision than the one that was meant is a Conflict, and nothing is deleted."""

    async def main() -> None:
        async with Plane(7) as plane:
            first = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "a"))
            revision = int(first["metadata"]["resourceVersion"])
            with pytest.raises(Conflict, match="UID in the precondition"):
                await plane.root.delete(CONFIG_MAP, "default", "a", uid="other")
            await plane.root.patch(CONFIG_MAP, "default", "a", {"data": {"x": "1"}})
            with pytest.raises(Conflict, match="ResourceVersion in the precondition"):
                await plane.root.delete(CONFIG_MAP, "default", "a", revision=revision)
            now = await plane.root.get(CONFIG_MAP, "default", "a")
            revision, uid = int(now["metadata"]["resourceVersion"]), now["metadata"]["uid"]
            await plane.root.delete(CONFIG_MAP, "default", "a", revision=revision, uid=uid)
            with pytest.raises(NotFound):
                await plane.root.delete(CONFIG_MAP, "default", "a", uid=uid)

    loop.run(7, main())


def test_grace_and_finalizers_of_pods() -> None:
    """A pod without a node goes at once; a finalizer holds it, and a pod that nobody runs is failed first; a running
    one is there until its node confirms its end and the finalizer is taken away, in any order."""

    async def main() -> None:
        async with Plane(8) as plane:
            await plane.until(lambda: plane.cache.get(SERVICE_ACCOUNT, "default", "default") is not None)
            spec = {"containers": [{"name": "c", "image": "i"}]}

            def get(name: str) -> Object:
                return plane.cache.get(POD, "default", name) or {}

            held = made(POD, "waits", finalizers=["example.com/hold"])
            await plane.root.create(POD, {**held, "spec": spec})
            await plane.until(lambda: get("waits")["status"]["phase"] == "Running")
            await plane.root.delete(POD, "default", "waits")
            assert get("waits")["metadata"]["deletionGracePeriodSeconds"] == 0
            await plane.until(lambda: get("waits")["status"]["phase"] == "Failed")
            await release(plane.root, POD, "default", "waits")
            await plane.until(lambda: not get("waits"))
            runs = made(POD, "runs", finalizers=["example.com/hold"])
            await plane.root.create(POD, {**runs, "spec": {**spec, "nodeName": "n1"}})
            await plane.root.delete(POD, "default", "runs", grace_s=30)
            await plane.until(lambda: get("runs")["metadata"].get("deletionGracePeriodSeconds") == 0)
            await release(plane.root, POD, "default", "runs")
            await plane.until(lambda: not get("runs"))

    loop.run(8, main())


def test_large_objects() -> None:
    """1.5 MB are kept and read again; what does not fit is told in etcd's words, and nothing has changed."""

    async def main() -> None:
        async with Plane(9) as plane:
            text = "x" * 1_500_000
            large = await plane.root.create(CLUSTER_ROLE, made(CLUSTER_ROLE, "large", annotations={"a": "1"}))
            pairs = [{"apiGroups": [""], "resources": [text], "verbs": ["get"]}]
            large = await plane.root.update(CLUSTER_ROLE, {**large, "rules": pairs})
            assert len((await plane.root.get(CLUSTER_ROLE, "", "large"))["rules"][0]["resources"][0]) == 1_500_000
            grown = [*pairs, {"apiGroups": [""], "resources": [text[:700_000]], "verbs": ["get"]}]
            with pytest.raises(
                ApiError, match="etcdserver: request is too large: ClusterRole large would take 2"
            ) as told:
                await plane.root.patch(CLUSTER_ROLE, "", "large", {"rules": grown})
            assert (told.value.code, told.value.reason) == (500, "")
            assert await plane.root.get(CLUSTER_ROLE, "", "large") == large

    loop.run(9, main())


def test_who_may_block_an_owner() -> None:
    """With OwnerReferencesPermissionEnforcement only who may set the owner's finalizers can block its deletion."""
    user = identity.authenticated("alice")

    async def main() -> None:
        async with Plane(10, enable=("OwnerReferencesPermissionEnforcement",)) as plane:
            rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete"]}]
            await plane.root.create(CLUSTER_ROLE, {**made(CLUSTER_ROLE, "maps"), "rules": rules})
            binding = builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
            group = "rbac.authorization.k8s.io"
            bound = {
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "maps"},
                "subjects": [{"apiGroup": group, "kind": "User", "name": "alice"}],
            }
            await plane.root.create(binding, {**made(binding, "maps"), **bound})
            owner = await plane.root.create(CONFIG_MAP, made(CONFIG_MAP, "owner"))
            alice = plane.client(user)
            free = evolve(made(CONFIG_MAP, "free"), ("metadata", "ownerReferences"), [reference(owner, False)])
            await alice.create(CONFIG_MAP, free)
            with pytest.raises(
                Forbidden, match="cannot set blockOwnerDeletion if an ownerReference refers to a resource"
            ):
                await alice.create(CONFIG_MAP, made(CONFIG_MAP, "blocks", owner=owner))

    loop.run(10, main())
