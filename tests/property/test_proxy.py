"""Whatever services there are: where packets to them end, found by following virtual packets through the rules."""

from __future__ import annotations

import ipaddress
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k3s.netfilter import text
from k3s.netfilter.diff import changes
from k3s.netfilter.ruleset import Ruleset, problems
from k3s.netfilter.trace import Machine, Outcome, Packet, follow
from k3s.proxy.ports import Endpoint, Node, ServicePort, service_ports
from k3s.proxy.rules import ruleset

NODE = Node("node-0", ("10.42.0.0/16",), frozenset({"10.43.0.10"}))
NODE_IP = "192.0.2.2"
MACHINE = Machine(frozenset({NODE_IP, "10.42.0.1", "127.0.0.1"}))
POD, STRANGER = "10.42.0.200", "198.51.100.9"

endpoints = st.lists(
    st.builds(
        lambda number, ready, serving, terminating: {
            "addresses": [f"10.42.{number % 2}.{number + 2}"],
            "nodeName": f"node-{number % 2}",
            "conditions": {"ready": ready and not terminating, "serving": serving, "terminating": terminating},
        },
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda each: each["addresses"][0],
)


@st.composite
def services(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A service with its slices."""
    number = draw(st.integers(0, 3))
    protocol = draw(st.sampled_from(["TCP", "UDP", "SCTP"]))
    port: dict[str, Any] = {"name": "p", "port": 80, "protocol": protocol}
    spec: dict[str, Any] = {"type": "ClusterIP", "clusterIP": f"10.43.0.{number + 20}", "ports": [port]}
    if draw(st.booleans()):
        spec["type"] = draw(st.sampled_from(["NodePort", "LoadBalancer"]))
        port["nodePort"] = 30000 + number
        spec["externalTrafficPolicy"] = draw(st.sampled_from(["Cluster", "Local"]))
    spec["internalTrafficPolicy"] = draw(st.sampled_from(["Cluster", "Local"]))
    if draw(st.booleans()):
        spec["externalIPs"] = [f"203.0.113.{number}"]
    if draw(st.booleans()):
        spec["sessionAffinity"] = "ClientIP"
    obj = {"metadata": {"namespace": "ns", "name": f"s{number}"}, "spec": spec, "status": {}}
    if spec["type"] == "LoadBalancer":
        obj["status"] = {"loadBalancer": {"ingress": [{"ip": f"203.0.113.{number + 100}"}]}}
        if draw(st.booleans()):
            spec["loadBalancerSourceRanges"] = ["198.51.100.0/24"]
    half = {"addressType": "IPv4", "ports": [{"name": "p", "port": 8080, "protocol": protocol}]}
    return obj, [{**half, "endpoints": draw(endpoints)}, {**half, "endpoints": draw(endpoints)}]


worlds = st.lists(services(), max_size=3, unique_by=lambda each: each[0]["metadata"]["name"])


def ports_of(world: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> list[ServicePort]:
    """All service ports of the world."""
    return [port for obj, slices in world for port in service_ports(obj, slices, NODE)]


def send(rules: Ruleset, port: ServicePort, source: str, address: str, number: int) -> list[Outcome]:
    """The outcomes for a new connection."""
    here = source in MACHINE.addresses
    return follow(rules, Packet(source, address, number, port.protocol, from_here=here), MACHINE)


def spread(outcomes: list[Outcome]) -> dict[tuple[str, int], Fraction]:
    """How often each endpoint is chosen."""
    found: dict[tuple[str, int], Fraction] = {}
    for each in outcomes:
        assert each.verdict == "accept"
        key = (each.destination, each.port)
        found[key] = found.get(key, Fraction(0)) + each.probability
    return found


def fair(wanted: tuple[Endpoint, ...]) -> dict[tuple[str, int], Fraction]:
    """Every endpoint with the same probability."""
    return {(each.address, each.port): Fraction(1, len(wanted)) for each in wanted}


@given(worlds)
def test_cluster_addresses_reach_the_endpoints_that_may_serve(world: Any) -> None:
    """Pods, the node and strangers are spread evenly over the endpoints; without any they are refused or dropped."""
    ports = ports_of(world)
    rules = ruleset(ports, NODE)
    for port in ports:
        for source in (POD, STRANGER, NODE_IP):
            outcomes = send(rules, port, source, port.cluster_ip, port.port)
            wanted = port.local if port.internal_local else port.cluster
            if wanted:
                assert spread(outcomes) == fair(wanted)
                for each in outcomes:
                    pods_own = source == POD
                    assert each.masqueraded == (not pods_own) or each.destination in MACHINE.addresses
            else:
                assert [each.verdict for each in outcomes] == ["drop" if port.cluster else "reject"]


@given(worlds)
def test_ways_in_from_outside(world: Any) -> None:
    """Node ports, external addresses and balancers: everyone's endpoints with the node's address as source, or with
    policy Local this node's endpoints with the client's own; source ranges keep others out."""
    ports = ports_of(world)
    rules = ruleset(ports, NODE)
    for port in ports:
        ways = [(ip, port.port) for ip in (*port.external_ips, *port.balancer_ips)]
        ways += [(NODE_IP, port.node_port)] if port.node_port else []
        for address, number in ways:
            for source in (STRANGER, POD, NODE_IP):
                outcomes = send(rules, port, source, address, number)
                kept_out = port.source_ranges and address in port.balancer_ips and source != STRANGER
                is_local = port.external_local and source == STRANGER
                wanted = port.local if is_local else port.cluster
                if not port.cluster:
                    assert [each.verdict for each in outcomes] == ["reject"]
                elif kept_out or not wanted:
                    assert [each.verdict for each in outcomes] == ["drop"]
                else:
                    assert spread(outcomes) == fair(wanted)
                    if is_local:
                        assert not any(each.masqueraded for each in outcomes)
                    elif not port.external_local:
                        assert all(each.masqueraded for each in outcomes)


@given(worlds)
def test_a_pod_that_reaches_itself_is_masqueraded(world: Any) -> None:
    """Otherwise it would get an answer from its own address, to a question that it asked somebody else."""
    ports = ports_of(world)
    rules = ruleset(ports, NODE)
    for port in ports:
        for endpoint in port.local if port.internal_local else port.cluster:
            for each in send(rules, port, endpoint.address, port.cluster_ip, port.port):
                assert each.masqueraded == (each.destination == endpoint.address)


@given(worlds)
def test_affinity_keeps_a_client_where_it_was(world: Any) -> None:
    """A client that a set remembers goes to that endpoint and no other."""
    ports = ports_of(world)
    rules = ruleset(ports, NODE)
    for port in ports:
        for endpoint in port.cluster:
            name = f"affinity-{port.affinity_s}-{port.name}__{endpoint.address}/{endpoint.port}"
            if port.affinity_s and not port.internal_local:
                machine = Machine(MACHINE.addresses, {name: frozenset({POD})})
                outcomes = follow(rules, Packet(POD, port.cluster_ip, port.port, port.protocol), machine)
                assert spread(outcomes) == fair((endpoint,))


@given(worlds)
def test_other_packets_are_left_alone(world: Any) -> None:
    """Ports that no service has are refused on cluster addresses; anything else passes as it is."""
    ports = ports_of(world)
    rules = ruleset(ports, NODE)
    for port in ports:
        assert [each.verdict for each in send(rules, port, POD, port.cluster_ip, 81)] == ["reject"]
    for destination in (STRANGER, NODE_IP, "10.43.0.10", "10.42.0.7"):
        (outcome,) = follow(rules, Packet(POD, destination, 22), MACHINE)
        assert outcome == Outcome("accept", destination, 22, masqueraded=False)


@given(worlds, worlds)
def test_rules_are_complete_and_readable(before: Any, after: Any) -> None:
    """Nothing names what is not there; text comes back as the same values; no change is no text; names fit."""
    (old,), (new,) = ruleset(ports_of(before), NODE), ruleset(ports_of(after), NODE)
    assert not problems(old)
    assert text.parse_table(text.table(old)) == old
    assert changes((old,), (old,)) == ""
    assert (changes((old,), (new,)) == "") == (old == new)
    assert all(len(name) < 240 for name in (*new.chains, *new.sets))


@given(worlds)
def test_only_endpoints_that_serve_get_traffic(world: Any) -> None:
    """Ready ones; when none is ready those that serve while they terminate (KEP-1669); others never."""
    for obj, slices in world:
        every = [each for slice_ in slices for each in slice_["endpoints"]]
        ready = {each["addresses"][0] for each in every if each["conditions"]["ready"]}
        conditions = [(each["addresses"][0], each["conditions"]) for each in every]
        ending = {address for address, each in conditions if each["serving"] and each["terminating"]}
        for port in service_ports(obj, slices, NODE):
            assert {each.address for each in port.cluster} == (ready or ending)
            assert set(port.local) <= {*port.cluster} | {Endpoint(each, 8080) for each in ending}
            assert all(
                ipaddress.ip_address(each.address) in ipaddress.ip_network("10.42.0.0/24") for each in port.local
            )
