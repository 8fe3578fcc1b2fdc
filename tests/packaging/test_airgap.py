"""A host that reaches nothing: installed from files, it runs pods, a Service and DNS, and does not even try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from build import command
from build.store import Store
from tests.cluster import Cluster, Kubectl, remains
from tests.e2e.objects import pod
from tests.packaging import shipped
from tests.packaging.island import ADDRESS, Island

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def island() -> Iterator[Island]:
    with Island(f"k3s-island-{os.getpid()}") as made:
        yield made


def test_the_counter_counts(island: Island) -> None:
    """A packet to the outside is noted with its destination; it is taken out again."""
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.5', 53))"
    island.run(sys.executable, "-c", send)
    assert island.tried() == "203.0.113.5 . udp . 53"
    island.run("nft", "flush", "set", "inet", "seen", "tried")


def _installed(island: Island, executable: Path, folder: Path) -> Path:
    """The k3s that install.sh puts in place, from the files of a release."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text("#!/bin/sh\n")
    (tools / "systemctl").chmod(0o755)
    settings = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "INSTALL_K3S_BIN_DIR": str(folder / "bin"),
        "INSTALL_K3S_SYSTEMD_DIR": str(folder / "units"),
        "INSTALL_K3S_BIN": str(executable),
    }
    script = ["sh", str(ROOT / "packaging/install.sh")]
    subprocess.run([*island.inside, *script], env=settings, check=True, capture_output=True)
    return folder / "bin/k3s"


def test_a_cluster_from_files(island: Island, executable: Path, store: Store, tmp_path: Path) -> None:
    """Pods of imported images, a Service by its name; a restart without any route; no packet to anywhere else."""
    k3s = _installed(island, executable, tmp_path)
    built = command.builder(command.host(), store, level=3).build("images")
    _bill, archive, listed = command.publish(built, tmp_path)
    names = listed.read_text().split()
    image = next(name for name in names if "busybox" in name)
    cluster = Cluster(tmp_path / "cluster", (*island.inside, str(k3s)), [f"--node-ip={ADDRESS}"])
    cluster.prepare({archive.name: archive.read_bytes()})
    try:
        cluster.start()
        run = f"K3S_DATA_DIR={cluster.data_dir} exec {' '.join(island.inside)} {k3s}"
        (tmp_path / "kubectl").write_text(f'#!/bin/sh\n{run} kubectl "$@"\n')
        (tmp_path / "kubectl").chmod(0o755)
        client = Kubectl(tmp_path / "kubectl", "1.37", tmp_path, cluster.kubeconfig)
        probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
        serve = "mkdir /www && echo served > /www/index.html && exec httpd -f -h /www"
        client.apply(pod("web", serve, container={"image": image, "readinessProbe": probe}))
        client("expose", "pod", "web", "--port=80")
        client("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
        asks = "nslookup kubernetes.default.svc.cluster.local >&2 && wget -qO- http://web.default.svc.cluster.local/"
        client.apply(pod("asks", asks, container={"image": image}, restartPolicy="OnFailure"))
        client("wait", "pod/asks", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        assert client("logs", "asks").endswith("served\n")
        env = {"K3S_DATA_DIR": str(cluster.data_dir)}
        told = json.loads(subprocess.check_output([k3s, "crictl", "images", "-o", "json"], env=env))["images"]
        assert {tag for each in told if each["pinned"] for tag in each["repoTags"]} >= set(names)
        by_name = {name.rpartition("/")[2].partition(":")[0]: name for name in names}
        shipped.traefik(client, by_name["mirrored-library-traefik"])
        shipped.load_balancer(client, by_name["klipper-lb"], image)
        if "klipper-helm" in by_name:
            shipped.helm_job(client, by_name["klipper-helm"])
        assert island.tried() == ""
        cluster.stop()
        island.run("ip", "route", "delete", "default")
        cluster.start()
        assert client("exec", "web", "--", "cat", "/www/index.html") == "served\n"
        assert island.tried() == ""
    finally:
        cluster.remove()
    assert remains(tmp_path) == []
