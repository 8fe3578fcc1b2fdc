"""What is special about single kinds when they are written, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.fakes.server import serving

from k3s.api.errors import ApiError, Invalid
from k3s.api.kinds import builtin
from k3s.apiserver import body
from k3s.apiserver.server import ApiServer
from k3s.client.transport import Request

Run = Callable[[Coroutine[Any, Any, Any]], Any]
_CONTAINERS = [{"name": "c", "image": "i:1"}]


async def _send(server: ApiServer, verb: str, path: str, obj: Any = None, media: str = "") -> dict[str, Any]:
    request = Request(verb, path, {}, obj, content_type=media) if media else Request(verb, path, {}, obj)
    response = await server.itself().handle(request)
    return dict(response.body)


async def _space(server: ApiServer) -> str:
    await _send(
        server, "POST", "/api/v1/namespaces", {"metadata": {"name": "t"}, "kind": "Namespace", "apiVersion": "v1"}
    )
    return "/namespaces/t"


def _job(**spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": _CONTAINERS, "restartPolicy": "Never"}}
    spec = {"template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec}


def test_a_job_chooses_its_pods_by_its_uid(run: Run) -> None:
    """Selector and labels are made; with manualSelector the client's stay; a selector besides is refused."""

    async def scene() -> None:
        async with serving() as server:
            path = "/apis/batch/v1" + await _space(server) + "/jobs"
            made = await _send(server, "POST", path, _job())
            uid = made["metadata"]["uid"]
            labels = {"controller-uid": uid, "job-name": "j"}
            labels |= {f"batch.kubernetes.io/{key}": value for key, value in labels.items()}
            assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
            assert made["spec"]["template"]["metadata"]["labels"] == labels == made["metadata"]["labels"]
            await _send(server, "DELETE", path + "/j?propagationPolicy=Background")
            with pytest.raises(Invalid, match="not auto-generated"):
                await _send(server, "POST", path, _job(selector={"matchLabels": {"a": "b"}}))
            template = {**_job()["spec"]["template"], "metadata": {"labels": {"a": "b"}}}
            chosen = {"matchLabels": {"a": "b"}}
            manual = _job(selector=chosen, template=template, manualSelector=True)
            assert (await _send(server, "POST", path, manual))["spec"]["selector"] == chosen

    run(scene())


def _service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], **spec}}


def test_a_service_drops_what_its_new_type_has_no_use_for(run: Run) -> None:
    """From NodePort to ClusterIP to ExternalName and back, by changes of the type alone."""

    async def scene() -> None:
        async with serving() as server:
            path = "/api/v1" + await _space(server) + "/services"
            await _send(server, "POST", path, _service(type="NodePort"))
            merge = "application/merge-patch+json"
            plain = await _send(server, "PATCH", path + "/s", {"spec": {"type": "ClusterIP"}}, merge)
            assert "externalTrafficPolicy" not in plain["spec"]
            assert "nodePort" not in plain["spec"]["ports"][0]
            named = {"spec": {"type": "ExternalName", "externalName": "a.b"}}
            away = await _send(server, "PATCH", path + "/s", named, merge)
            assert away["spec"].keys().isdisjoint({"clusterIP", "clusterIPs", "ipFamilies", "internalTrafficPolicy"})
            back = await _send(server, "PATCH", path + "/s", {"spec": {"type": "ClusterIP"}}, merge)
            assert back["spec"]["clusterIP"]

    run(scene())


# Of a cluster with addresses of one family: what a service asks for, and why it is refused before it gets any.
_FAMILIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"ipFamilies": ["IPv6"]}, ['spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster']),
    (
        {"ipFamilyPolicy": "RequireDualStack"},
        [
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
            "this cluster is not configured for dual-stack services"
        ],
    ),
    (
        {"ipFamilies": ["IPv4", "IPv6"]},
        [
            'spec.ipFamilyPolicy: Invalid value: "SingleStack": '
            "must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified"
        ],
    ),
    (
        {"clusterIP": "fd00::1"},
        ['spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster'],
    ),
    (
        {"clusterIP": "x", "type": "Odd"},
        ['spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'],
    ),
]


@pytest.mark.parametrize(("spec", "causes"), _FAMILIES)
def test_a_service_gets_no_family_that_the_cluster_lacks(run: Run, spec: dict[str, Any], causes: list[str]) -> None:
    """The refusal names the field and the family, and nothing that is looked at later."""

    async def scene() -> None:
        async with serving() as server:
            path = "/api/v1" + await _space(server) + "/services"
            with pytest.raises(Invalid) as refused:
                await _send(server, "POST", path, _service(**spec))
            found = refused.value.details["causes"]
            assert [f"{cause['field']}: {cause['message']}" for cause in found] == causes

    run(scene())


