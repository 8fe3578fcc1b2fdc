"""A server's life on a real machine: stops, kills, restarts, removal. Containers outlive all but the last."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import ROOT, Cluster, remains
from tests.e2e.objects import pod

# Waiting for another test's node may take longer than a test.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

_ETC = Path("/etc/rancher")
# A container is known by what it runs.
_MARK = "k3s-test-of-life"
_SCRIPT = f": {_MARK}; trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done"


class Machine(Cluster):
    """A cluster whose processes can be looked at."""

    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def agent(self) -> int:
        """The agent's process."""
        return _processes(f"--data-dir={self.data_dir}", "agent")[0]

    def engine(self) -> int:
        """containerd's process."""
        return _processes(f"{self.data_dir}/agent/etc/containerd/config.toml")[0]

    def lost(self) -> int:
        """Takes note that the server has ended; its exit code."""
        assert self._process is not None
        code = self._process.wait(30)
        self._process = None
        return code

    def says(self, wanted: str, began: int) -> bool:
        """Waits until the log says so after a position."""
        return self._says(wanted, began)


def _processes(*wanted: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if all(word in words for word in wanted):
                found.append(int(entry.name))
    return found


def _container() -> int:
    """The process of the test's container."""
    return _processes(_SCRIPT)[0]


def _gone(pid: int, within_s: float) -> bool:
    """Waits for the end of a process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A cluster with one pod; removed at the end whatever happened."""
    made = Machine(tmp_path_factory.mktemp("life"))
    made.prepare()
    # Removal takes this folder; what somebody has in it comes back.
    kept = made.folder / "rancher"
    if _ETC.exists():
        shutil.move(_ETC, kept)
    try:
        made.start()
        kubectl = made.kubectl()
        kubectl("wait", "--for=create", "serviceaccount/default")
        port = {"ports": [{"containerPort": 80, "hostPort": 18080}]}
        kubectl.apply(pod("life", _SCRIPT, container=port))
        kubectl("wait", "--for=condition=Ready", "pod/life", "--timeout=60s")
        yield made
    finally:
        made.data_dir.mkdir(exist_ok=True)
        made.remove()
        if kept.exists():
            shutil.rmtree(_ETC, ignore_errors=True)
            shutil.move(kept, _ETC)


def _still_there(machine: Machine, container: int) -> None:
    assert _container() == container
    kubectl = machine.kubectl()
    kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
    status = kubectl.get("pod", "life")["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0 and "running" in status["state"]


def test_the_servers_node_has_its_role(machine: Machine) -> None:
    """`kubectl get nodes` shows who runs the control plane."""
    kubectl = machine.kubectl()
    kubectl("wait", "--for=jsonpath={.metadata.labels.node-role\\.kubernetes\\.io/control-plane}=true", "node", "--all")
    assert kubectl("get", "nodes", "--no-headers").split()[2] == "control-plane"


def test_crictl_finds_this_nodes_runtime(machine: Machine) -> None:
    """By the data folder, whose settings the agent has written for root alone."""
    assert (machine.data_dir / "agent/etc/crictl.yaml").stat().st_mode & 0o777 == 0o600
    command = ["./k3s", "--data-dir", str(machine.data_dir), "crictl", "ps", "--label=io.kubernetes.pod.name=life"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1].split()[-2:] == ["life", "default"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_and_start(machine: Machine, number: int) -> None:
    """A stop ends server, agent and containerd within seconds and in order; the next start finds the container."""
    container, agent, engine = _container(), machine.agent(), machine.engine()
    began = machine.log.stat().st_size
    os.kill(machine.pid(), number)
    assert machine.lost() == 0
    assert _gone(agent, 0.0) and _gone(engine, 0.0) and _container() == container
    said = machine.log.read_text()[began:]
    assert "second signal" not in said and "ERROR" not in said, said
    machine.start()
    _still_there(machine, container)


def test_server_killed(machine: Machine) -> None:
    """Nothing of the node but its containers outlives a server that was killed."""
    container, agent, engine = _container(), machine.agent(), machine.engine()
    os.kill(machine.pid(), signal.SIGKILL)
    assert machine.lost() == -signal.SIGKILL
    assert _gone(agent, 15) and _gone(engine, 15)
    machine.start()
    _still_there(machine, container)


def test_agent_killed(machine: Machine) -> None:
    """The server starts its agent again."""
    container, agent, engine = _container(), machine.agent(), machine.engine()
    began = machine.log.stat().st_size
    os.kill(agent, signal.SIGKILL)
    assert _gone(engine, 15)
    assert machine.says("The node is ready", began)
    assert machine.agent() != agent
    _still_there(machine, container)


def test_two_signals(machine: Machine) -> None:
    """The second signal ends the server at once; agent and containerd follow, containers stay."""
    container, agent, engine = _container(), machine.agent(), machine.engine()
    os.kill(machine.pid(), signal.SIGTERM)
    os.kill(machine.pid(), signal.SIGINT)
    assert machine.lost() in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert _gone(agent, 15) and _gone(engine, 15)
    machine.start()
    _still_there(machine, container)


def _state(uid: str) -> dict[str, list[str]]:
    """What a node with this pod leaves on a machine, and others may have, too."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout.splitlines()
    groups = subprocess.run(["find", "/sys/fs/cgroup", "-name", f"*{uid}*"], capture_output=True, text=True, check=True)
    files = (_ETC, Path("/run/k3s"), Path("/var/log/pods"), Path("/var/log/containers"))
    return {
        "rules": [line for line in rules if "cbr0" in line or "10.42." in line or "KUBE-" in line],
        "cgroups": groups.stdout.split(),
        "files": [str(path) for path in files if path.exists()],
    }


def test_uninstall(machine: Machine) -> None:
    """Refused while the server runs; afterwards nothing of k3s is left, and what belongs to others is."""
    command = ["./k3s", "uninstall", f"--data-dir={machine.data_dir}"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "still runs" in refused.stderr
    container, uid = _container(), machine.kubectl().get("pod", "life")["metadata"]["uid"]
    machine.stop()
    assert all(_state(uid).values()) and _container() == container
    shell = "exec -a containerd-inside sh -c 'echo up; sleep 3600; :' /run/k3s/containerd/containerd.sock"
    inside = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "bash", "-c", shell], stdout=subprocess.PIPE
    )
    assert inside.stdout is not None and inside.stdout.readline() == b"up\n"
    other = subprocess.Popen(["containerd-shim-of-others", "3600"], executable="/bin/sleep")
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "stopping containers" in done.stdout
        assert _gone(container, 0.0) and other.poll() is None and inside.poll() is None
    finally:
        for process in (other, inside):
            process.kill()
            process.communicate()
    assert _state(uid) == {"rules": [], "cgroups": [], "files": []}
    assert remains(machine.data_dir) == []
    assert not machine.data_dir.exists()
