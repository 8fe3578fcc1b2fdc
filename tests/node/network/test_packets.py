"""Real packets through the real kernel: a node with two pods on a bridge, and a client outside, each a namespace."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from k3s.netfilter.kernel import Kernel
from k3s.netfilter.ruleset import Ruleset
from k3s.network import masquerade
from k3s.network.host import Host
from k3s.proxy.conntrack import Conntrack
from k3s.proxy.flows import Flow
from k3s.proxy.ports import Node, service_ports
from k3s.proxy.rules import ruleset

pytestmark = pytest.mark.root

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NODE = Node("node-1", ("10.42.0.0/16",))
SETUP = """
ip link add cni0 type bridge
ip address add 10.42.0.1/24 dev cni0
ip address add 192.0.2.2/24 dev outer
ip link set lo up
ip link set outer up
ip link set cni0 up
ip route add default via 192.0.2.9
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1 net.bridge.bridge-nf-call-iptables=1
"""


class Lab:
    """The namespaces, and what a request from one to another gives."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"k3s-{os.getpid()}-"
        self.folder = folder
        self.servers: list[subprocess.Popen[bytes]] = []
        self.names = ("node", "pod-5", "pod-6", "client")

    def run(self, where: str, command: str) -> str:
        """The output of a command that must succeed in a namespace."""
        words = ["ip", "netns", "exec", self.prefix + where, *command.split()]
        done = subprocess.run(words, check=True, capture_output=True, timeout=20)
        return done.stdout.decode()

    def command(self, where: str, tool: str) -> tuple[str, ...]:
        """How to run a tool in a namespace."""
        return ("ip", "netns", "exec", self.prefix + where, tool)

    def build(self) -> None:
        """Namespaces, links, a web server in each pod and at the client, which tells its name."""
        for name in self.names:
            subprocess.run(["ip", "netns", "add", self.prefix + name], check=True)
        self.run("node", f"ip link add outer type veth peer name eth0 netns {self.prefix}client")
        for line in SETUP.strip().splitlines():
            self.run("node", line)
        self.run("client", "ip address add 192.0.2.9/24 dev eth0")
        self.run("client", "ip link set eth0 up")
        for number in (5, 6):
            pod = f"pod-{number}"
            self.run("node", f"ip link add veth{number} type veth peer name eth0 netns {self.prefix}{pod}")
            self.run("node", f"ip link set veth{number} master cni0 up")
            self.run("node", f"bridge link set dev veth{number} hairpin on")
            self.run(pod, f"ip address add 10.42.0.{number}/24 dev eth0")
            self.run(pod, "ip link set eth0 up")
            self.run(pod, "ip route add default via 10.42.0.1")
        for name in ("pod-5", "pod-6", "client"):
            root = self.folder / name
            root.mkdir()
            (root / "index.html").write_text(name)
            log = (root / "log").open("wb")
            httpd = f"busybox httpd -f -v -p 8080 -h {root}"
            words = ["ip", "netns", "exec", self.prefix + name, *httpd.split()]
            self.servers.append(subprocess.Popen(words, stderr=log))
        for name in ("pod-5", "pod-6", "client"):
            while "8080" not in self.run(name, "ss -ltn"):
                pass

    def get(self, where: str, address: str) -> str:
        """What a web server answers; `refused` or `silent` when none does."""
        words = ["ip", "netns", "exec", self.prefix + where, "curl", "-s", "-m", "2", f"http://{address}/"]
        done = subprocess.run(words, capture_output=True, timeout=20)
        return {0: done.stdout.decode(), 7: "refused", 28: "silent"}[done.returncode]

    def seen_by(self, name: str) -> str:
        """The addresses of the clients that a server saw."""
        return (self.folder / name / "log").read_text()

    def tear_down(self) -> None:
        """Everything goes."""
        for each in self.servers:
            each.terminate()
            each.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", self.prefix + name], check=False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The namespaces with a service in front of both pods, and one without endpoints."""
    made = Lab(tmp_path_factory.mktemp("lab"))
    try:
        made.build()
        asyncio.run(Kernel(made.command("node", "nft")).apply((), rules()))
        yield made
    finally:
        made.tear_down()


def rules(*endpoints: str, **spec: Any) -> Ruleset:
    """The node's rules: the service `web` with its endpoints, `none` without, and masquerading."""
    listed = endpoints or ("10.42.0.5", "10.42.0.6")
    port = {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}
    base = {"type": "NodePort", "clusterIP": "10.43.0.20", "ports": [port], **spec}
    web = {"metadata": {"namespace": "ns", "name": "web"}, "spec": base}
    none = {"metadata": {"namespace": "ns", "name": "none"}, "spec": {"clusterIP": "10.43.0.21", "ports": [port]}}
    slice_ = {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "nodeName": "node-1"} for each in listed],
    }
    ports = (*service_ports(web, [slice_], NODE), *service_ports(none, [], NODE))
    return (*ruleset(ports, NODE), *masquerade.ruleset(NODE.cluster_cidrs))