def test_a_headless_service_without_pods_of_its_own_has_both_families(run: Run) -> None:
    """Whoever makes its endpoints may have addresses of either; with a selector it has the cluster's."""

    async def scene() -> None:
        async with serving() as server:
            path = "/api/v1" + await _space(server) + "/services"
            free = await _send(server, "POST", path, _service(clusterIP="None"))
            assert free["spec"]["ipFamilyPolicy"] == "RequireDualStack"
            assert free["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
            named = {**_service(clusterIP="None", selector={"a": "b"}), "metadata": {"name": "t"}}
            chosen = (await _send(server, "POST", path, named))["spec"]
            assert (chosen["ipFamilyPolicy"], chosen["ipFamilies"]) == ("SingleStack", ["IPv4"])
            merge = "application/merge-patch+json"
            single = {"spec": {"ipFamilyPolicy": "SingleStack"}}
            assert (await _send(server, "PATCH", path + "/s", single, merge))["spec"]["ipFamilies"] == ["IPv4"]

    run(scene())


def test_what_a_claim_is_filled_from_is_said_twice(run: Run) -> None:
    """The old field takes claims and snapshots only; either field is copied to the other."""

    async def scene() -> None:
        async with serving() as server:
            path = "/api/v1" + await _space(server) + "/persistentvolumeclaims"
            spec = {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "resources": {"requests": {"storage": "1Gi"}},
            }
            for field, kind, found in (
                ("dataSource", "PersistentVolumeClaim", {"dataSource", "dataSourceRef"}),
                ("dataSourceRef", "PersistentVolumeClaim", {"dataSource", "dataSourceRef"}),
                ("dataSource", "Pod", set()),
            ):
                source = {"kind": kind, "name": "x"}
                body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"generateName": "c-"}}
                made = await _send(server, "POST", path, {**body, "spec": {**spec, field: source}})
                assert {name for name in made["spec"] if name.startswith("dataSource")} == found

    run(scene())


def test_the_first_version_of_an_autoscaler_has_a_metric(run: Run) -> None:
    """An autoscaler without one watches the CPU, in both versions."""

    async def scene() -> None:
        async with serving() as server:
            space = await _space(server) + "/horizontalpodautoscalers"
            spec = {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}
            body = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}}
            made = await _send(server, "POST", "/apis/autoscaling/v1" + space, {**body, "spec": spec})
            assert made["spec"]["targetCPUUtilizationPercentage"] == 80
            assert made["status"]["currentReplicas"] == 0
            seen = await _send(server, "GET", f"/apis/autoscaling/v2{space}/h")
            assert seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
            assert "currentReplicas" not in seen["status"]

    run(scene())


async def _pods(server: ApiServer) -> str:
    """The path of pods in a namespace that can have some."""
    space = "/api/v1" + await _space(server)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await _send(server, "POST", space + "/serviceaccounts", account)
    return space + "/pods"


def _pod(name: str, meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    spec = {"containers": _CONTAINERS, "automountServiceAccountToken": False, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **(meta or {})}, "spec": spec}


def test_apparmor_annotations_become_fields(run: Run) -> None:
    """Of old clients; a field makes no annotation, and what the whole pod says needs no field."""

    async def scene() -> None:
        async with serving() as server:
            path = await _pods(server)
            note = "container.apparmor.security.beta.kubernetes.io/c"
            made = await _send(server, "POST", path, _pod("a", {"annotations": {note: "localhost/p"}}))
            profile = {"type": "Localhost", "localhostProfile": "p"}
            assert made["spec"]["containers"][0]["securityContext"]["appArmorProfile"] == profile
            whole = {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}
            made = await _send(server, "POST", path, _pod("b", **whole))
            assert "annotations" not in made["metadata"]
            made = await _send(server, "POST", path, _pod("d", {"annotations": {note: "runtime/default"}}, **whole))
            assert "securityContext" not in made["spec"]["containers"][0]

    run(scene())


