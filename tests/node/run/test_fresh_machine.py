"""The two commands of the README on a machine that has nothing but CPython."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import machine_lock
from tests.machine import FreshMachine, Unavailable

# Waiting for another test's node may take longer than a test.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

# Runs `$1` in the background until it says `$2`, then calls `use`, then stops it as Ctrl-C does.
_SESSION = r"""
session() {
    sh -c "exec $1" > /tmp/log 2>&1 &
    server=$!
    for _ in $(seq 1500); do
        grep -q "$2" /tmp/log && break
        kill -0 $server || break
        sleep 0.1
    done
    grep -q "$2" /tmp/log || { cat /tmp/log; exit 1; }
    use
    kill -INT $server
    wait $server || { cat /tmp/log; exit 1; }
    cat /tmp/log
}
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMachine]:
    """Debian 12 (CPython 3.11) and 13 (CPython 3.13)."""
    made = FreshMachine(tmp_path_factory.mktemp(request.param) / "root", request.param)
    try:
        made.make()
    except Unavailable as reason:
        pytest.skip(f"cannot make a fresh machine: {reason}")
    yield made


def test_a_new_user_gets_a_cluster(machine: FreshMachine) -> None:
    """`./k3s server` sets itself up and starts a node that is Ready; it stops in order; uninstall leaves nothing."""
    with machine_lock():
        said = machine.run(
            _SESSION
            + "use() { ./k3s kubectl get nodes; ./k3s kubectl get services -A; }\n"
            + 'session "./k3s server" "the cluster is up"\n'
            + "./k3s uninstall\n"
            + "ls -d /var/lib/rancher /etc/rancher /run/k3s /var/lib/cni 2>&1 || true\n",
            timeout=200,
        )
    node = next(line.split() for line in said.splitlines() if " Ready " in line)
    assert node[2] == "control-plane"
    assert "first use: setting up" in said and "installing system packages" in said
    assert "export KUBECONFIG=/etc/rancher/k3s/k3s.yaml" in said
    assert "second signal" not in said and "ERROR" not in said, said
    assert said.count("No such file or directory") == 4, said
    assert not list(Path("/sys/class/net").glob("cni0"))


def test_a_user_without_root_gets_a_control_plane(machine: FreshMachine) -> None:
    """Without root the reason is told, state and kubeconfig are in the user's home, and kubectl finds them."""
    said = machine.run(
        "id someone >/dev/null 2>&1 || useradd --create-home someone\n./k3s setup\n"
        + "exec setpriv --reuid=someone --regid=someone --clear-groups env HOME=/home/someone sh -euc \"$(cat <<'END'\n"
        + _SESSION.replace("/tmp/log", "/home/someone/log")
        + "use() { ./k3s kubectl get namespaces; ls ~/.rancher/k3s/server/token ~/.kube/k3s.yaml; }\n"
        + 'session "./k3s server --https-listen-port=16443" "the control plane is up"\n'
        + './k3s uninstall || echo refused\nEND\n)"\n'
    )
    assert "not root: only the control plane is started" in said
    assert "kube-system" in said
    assert "/home/someone/.rancher/k3s/server/token" in said
    assert "/home/someone/.kube/k3s.yaml" in said
    assert "run it as root\nrefused" in said
