"""The nft text of services, to be read by people. UPDATE_GOLDEN=1 writes what the code now says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from k3s.netfilter import diff, text
from k3s.proxy.ports import Node, service_ports
from k3s.proxy.rules import ruleset

FOLDER = Path(__file__).parent / "proxy"
NODE = Node("node-1", ("10.42.0.0/16",))


def service(name: str, address: str, **spec: Any) -> dict[str, Any]:
    """A service with one port unless `spec` says otherwise."""
    spec = {"clusterIP": address, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], **spec}
    return {"metadata": {"namespace": "default", "name": name}, "spec": spec}


def slice_of(*endpoints: tuple[str, str], port: int = 8080, protocol: str = "TCP") -> dict[str, Any]:
    """A slice of ready endpoints: (address, node)."""
    return {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [address], "nodeName": node} for address, node in endpoints],
    }


TWO = slice_of(("10.42.0.5", "node-1"), ("10.42.1.6", "node-2"))

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "cluster-ip": (service("web", "10.43.0.20"), [TWO]),
    "no-endpoints": (service("web", "10.43.0.20", type="NodePort"), []),
    "node-port": (
        service("web", "10.43.0.20", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]),
        [TWO],
    ),
    "balancer-local-affine": (
        service(
            "web",
            "10.43.0.20",
            type="LoadBalancer",
            ports=[{"name": "http", "port": 80, "nodePort": 30080}],
            externalTrafficPolicy="Local",
            externalIPs=["192.0.2.80"],
            loadBalancerSourceRanges=["198.51.100.0/24"],
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        )
        | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}},
        [TWO],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_text_of_services(name: str) -> None:
    """The rules are the ones that were reviewed."""
    obj, slices = CASES[name]
    (table,) = ruleset(service_ports(obj, slices, NODE), NODE)
    check(FOLDER / f"{name}.nft", text.table(table))


def test_text_of_an_update() -> None:
    """One endpoint more costs a few lines, whatever else is in the table."""
    other = service_ports(service("other", "10.43.0.30", type="NodePort"), [TWO], NODE)
    before = service_ports(*CASES["cluster-ip"], NODE)
    more = slice_of(("10.42.0.5", "node-1"), ("10.42.1.6", "node-2"), ("10.42.1.7", "node-2"))
    after = service_ports(CASES["cluster-ip"][0], [more], NODE)
    script = diff.changes(ruleset((*other, *before), NODE), ruleset((*other, *after), NODE))
    check(FOLDER / "update.nft", script)


def check(path: Path, actual: str) -> None:
    """Compares with the reviewed file."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(actual)
    assert actual == path.read_text()
