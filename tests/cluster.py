"""A whole cluster on this machine for tests: `./k3s server` with everything below one folder, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import pty
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from k3s.kubelet import oci
from k3s.run.removal import remove

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ROOT / ".venv" / "clients"
CURRENT = ROOT / ".venv" / "bin" / "kubectl"
BUSYBOX = "docker.io/library/busybox:1"
# Only one node can run on a machine: whoever starts one holds this lock.
_LOCK = Path(tempfile.gettempdir()) / "k3s-node.lock"
# What a node makes outside of its data folder.
_NODE_FILES = (Path("/var/lib/kubelet"), Path("/var/log/pods"), Path("/var/log/containers"), Path("/etc/rancher/node"))
_START_S = 90.0


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """Waits until no other test runs a node on this machine, and keeps others away."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class Kubectl:
    """One kubectl with a home of its own; commands fail the test that sent them unless it expects a failure."""

    def __init__(self, program: Path, version: str, home: Path, kubeconfig: Path, namespace: str = "default") -> None:
        self.program = program
        self.version = version
        self.minor = int(version.split(".")[1])
        self.namespace = namespace
        self._home = home
        self._env = {
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
        }

    def within(self, namespace: str) -> Kubectl:
        """The same program and home, for another namespace."""
        return Kubectl(self.program, self.version, self._home, Path(self._env["KUBECONFIG"]), namespace)

    def command(self, *args: str) -> list[str]:
        """The command line."""
        return [str(self.program), f"--namespace={self.namespace}", *args]

    def run(
        self,
        *args: str,
        input: str | bytes | None = None,
        code: int | None = 0,
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs to the end; asserts the exit code (None: any)."""
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            self.command(*args),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=timeout,
            env={**self._env, **(env or {})},
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if code is not None:
            assert done.returncode == code, f"kubectl {self.version} {args}: exit {done.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def __call__(self, *args: str, **options: Any) -> str:
        """The standard output of a command that succeeds."""
        return self.run(*args, **options).stdout

    def apply(self, *things: dict[str, Any]) -> str:
        """Applies objects."""
        return self("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}))

    def get(self, *args: str) -> Any:
        """An object or a list, decoded."""
        return json.loads(self("get", *args, "-o", "json"))

    def start(self, *args: str) -> Started:
        """Starts a command that goes on."""
        return Started(self.command(*args), self._env)

    def until(self, *args: str, wanted: Callable[[str], bool], timeout: float = 60) -> str:
        """Follows `get --watch` with these arguments until a line is as wanted; that line."""
        with self.start("get", "--watch", *args) as watching:
            return watching.line(wanted, timeout)

    def on_terminal(self, *args: str, typed: Sequence[tuple[str, str]], timeout: float = 30) -> tuple[int, str]:
        """Runs on a terminal of 100x40; waits for each text of `typed` to appear before it types the other one."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))
        process = subprocess.Popen(
            self.command(*args), stdin=slave, stdout=slave, stderr=slave, env=self._env, start_new_session=True
        )
        os.close(slave)
        shown = ""
        left = list(typed)
        try:
            while select.select([master], [], [], timeout)[0]:
                try:
                    data = os.read(master, 4096)
                except OSError:
                    break
                if not data:
                    break
                shown += data.decode(errors="replace")
                if left and left[0][0] in shown:
                    os.write(master, left.pop(0)[1].encode())
            return process.wait(timeout), shown
        finally:
            process.kill()
            process.wait()
            os.close(master)


class Started:
    """A command that runs beside the test; its output is read line by line."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
        )
        self.seen: list[str] = []

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self, wanted: Callable[[str], bool], timeout: float = 30) -> str:
        """The next line of the output that is as wanted; fails the test when the output ends or time is over."""
        assert self._process.stdout is not None
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        try:
            for raw in self._process.stdout:
                text = raw.decode(errors="replace").rstrip("\n")
                self.seen.append(text)
                if wanted(text):
                    return text
        finally:
            timer.cancel()
        raise AssertionError(f"{self._process.args}: no such line within {timeout}s\n" + "\n".join(self.seen[-50:]))

    def type(self, text: str) -> None:
        """Writes to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def interrupt(self) -> int:
        """Sends what Ctrl-C sends; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(20)

    def rest(self, timeout: float = 30) -> list[str]:
        """Waits for its own end; every line that was not read yet."""
        assert self._process.stdout is not None
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        try:
            return self._process.stdout.read().decode(errors="replace").splitlines()
        finally:
            timer.cancel()


class Cluster:
    """`./k3s server` below `folder`, or the server of another k3s."""

    def __init__(self, folder: Path, program: Sequence[str] = ("./k3s",), options: Sequence[str] = ()) -> None:
        self.folder = folder
        self._program, self._options = program, options
        self.data_dir = folder / "data"
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.port = _free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._before: set[Path] = set()

    def prepare(self, archives: Mapping[str, bytes] | None = None) -> None:
        """Takes the machine and puts archives of images (else the test image) where the node imports them from."""
        self._lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        assert not Path("/run/k3s/containerd/containerd.sock").exists(), "a k3s node runs on this machine: stop it"
        self._before = {path for path in _NODE_FILES if path.exists()}
        images = self.data_dir / "agent" / "images"
        images.mkdir(parents=True)
        for name, content in (archives or {"busybox.tar": _busybox()}).items():
            (images / name).write_bytes(content)

    def start(self) -> None:
        """Starts the server and waits until it says that the cluster is up."""
        # A test run that is killed takes its cluster with it.
        command = ["setpriv", "--pdeathsig", "TERM", *self._program, "server", f"--data-dir={self.data_dir}"]
        command += [f"--https-listen-port={self.port}"]
        command += [f"--write-kubeconfig={self.kubeconfig}", *self._options]
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        assert self._says("the cluster is up", began), (
            f"the server did not start:\n{self.log.read_text()[began:][-8000:]}"
        )

    def _says(self, wanted: str, began: int) -> bool:
        """Reads the server's log from a position on until a line holds `wanted`; False when time is over or it ends."""
        process = self._process
        assert process is not None
        command = ["tail", f"-c+{began + 1}", "-F", "-s0.05", str(self.log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:

            def give_up() -> None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_START_S)
                tail.kill()

            threading.Thread(target=give_up, daemon=True).start()
            assert tail.stdout is not None
            found = any(wanted.encode() in line for line in tail.stdout)
            tail.kill()
            return found

    def stop(self) -> None:
        """Stops the server in order, as systemd would; containers go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        assert code == 0, f"the server ended with {code}:\n{self.log.read_text()[-4000:]}"
        self._process = None

    def kubectl(self, version: str = "", namespace: str = "default") -> Kubectl:
        """A kubectl of this version (such as 1.24); the current one without."""
        program = CLIENTS / f"kubectl-{version}" if version else CURRENT
        home = self.folder / f"home-{version or 'current'}"
        home.mkdir(exist_ok=True)
        return Kubectl(program, version or "1.37", home, self.kubeconfig, namespace)

    def remove(self) -> None:
        """Stops what runs and removes every trace, as `k3s uninstall` does."""
        try:
            if self._process is not None:
                self._process.terminate()
                try:
                    self._process.wait(60)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            list(remove(self.data_dir, keep_data=True))
            for path in set(_NODE_FILES) - self._before:
                shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(self.data_dir)
        finally:
            if self._lock is not None:
                os.close(self._lock)


def remains(folder: Path) -> list[str]:
    """What a removed node has left behind: mounts, links, namespaces, packet rules, processes, cgroups."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left = [line for line in mounts if str(folder) in line or " /run/k3s/" in line]
    left += [link for link in ("cni0", "k3s-dns") if Path("/sys/class/net", link).exists()]
    left += [str(path) for path in Path("/var/lib/cni/results").glob("cbr0-*")]
    left += ["/run/k3s"] if Path("/run/k3s").exists() else []
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    left += [line for line in tables.splitlines() if line.split()[-1] in ("k3s", "k3s-pods")]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "/run/k3s/" in line or str(folder) in line:
                    left.append(line)
    return left


def _busybox() -> bytes:
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    image = oci.busybox(BUSYBOX, Path("/usr/bin/busybox").read_bytes(), applets.stdout.split(), platform.machine())
    return oci.archive(image)


def _free_port() -> int:
    """The usual port, where scanners look, or any other when somebody has it."""
    for port in (6443, 0):
        with socket.socket() as made, contextlib.suppress(OSError):
            made.bind(("0.0.0.0", port))
            return int(made.getsockname()[1])
    raise AssertionError("no port is free")
