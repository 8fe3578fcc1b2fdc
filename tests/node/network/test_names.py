"""Real resolvers ask our name server: the C library in a pod's namespace, over the address that a node has for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.fakes.objects import Objects, informers
from k3s.api.kinds import builtin
from k3s.base.entropy import SeededEntropy
from k3s.dns.service import Config, Dns
from k3s.dns.upstream import Upstream
from k3s.network.host import Host

SERVICE, SLICE = builtin("v1", "Service"), builtin("discovery.k8s.io/v1", "EndpointSlice")
META = {"namespace": "default", "name": "web", "labels": {"kubernetes.io/service-name": "web"}}

async def main():
    objects = Objects()
    await objects.put(SERVICE, {"metadata": META, "spec": {"clusterIP": "None"}})
    listed = [{"addresses": [f"10.42.0.{number}"]} for number in range(2, 102)]
    await objects.put(SLICE, {"metadata": META, "addressType": "IPv4", "ports": [], "endpoints": listed})
    await Host().ensure_address("k3s-dns", "10.43.0.10")
    async with informers(objects, SERVICE, SLICE) as sources:
        upstream = Upstream(Path("/etc/resolv.conf"), {"10.43.0.10"}, SeededEntropy(1))
        dns = Dns(Config(("10.43.0.10",)), upstream, *sources)
        await dns.run(lambda: print("ready", flush=True))

asyncio.run(main())
"""


@pytest.fixture
def pod() -> Iterator[str]:
    """A pod's namespace with the usual resolv.conf, beside a node's in which the server runs."""
    node, name = f"k3s-dns-node-{os.getpid()}", f"k3s-dns-pod-{os.getpid()}"
    folder = Path("/etc/netns") / name
    for each in (node, name):
        subprocess.run(["ip", "netns", "add", each], check=True)
    server: subprocess.Popen[str] | None = None
    try:
        for line in (
            f"-n {node} link add veth0 type veth peer name eth0 netns {name}",
            f"-n {node} address add 10.42.0.1/24 dev veth0",
            f"-n {node} link set veth0 up",
            f"-n {node} link set lo up",
            f"-n {name} address add 10.42.0.5/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via 10.42.0.1",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        folder.mkdir(parents=True)
        search = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\n"
        (folder / "resolv.conf").write_text(search + "options ndots:5\n")
        server = subprocess.Popen(
            ["ip", "netns", "exec", node, sys.executable, "-c", SERVER],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"src{os.pathsep}."},
        )
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield name
    finally:
        if server is not None:
            server.terminate()
            server.wait()
            server.stdout.close()  # type: ignore[union-attr]
        for each in (node, name):
            subprocess.run(["ip", "netns", "delete", each], check=True)
        (folder / "resolv.conf").unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()


def ask(pod: str, name: str) -> set[str]:
    """The addresses that the C library finds."""
    words = ["ip", "netns", "exec", pod, "getent", "ahostsv4", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return {line.split()[0] for line in done.stdout.splitlines()}


def test_the_c_library(pod: str) -> None:
    """Short, longer and full names by the search domains; a hundred addresses, which need TCP; names that are not."""
    every = {f"10.42.0.{number}" for number in range(2, 102)}
    assert ask(pod, "web") == every
    assert ask(pod, "web.default") == every
    assert ask(pod, "web.default.svc.cluster.local") == every
    assert ask(pod, "10-42-0-9.default.pod") == {"10.42.0.9"}
    assert ask(pod, "nothing") == set()
