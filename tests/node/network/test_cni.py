"""The reference plugins take our configuration: a pod's namespace gets an address, a way out, and gives them back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k3s.network import cni

PLUGINS = Path("/usr/lib/cni")

pytestmark = [pytest.mark.root, pytest.mark.skipif(not PLUGINS.is_dir(), reason="the CNI plugins are not installed")]


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """A node's namespace and a pod's."""
    names = (f"k3s-cni-node-{os.getpid()}", f"k3s-cni-pod-{os.getpid()}")
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def call(node: str, pod: str, verb: str, document: dict[str, Any], previous: Any = None) -> Any:
    """Runs the first plugin of a configuration as containerd would."""
    plugin = document["plugins"][0]
    config = {"cniVersion": document["cniVersion"], "name": document["name"], **plugin}
    if previous:
        config["prevResult"] = previous
    settings = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "pod-1",
        "CNI_NETNS": f"/var/run/netns/{pod}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PLUGINS),
    }
    words = ["ip", "netns", "exec", node, str(PLUGINS / plugin["type"])]
    done = subprocess.run(
        words, input=json.dumps(config).encode(), capture_output=True, env={**os.environ, **settings}, timeout=20
    )
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_a_pod_gets_an_address(namespaces: tuple[str, str], tmp_path: Path) -> None:
    """Address from the node's range, default route to the bridge, MTU and hairpin as configured; then all is free."""
    node, pod = namespaces
    document = json.loads(cni.conflist(("10.42.7.0/24",), mtu=1400, leases=str(tmp_path)))
    result = call(node, pod, "ADD", document)
    assert result["ips"][0]["address"].startswith("10.42.7.")
    shown = json.loads(subprocess.check_output(["ip", "-n", pod, "-j", "-d", "link", "show", "eth0"]))
    assert shown[0]["mtu"] == 1400
    routes = json.loads(subprocess.check_output(["ip", "-n", pod, "-j", "route"]))
    assert {"dst": "default", "gateway": "10.42.7.1", "dev": "eth0", "flags": []} in routes
    ports = json.loads(subprocess.check_output(["ip", "-n", node, "-j", "-d", "link", "show", "master", "cni0"]))
    assert ports[0]["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert list((tmp_path / "cbr0").glob("10.42.7.*"))
    call(node, pod, "DEL", document, result)
    assert not list((tmp_path / "cbr0").glob("10.42.7.*"))