def test_label_keys_become_rules_of_the_selector(run: Run) -> None:
    """With the pod's own values; keys that it has no label for, and terms without a selector, stay as they are."""

    async def scene() -> None:
        async with serving() as server:
            path = await _pods(server)
            chosen = {"matchLabels": {"a": "b"}}
            term = {
                "topologyKey": "k",
                "labelSelector": chosen,
                "matchLabelKeys": ["h", "z"],
                "mismatchLabelKeys": ["t"],
            }
            weighted = {"weight": 1, "podAffinityTerm": {**term, "mismatchLabelKeys": []}}
            spread = {"topologyKey": "k", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["h"]}
            made = await _send(
                server,
                "POST",
                path,
                _pod(
                    "a",
                    {"labels": {"h": "1", "t": "x"}},
                    affinity={
                        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]},
                    },
                    topologySpreadConstraints=[{**spread, "labelSelector": chosen}],
                ),
            )
            near, far = (made["spec"]["affinity"][part] for part in ("podAffinity", "podAntiAffinity"))
            same = {"key": "h", "operator": "In", "values": ["1"]}
            other = {"key": "t", "operator": "NotIn", "values": ["x"]}
            found = near["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]
            assert found == {**chosen, "matchExpressions": [same, other]}
            found = far["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"]
            assert found["matchExpressions"] == [same]
            assert made["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"] == [same]
            both = [{**spread, "labelSelector": {"matchLabels": {"h": "1"}}}]
            with pytest.raises(Invalid, match="exists in both matchLabelKeys and labelSelector"):
                await _send(server, "POST", path, _pod("b", {"labels": {"h": "1"}}, topologySpreadConstraints=both))

    run(scene())


def test_observed_generations_of_a_pod_stay(run: Run) -> None:
    """A writer of the status that knows nothing of them does not take them away."""

    async def scene() -> None:
        async with serving() as server:
            path = await _pods(server)
            await _send(server, "POST", path, _pod("a"))
            merge = "application/merge-patch+json"
            ready = {"type": "Ready", "status": "True"}
            seen = {"status": {"observedGeneration": 4, "conditions": [{**ready, "observedGeneration": 3}]}}
            await _send(server, "PATCH", path + "/a/status", seen, merge)
            late = {"status": {"observedGeneration": None, "conditions": [{"type": "X", "status": "True"}, ready]}}
            status = (await _send(server, "PATCH", path + "/a/status", late, merge))["status"]
            assert status["observedGeneration"] == 4
            assert [c.get("observedGeneration") for c in status["conditions"]] == [None, 3]

    run(scene())


@pytest.mark.parametrize(
    ("path", "obj", "kept"),
    [
        ("/apis/storage.k8s.io/v1/volumeattachments", "attachment", {"l": "1"}),
        ("/apis/apps/v1/namespaces/t/deployments", "deployment", {"l": "1"}),
        ("/apis/apps/v1/namespaces/t/replicasets", "replica set", {"l": "2"}),
    ],
)
def test_metadata_that_comes_with_a_status(run: Run, path: str, obj: str, kept: dict[str, str]) -> None:
    """Labels change with the status of most kinds; of some it leaves them alone."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": _CONTAINERS}}
    workload = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    source = {"attacher": "x.y", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
    kind = {"attachment": "VolumeAttachment", "deployment": "Deployment", "replica set": "ReplicaSet"}[obj]
    version = path.split("/")[2] + "/v1"

    async def scene() -> None:
        async with serving() as server:
            await _space(server)
            spec = source if obj == "attachment" else workload
            made = {"apiVersion": version, "kind": kind, "metadata": {"name": "x", "labels": {"l": "1"}}, "spec": spec}
            await _send(server, "POST", path, made)
            owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}
            change = {"metadata": {"labels": {"l": "2"}, "ownerReferences": [owner]}}
            got = await _send(server, "PATCH", path + "/x/status", change, "application/merge-patch+json")
            assert got["metadata"]["labels"] == kept
            assert ("ownerReferences" in got["metadata"]) is (obj != "attachment")

    run(scene())


def test_a_lease_without_election(run: Run) -> None:
    """The server elects no holder, so what says how is not kept, neither at first nor later."""

    async def go() -> None:
        async with serving() as server:
            path = f"/apis/coordination.k8s.io/v1{await _space(server)}/leases"
            spec = {"holderIdentity": "a", "strategy": "X", "preferredHolder": "b"}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
            assert (await _send(server, "POST", path, lease))["spec"] == {"holderIdentity": "a"}
            assert (await _send(server, "PUT", f"{path}/l", lease))["spec"] == {"holderIdentity": "a"}

    run(go())


def test_what_is_unknown_is_not_also_there_twice() -> None:
    """A key of no field is only unknown, and so is all in it, however often it comes."""
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "fo": {"a": 1}, "data": {"a": "b"}}
    twice = [f'duplicate field "{path}"' for path in ("fo", "fo.a", "foo", "data.a")]
    with pytest.raises(ApiError, match=r'error: duplicate field "foo", duplicate field "data.a", unknown field "fo"'):
        body.shaped(builtin("v1", "ConfigMap"), obj, "Strict", [], twice)
