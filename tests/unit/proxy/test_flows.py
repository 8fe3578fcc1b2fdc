"""Which UDP connections are forgotten."""

from __future__ import annotations

from k3s.proxy.conntrack import arguments
from k3s.proxy.flows import Flow, parse, stale, without_endpoints
from k3s.proxy.ports import Endpoint, ServicePort

CIDRS = ("10.42.0.0/16",)
DNS = ServicePort(
    "ns/dns/udp/53",
    "ip",
    "udp",
    "10.43.0.20",
    53,
    node_port=30053,
    cluster=(Endpoint("10.42.0.5", 5353),),
)


def flow(destination: str, served_by: str, port: int = 53) -> Flow:
    """A flow of IPv4."""
    return Flow("ip", destination, port, served_by)


def test_a_listing_is_read() -> None:
    """Destination, port and who answers, of both forms of lines."""
    listing = """\
udp      17 22 src=10.42.0.9 dst=10.43.0.20 sport=40000 dport=53 src=10.42.0.5 dst=10.42.0.9 sport=5353
udp      17 28 src=10.42.0.9 dst=10.43.0.20 sport=40001 dport=53 [UNREPLIED] src=10.43.0.20 dst=192.0.2.2
"""
    assert parse("ip", listing) == {flow("10.43.0.20", "10.42.0.5"), flow("10.43.0.20", "10.43.0.20")}


def test_flows_to_endpoints_that_are_gone() -> None:
    """They are stale, as are flows that began when nobody served; those to endpoints are not."""
    good, gone, never = (flow("10.43.0.20", each) for each in ("10.42.0.5", "10.42.0.6", "10.43.0.20"))
    assert stale({good, gone, never}, [DNS], CIDRS) == {gone, never}


def test_flows_to_a_service_without_endpoints() -> None:
    """What was sent to a pod is stale; what was refused is right."""
    was, never = flow("10.43.0.20", "10.42.0.5"), flow("10.43.0.20", "10.43.0.20")
    assert stale({was, never}, without_endpoints([DNS]), CIDRS) == {was}


def test_node_ports_and_the_rest_of_the_world() -> None:
    """On a node port only what went to a pod is ours; the same number elsewhere is not."""
    ours, good = flow("192.0.2.2", "10.42.0.6", 30053), flow("192.0.2.2", "10.42.0.5", 30053)
    others = {
        flow("198.51.100.1", "198.51.100.1", 30053),
        flow("10.42.0.6", "10.42.0.6", 30053),
        flow("10.43.0.99", "x"),
    }
    assert stale({ours, good, *others}, [DNS], CIDRS) == {ours}


def test_arguments_of_the_tool() -> None:
    """Exactly the flows of one kind are named."""
    assert " ".join(arguments(flow("10.43.0.20", "10.42.0.6"))) == (
        "-D -f ipv4 -p udp --orig-dst 10.43.0.20 --orig-port-dst 53 --reply-src 10.42.0.6"
    )
