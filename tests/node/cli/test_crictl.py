"""crictl against a real containerd: every verb, by the words a person types."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import platform
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.containers import BUSYBOX, containerd
from tests.registry import Registry

from k3s.cli.crictl import command
from k3s.kubelet import oci

pytestmark = [pytest.mark.root, pytest.mark.slow]

_ID = re.compile(r"[0-9a-f]{64}")


class Node:
    """A runtime, and crictl pointed at it."""

    def __init__(self, folder: Path, socket: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.socket, self._capture = folder, socket, capture
        self.env = {"CONTAINER_RUNTIME_ENDPOINT": f"unix://{socket}", "HOME": str(folder)}

    def run(self, *words: str, code: int = 0) -> str:
        """What it prints; the exit code has to be as expected."""
        found = command.main(words, self.env)
        out, err = self._capture.readouterr()
        assert found == code, err
        return out if code == 0 else err

    def spawn(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """crictl in a process of its own."""
        program = [sys.executable, "-m", "k3s", "crictl", *words]
        return subprocess.Popen(program, env={**os.environ, **self.env}, **more)

    def pod(self, name: str) -> tuple[str, Path]:
        """A pod that runs, and the file of its configuration."""
        path = self.folder / f"{name}.yaml"
        config = {
            "metadata": {"name": name, "namespace": "testing", "attempt": 1},
            "labels": {"app": name, "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "testing"},
            "log_directory": str(self.folder / "logs" / name),
            "linux": {},
        }
        path.write_text(yaml.safe_dump(config))
        return self.run("runp", str(path)).strip(), path

    def config(self, name: str, *words: str, **more: Any) -> Path:
        """The file of a container's configuration."""
        labels = {"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "testing", "role": name}
        config = {
            "metadata": {"name": name},
            "image": {"image": BUSYBOX},
            "command": list(words),
            "labels": labels,
            "log_path": f"{name}.log",
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
            **more,
        }
        path = self.folder / f"container-{name}.json"
        path.write_text(json.dumps(config))
        return path

    def container(self, pod: str, path: Path, name: str, *words: str, **more: Any) -> str:
        """A container that was created and started."""
        made = self.run("create", pod, str(self.config(name, *words, **more)), str(path)).strip()
        assert self.run("start", made) == f"{made}\n"
        return made


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a containerd of its own, which lives in another thread's event loop."""
    folder = tmp_path_factory.mktemp("containerd")
    started: list[Path] = []
    failed: list[BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with containerd(folder) as running:
            started.append(running.config.socket)
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, over.wait)

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told in the tests' own thread
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    yield started[0]
    over.set()
    thread.join()
    if failed:
        raise failed[0]


@pytest.fixture
def node(runtime: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Node]:
    """crictl, and no pods left afterwards."""
    made = Node(tmp_path, runtime, capfd)
    yield made
    made.run("rmp", "-fa")


def test_a_pod_and_its_containers(node: Node) -> None:
    """They are made of files, listed, chosen by flags, stopped and removed; what runs is removed by force alone."""
    pod, path = node.pod("web")
    assert _ID.fullmatch(pod)
    main = node.container(pod, path, "main", "sleep", "1000")
    side = node.container(pod, path, "side", "sh", "-c", "exit 3")
    assert node.run("logs", "-f", side) == ""  # until it has ended
    pods = node.run("pods").splitlines()
    assert pods[0].split() == ["POD", "ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]
    assert re.split(r"\s{3,}", pods[1])[2:] == ["Ready", "web", "testing", "1", "(default)"]
    assert pods[1].startswith(pod[:13] + " ")
    assert node.run("pods", "-q", "--name", "^we", "--label", "app=web", "--state", "Ready") == f"{pod}\n"
    assert node.run("pods", "-q", "--namespace", "other") == ""
    listed = node.run("ps").splitlines()
    assert len(listed) == 2
    assert re.split(r"\s{3,}", listed[1])[3:] == ["Running", "main", "0", pod[:13], "web", "testing"]
    assert node.run("ps", "-aq", "--label", "role=side", "--pod", pod[:13]) == f"{side}\n"
    assert node.run("ps", "-ql") == f"{side}\n"
    assert set(node.run("ps", "-aq", "--image", "busybox:1").split()) == {main, side}
    assert BUSYBOX in node.run("ps", "-r")
    assert f"PodID: {pod}\n" in node.run("ps", "-v")
    assert [item["id"] for item in json.loads(node.run("ps", "-o", "json"))["containers"]] == [main]
    assert yaml.safe_load(node.run("pods", "-o", "yaml"))["items"][0]["metadata"]["name"] == "web"
    assert f'container \\"{main}\\" is running, please stop it first' in node.run("rm", main, code=1)
    assert f'pod sandbox \\"{pod}\\" is running, please stop it first' in node.run("rmp", pod, code=1)
    assert node.run("stop", main) == f"{main}\n"
    assert set(node.run("rm", main, side[:13]).split()) == {main, side[:13]}
    assert not (node.folder / "logs/web/main.log").exists()
    assert node.run("stopp", pod) == f"Stopped sandbox {pod}\n"
    assert node.run("rmp", pod) == f"Removed sandbox {pod}\n"
    assert node.run("pods", "-q") == ""


def test_run_does_it_all(node: Node) -> None:
    """One verb for a pod with a container; with an image that is not there nothing is hidden."""
    pod = node.pod("first")[1]
    node.run("rmp", "-af")
    made = node.run("run", "--no-pull", str(node.config("main", "sleep", "1000")), str(pod)).strip()
    assert _ID.fullmatch(made)
    assert made in node.run("ps", "--no-trunc")
    assert node.run("stop", "-a") == f"{made}\n"
    assert node.run("stop", "--all") == "No running containers found.\n"
    assert node.run("rm", "-a") == f"{made}\n"
    missing = node.config("other", "true", image={"image": "registry.invalid/none:1"})
    assert "code = " in node.run("create", node.run("pods", "-q").strip(), str(missing), str(pod), code=1)


def test_inspecting(node: Node) -> None:
    """Statuses with what the runtime tells beside, in every format."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "sleep", "1000")
    told = json.loads(node.run("inspect", made))
    assert told["status"]["id"] == made and told["status"]["state"] == "CONTAINER_RUNNING"
    assert told["status"]["finishedAt"] == "0001-01-01T00:00:00Z" and told["info"]["pid"] > 0
    assert told["status"]["metadata"] == {"attempt": 0, "name": "main"}
    template = "{{.status.metadata.name}} {{range $k, $v := .status.labels}}{{if eq $k `role`}}{{$v}}{{end}}{{end}}"
    assert node.run("inspect", "-o", "go-template", "--template", template, made) == "main main\n"
    assert "State: CONTAINER_RUNNING\n" in node.run("inspect", "-o", "table", "--name", "main")
    assert "info" not in yaml.safe_load(node.run("inspect", "-q", "-o", "yaml", made))
    told = json.loads(node.run("inspectp", pod))
    assert told["status"]["network"]["ip"] and told["status"]["state"] == "SANDBOX_READY"
    assert "IP Addresses: " in node.run("inspectp", "-o", "table", pod)
    told = json.loads(node.run("inspecti", BUSYBOX))
    assert BUSYBOX in told["status"]["repoTags"] and "imageSpec" in told["info"]
    assert "no such image" in node.run("inspecti", "none", code=1)
    refused = node.run("inspect", "none", code=1)
    assert "rpc error: code = NotFound desc = " in refused and "level=fatal" in refused


def test_exec(node: Node) -> None:
    """A command's output, input and exit code come through, at once and as streams."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "sleep", "1000")
    assert node.run("exec", "-s", made, "echo", "-n", "hi") == "hi"
    assert node.run("exec", made[:13], "sh", "-c", "echo $0 $1", "a", "-b") == "a -b\n"
    assert "exit code 3" in node.run("exec", made, "sh", "-c", "exit 3", code=3)
    assert "exit code 4" in node.run("exec", "--sync", made, "sh", "-c", "exit 4", code=4)
    assert node.run("exec", "-e", made, "false") == ""
    assert node.run("exec", "--name", "main", "echo", "x") == f"{made}:\nx\n"
    process = node.spawn("exec", "-i", made, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"one\ntwo\n" * 20000, timeout=30)[0] == b"one\ntwo\n" * 20000
    assert process.returncode == 0
    file = node.folder / "input"
    file.write_bytes(b"from a file\n")
    with file.open("rb") as stdin:
        process = node.spawn("exec", "-i", made, "cat", stdin=stdin, stdout=subprocess.PIPE)
        assert process.communicate(timeout=30)[0] == b"from a file\n"
    assert "tty=true must be specified" in node.run("exec", "-t", made, "true", code=1)


def _until(descriptor: int, wanted: bytes, seen: bytes = b"") -> bytes:
    while wanted not in seen:
        assert select.select([descriptor], [], [], 30)[0], seen
        seen += os.read(descriptor, 4096)
    return seen


def test_exec_in_a_terminal(node: Node) -> None:
    """A shell in a terminal has its size, echoes, and is left with Ctrl-P Ctrl-Q."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "sleep", "1000")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    process = node.spawn("exec", "-it", made, "sh", stdin=theirs, stdout=theirs, stderr=theirs)
    _until(ours, b"#")
    os.write(ours, b"echo $((40+2))\n")
    _until(ours, b"42")
    os.write(ours, b"exit 7\n")
    assert process.wait(timeout=30) == 7
    words = ("exec", "-it", made, "sh", "-c", "echo ready; exec cat")
    process = node.spawn(*words, stdin=theirs, stdout=theirs, stderr=theirs)
    _until(ours, b"ready")
    os.write(ours, b"typed\n")
    _until(ours, b"typed\r\ntyped")
    os.write(ours, b"\x10\x11")
    assert process.wait(timeout=30) == 0
    os.close(ours)
    os.close(theirs)


def test_attach(node: Node) -> None:
    """Joins the streams of what runs."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "cat", stdin=True, stdin_once=True)
    process = node.spawn("attach", "-i", made, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"through\n", timeout=30)[0] == b"through\n"


def test_logs(node: Node) -> None:
    """Each stream to its own, the last lines, times; following ends with the container."""
    pod, path = node.pod("web")
    wait = "until test -e /{0}; do sleep 0.05; done"
    script = f"echo one; echo two >&2; {wait.format(3)}; echo three; {wait.format(4)}; echo four"
    made = node.container(pod, path, "main", "sh", "-c", script)
    process = node.spawn("logs", "-f", made, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    other = node.spawn("logs", "-f", made, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"one\n"
    other.send_signal(signal.SIGINT)
    assert (other.communicate(timeout=30)[0], other.returncode) == (b"", 0)
    assert (process.stdout.readline(), process.stderr.readline()) == (b"one\n", b"two\n")
    node.run("exec", made, "touch", "/3")
    assert process.stdout.readline() == b"three\n"
    assert node.run("logs", "--tail", "1", made) == "three\n"
    assert node.run("logs", made, "--tail=1", "-t").split(" ")[1] == "three\n"
    assert node.run("logs", "--stream", "stdout", "--since", "1h", made) == "one\nthree\n"
    assert node.run("logs", "--since", "2100-01-01", made) == ""
    node.run("exec", made, "touch", "/4")
    assert process.communicate(timeout=30)[0] == b"four\n"
    assert process.returncode == 0
    assert "previous terminated container main not found" in node.run("logs", "-p", made, code=1)
    assert node.run("logs", "-f", made).splitlines()[-1] == "four"


def test_images(node: Node) -> None:
    """Listed, chosen, pruned unless they are in use or pinned, removed by name."""
    head, *rows = node.run("images").splitlines()
    assert head.split() == ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]
    found = next(row for row in rows if row.startswith("docker.io/library/busybox "))
    assert re.fullmatch(r"docker.io/library/busybox +1 +[0-9a-f]{13} +[0-9.]+[kM]B", found)
    assert node.run("images", "-q", "busybox") == node.run("images", "-q", BUSYBOX) != ""
    assert node.run("images", "-q", "none") == ""
    assert "DIGEST" in node.run("images", "--digests", "--pinned") and "PINNED" in node.run("images", "--pinned")
    assert BUSYBOX in json.loads(node.run("images", "-o", "json", "busybox"))["images"][0]["repoTags"]
    assert f"RepoTags: {BUSYBOX}\n" in node.run("images", "-v", "--filter", "dangling=false")
    assert json.loads(node.run("imagefsinfo"))["status"]["imageFilesystems"]
    assert "Mountpoint[0]: /" in node.run("imagefsinfo", "-o", "table")
    assert "no such image none" in node.run("rmi", "none", code=1)
    assert "pulling image: rpc error: code = " in node.run("pull", "--creds", "me:x", "127.0.0.1:1/none", code=1)


def test_pulling(node: Node) -> None:
    """An image of a registry is there afterwards, by its name; again, it is up to date."""
    name = "pulled:1"
    spec = oci.ImageSpec(name, (oci.Entry("file", b"content"),), machine=platform.machine())
    with Registry({name: oci.archive(spec)}) as registry:
        said = node.run("pull", f"{registry.host}/{name}")
        assert re.fullmatch(r"Image is up to date for (\S+@)?sha256:[0-9a-f]{64}\n", said)
        assert node.run("pull", f"{registry.host}/{name}") == said
        assert f"RepoTags: {registry.host}/{name}\n" in node.run("images", "-v")
        assert "code = NotFound" in node.run("pull", f"{registry.host}/other:1", code=1)
        assert f"Deleted: {registry.host}/{name}\n" in node.run("rmi", f"{registry.host}/{name}")


def test_unused_images_go(node: Node) -> None:
    """`rmi --prune` leaves what a container uses."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "sleep", "1000")
    assert node.run("rmi", "--prune") == ""
    assert node.run("images", "-q", BUSYBOX)
    node.run("rm", "-f", made)
    assert node.run("rmi", "--prune") == f"Deleted: {BUSYBOX}\n"
    assert node.run("images", "-q", BUSYBOX) == ""
    asyncio.run(_load(node.socket))


async def _load(path: Path) -> None:
    from tests.containers import busybox

    from k3s.kubelet import images

    await images.Importer(path).load_bytes(busybox())


def test_stats(node: Node) -> None:
    """What runs shows its share of the processor and its memory."""
    pod, path = node.pod("web")
    made = node.container(pod, path, "main", "sh", "-c", "while true; do :; done")
    head, row = node.run("stats", made).splitlines()
    assert head.split() == ["CONTAINER", "NAME", "CPU", "%", "MEM", "DISK", "INODES", "SWAP"]
    assert row.split()[:2] == [made[:13], "main"] and float(row.split()[2]) > 0
    assert json.loads(node.run("stats", "-o", "json"))["stats"][0]["attributes"]["id"] == made
    found = command.main(["statsp", "-o", "json"], node.env)
    assert found in (0, 1)  # an older runtime does not know it
    node.run("update", "--cpu-share", "100", "--memory", "104857600", made)


def test_the_runtime_itself(node: Node) -> None:
    """Its version, status and configuration."""
    lines = node.run("version").splitlines()
    assert [line.split(":  ")[0] for line in lines] == ["Version", "RuntimeName", "RuntimeVersion", "RuntimeApiVersion"]
    assert lines[1] == "RuntimeName:  containerd"
    told = json.loads(node.run("info"))
    assert {"type": "RuntimeReady", "status": True}.items() <= told["status"]["conditions"][0].items()
    assert node.run("info", "-o", "go-template", "--template", "{{len .status.conditions}}") == "2\n"
    node.run("update-runtime-config", "--pod-cidr", "10.9.0.0/24")


def test_ports(node: Node) -> None:
    """A local port leads into the pod, again and again; one that nobody listens on is told."""
    pod, path = node.pod("web")
    node.container(pod, path, "main", "sh", "-c", "echo hello > /index.html; exec httpd -f -p 8080 -h /")
    process = node.spawn("port-forward", pod, ":8080", ":81", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    local = int(process.stdout.readline().split(b" -> ")[0].rpartition(b":")[2])
    other = b""
    while b"-> 81" not in other:
        other = process.stdout.readline()
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", local), timeout=30) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").read().endswith(b"hello\n")
    with socket.create_connection(
        ("127.0.0.1", int(other.split(b" -> ")[0].rpartition(b":")[2])), timeout=30
    ) as nobody:
        assert nobody.recv(1) == b""
    assert b"an error occurred forwarding 81" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=30)