def apply(lab: Lab, new: Ruleset) -> None:
    """Makes the rules those of the kernel, whatever was there."""
    asyncio.run(Kernel(lab.command("node", "nft")).apply(None, new))


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("pod-5", "10.43.0.20"),  # to itself (hairpin) and over the bridge to its neighbour
        ("node", "10.43.0.20"),
        ("client", "192.0.2.2:30080"),
        ("pod-6", "192.0.2.2:30080"),
        ("node", "192.0.2.2:30080"),
        ("node", "127.0.0.1:30080"),
    ],
)
def test_services_reach_every_endpoint(lab: Lab, where: str, address: str) -> None:
    """From everywhere, by the cluster address and the node's: both pods answer within a few dozen requests."""
    apply(lab, rules())
    found = set()
    for _ in range(40):
        found.add(lab.get(where, address))
        if len(found) == 2:
            break
    assert found == {"pod-5", "pod-6"}


def test_without_endpoints_connections_are_refused(lab: Lab) -> None:
    """At once, not by a time-out; and so are ports that a service does not have."""
    apply(lab, rules())
    for where in ("pod-5", "node"):
        assert lab.get(where, "10.43.0.21") == "refused"
        assert lab.get(where, "10.43.0.20:81") == "refused"


def test_a_change_takes_effect_for_the_next_connection(lab: Lab) -> None:
    """With one endpoint left all requests go there."""
    apply(lab, rules("10.42.0.6"))
    assert {lab.get("pod-5", "10.43.0.20") for _ in range(8)} == {"pod-6"}


def test_affinity_keeps_a_client(lab: Lab) -> None:
    """All requests of a client go where its first one went."""
    apply(lab, rules(sessionAffinity="ClientIP"))
    assert len({lab.get("client", "192.0.2.2:30080") for _ in range(12)}) == 1
    assert len({lab.get("pod-5", "10.43.0.20") for _ in range(12)}) == 1


def test_sources(lab: Lab) -> None:
    """Pods see pods as they are; the world sees the node; with policy Local pods see the client from outside."""
    apply(lab, rules("10.42.0.6", externalTrafficPolicy="Local"))
    lab.get("pod-5", "10.43.0.20")
    assert "10.42.0.5]" in lab.seen_by("pod-6")
    assert "192.0.2.9]" not in lab.seen_by("pod-6")
    assert lab.get("client", "192.0.2.2:30080") == "pod-6"
    assert "192.0.2.9]" in lab.seen_by("pod-6")
    assert lab.get("pod-5", "192.0.2.9:8080") == "client"
    assert "192.0.2.2]" in lab.seen_by("client") and "10.42.0.5]" not in lab.seen_by("client")


def test_nobody_else_reaches_localhost(lab: Lab) -> None:
    """Though the kernel would now take such packets from a link: neither node ports nor what listens there."""
    words = [*lab.command("node", "busybox"), *f"httpd -f -p 127.0.0.1:8080 -h {lab.folder / 'pod-5'}".split()]
    lab.servers.append(subprocess.Popen(words))
    while "127.0.0.1:8080" not in lab.run("node", "ss -ltn"):
        pass
    lab.run("client", "sysctl -qw net.ipv4.conf.all.route_localnet=1")
    lab.run("client", "ip route replace 127.0.0.1/32 via 192.0.2.2 dev eth0 src 192.0.2.9")
    asyncio.run(Kernel(lab.command("node", "nft")).delete("ip", "k3s"))
    assert lab.get("client", "127.0.0.1:8080") == "pod-5", "the danger is not there, so the test shows nothing"
    apply(lab, rules())
    assert lab.get("node", "127.0.0.1:8080") == "pod-5"
    for port in (8080, 30080):
        assert lab.get("client", f"127.0.0.1:{port}") == "silent"


def test_an_address_of_the_node_for_the_name_server(lab: Lab, run: Run) -> None:
    """A link without ports is enough: pods and processes of the node reach who listens on its address."""
    run(Host(lab.command("node", "ip")).ensure_address("k3s-dns", "10.43.0.10/32"))
    apply(lab, rules())
    words = [*lab.command("node", "busybox"), *f"httpd -f -p 10.43.0.10:8080 -h {lab.folder / 'pod-5'}".split()]
    lab.servers.append(subprocess.Popen(words))
    while "10.43.0.10:8080" not in lab.run("node", "ss -ltn"):
        pass
    assert [lab.get(where, "10.43.0.10:8080") for where in ("pod-6", "node")] == ["pod-5", "pod-5"]


def test_udp_flows_are_listed_and_forgotten(lab: Lab, run: Run) -> None:
    """The kernel's flows come out as values, and one can be made to go."""
    script = "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.9', 5353))"
    subprocess.run([*lab.command("pod-5", sys.executable), "-c", script], check=True)

    async def scenario() -> None:
        connections = Conntrack(lab.command("node", "conntrack"))
        flow = Flow("ip", "192.0.2.9", 5353, "192.0.2.9")
        assert flow in await connections.udp("ip")
        await connections.forget([flow, flow])
        assert flow not in await connections.udp("ip")
        await connections.forget([flow])

    run(scenario())
