"""EndpointSlices and Endpoints, one state at a time."""

from __future__ import annotations

from typing import Any

from tests.unit.controllers.worlds import flat, meta, node, pod, world_of

from k3s.api.object import Object
from k3s.controllers import endpoints, endpointslice, endpointslice_mirror, kubernetes_endpoints
from k3s.controllers.actions import Create, Delete, Update
from k3s.controllers.known import ENDPOINT_SLICE


def service(**spec: Any) -> Object:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta("web", labels={"team": "a"}), "spec": body}


def slices(*found: Object) -> list[Any]:
    return flat(endpointslice.decide("default/web", world_of(*found), 0.0))


def stored(obj: Object, name: str = "web-1") -> Object:
    """A created slice as the server keeps it."""
    return {**obj, "metadata": {**obj["metadata"], **meta(name)}}


def test_slice_of_two_pods() -> None:
    """Ready and not ready pods are both told; pods without address or ended ones are not; the zone is the node's."""
    there = node("n1")
    there["metadata"]["labels"]["topology.kubernetes.io/zone"] = "z"
    (made,) = slices(
        service(),
        there,
        pod("a", ip="10.42.0.1"),
        pod("b", ip="10.42.0.2", ready=False),
        pod("new"),
        pod("done", ip="10.42.0.3", phase="Succeeded"),
        pod("other", ip="10.42.0.4", labels={"app": "db"}),
    )
    assert isinstance(made, Create)
    labels = made.obj["metadata"]["labels"]
    assert labels == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert made.obj["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    first, second = made.obj["endpoints"]
    assert first == {
        "addresses": ["10.42.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "n1",
        "zone": "z",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "uid-a"},
    }
    assert second["conditions"] == {"ready": False, "serving": False, "terminating": False}


def test_terminating_and_published_not_ready() -> None:
    """A pod that ends but still serves says so; publishNotReadyAddresses makes all of them ready."""
    ending = pod("a", ip="10.42.0.1", deletionTimestamp="2026-01-01T00:00:00Z")
    (made,) = slices(service(), ending)
    assert made.obj["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    (made,) = slices(service(publishNotReadyAddresses=True), ending)
    assert made.obj["endpoints"][0]["conditions"]["ready"] is True


def test_unchanged_means_nothing() -> None:
    """The slice that was made is left alone; one more pod updates it in place; the last one gone leaves it empty."""
    one = pod("a", ip="10.42.0.1")
    piece = stored(slices(service(), one)[0].obj)
    assert slices(service(), one, piece) == []
    (update,) = slices(service(), one, pod("b", ip="10.42.0.2"), piece)
    assert isinstance(update, Update) and len(update.obj["endpoints"]) == 2
    made, gone = slices(service(), piece)
    assert isinstance(made, Create) and made.obj["endpoints"] == [] and isinstance(gone, Delete)


def test_more_than_a_slice_holds() -> None:
    """250 pods make slices of 100, 100 and 50; the next ones fill up the last."""
    many = [pod(f"p{n:03}", ip=f"10.42.{n // 200}.{n % 200 + 1}") for n in range(250)]
    made = slices(service(), *many)
    assert [len(found.obj["endpoints"]) for found in made] == [100, 100, 50]
    pieces = [stored(found.obj, f"web-{n}") for n, found in enumerate(made)]
    (update,) = slices(service(), *many, pod("q", ip="10.42.9.9"), *pieces)
    assert update.obj["metadata"]["name"] == "web-2" and len(update.obj["endpoints"]) == 51


def test_named_ports_group_pods() -> None:
    """Pods whose named port has another number are in another slice."""
    ports = {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}
    one = pod("a", ip="10.42.0.1", spec={"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 1}]}]})
    two = pod("b", ip="10.42.0.2", spec={"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 2}]}]})
    assert [found.obj["ports"][0]["port"] for found in slices(service(**ports), one, two)] == [1, 2]


def test_services_without_selector_are_left_alone() -> None:
    """Their endpoints are the user's."""
    assert slices(service(selector=None)) == []
    assert flat(endpoints.decide("default/web", world_of(service(selector=None)), 0.0)) == []


def test_headless_host_names() -> None:
    """A pod with the Service as its subdomain has a name of its own there."""
    named = pod("db-0", ip="10.42.0.1", spec={"hostname": "db-0", "subdomain": "web"})
    (made,) = slices(service(clusterIP="None"), named)
    assert made.obj["endpoints"][0]["hostname"] == "db-0"
    assert made.obj["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_endpoints_of_a_service() -> None:
    """Ready and not ready addresses are apart; ending pods are left out; the object goes with its Service."""
    found = [
        pod("a", ip="10.42.0.1"),
        pod("b", ip="10.42.0.2", ready=False),
        pod("c", ip="10.42.0.3", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    (made,) = flat(endpoints.decide("default/web", world_of(service(), *found), 0.0))
    assert isinstance(made, Create)
    (subset,) = made.obj["subsets"]
    assert [entry["ip"] for entry in subset["addresses"]] == ["10.42.0.1"]
    assert [entry["ip"] for entry in subset["notReadyAddresses"]] == ["10.42.0.2"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    kept = {**made.obj, "metadata": {**made.obj["metadata"], **meta("web")}}
    assert flat(endpoints.decide("default/web", world_of(service(), *found, kept), 0.0)) == []
    (gone,) = flat(endpoints.decide("default/web", world_of(kept), 0.0))
    assert isinstance(gone, Delete)


def test_the_api_servers_own_endpoints() -> None:
    """They are made, put right when changed, and not offered when the address is a loopback one."""
    both = kubernetes_endpoints.specs(["10.0.0.1"], 6443)
    made = [flat(spec.decide("default/kubernetes", world_of(), 0.0))[0] for spec in both]
    assert all(isinstance(action, Create) for action in made)
    moved = kubernetes_endpoints.specs(["10.0.0.2"], 6443)[1]
    kept = {**made[1].obj, "metadata": {**made[1].obj["metadata"], **meta("kubernetes")}}  # type: ignore[union-attr]
    (update,) = flat(moved.decide("default/kubernetes", world_of(kept), 0.0))
    assert isinstance(update, Update) and update.kind is ENDPOINT_SLICE
    assert update.obj["endpoints"][0]["addresses"] == ["10.0.0.2"]
    assert kubernetes_endpoints.specs(["127.0.0.1"], 6443) == ()


def test_endpoints_of_the_user_are_mirrored() -> None:
    """For a Service without selector the user's addresses become a slice, which follows and goes with them."""
    own = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": meta("web"),
        "subsets": [{"addresses": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.5"}], "ports": [{"port": 80}]}],
    }

    def run(*found: Object) -> list[Any]:
        return flat(endpointslice_mirror.decide("default/web", world_of(*found), 0.0))

    alone = service(selector=None)
    (made,) = run(alone, own)
    assert [entry["addresses"] for entry in made.obj["endpoints"]] == [["1.2.3.4"], ["1.2.3.5"]]
    piece = stored(made.obj)
    assert run(alone, own, piece) == []
    fewer = {**own, "subsets": [{"addresses": [{"ip": "1.2.3.5"}], "ports": [{"port": 80}]}]}
    (update,) = run(alone, fewer, piece)
    assert [entry["addresses"] for entry in update.obj["endpoints"]] == [["1.2.3.5"]]
    assert isinstance(run(service(), own, piece)[0], Delete)
    assert isinstance(run(alone, piece)[0], Delete)
