"""A cluster to measure: `./k3s server` with everything below a fresh folder, gone afterwards."""

from __future__ import annotations

import base64
import fcntl
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import machine
from k3s.kubelet import oci
from k3s.run.removal import remove

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "docker.io/library/busybox:1"
TOKEN = "bench-token"
#: What is measured: the checkout's own, unless `run.py --k3s` names another.
program = ROOT / "k3s"
# Only one node can run on a machine: whoever starts one holds this lock.
_LOCK = Path(tempfile.gettempdir()) / "k3s-node.lock"
_NODE_FILES = (Path("/var/lib/kubelet"), Path("/var/log/pods"), Path("/var/log/containers"), Path("/etc/rancher/node"))


class Cluster:
    """A server, with or without its node. Use as a context; `start` begins the clock."""

    def __init__(self, node: bool) -> None:
        self.node = node
        self.folder = Path(tempfile.mkdtemp(prefix="k3s-bench-"))
        self.data = self.folder / "data"
        self.kubeconfig = self.folder / "kubeconfig.yaml"
        self.log = self.folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self.began = 0.0

    def __enter__(self) -> Cluster:
        if self.node:
            self._lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._before = {path for path in _NODE_FILES if path.exists()}
            images = self.data / "agent" / "images"
            images.mkdir(parents=True)
            image = oci.busybox(IMAGE, Path("/usr/bin/busybox").read_bytes(), ["sh", "sleep"], platform.machine())
            (images / "busybox.tar").write_bytes(oci.archive(image))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
            if self.node:
                list(remove(self.data, keep_data=True))
                for path in set(_NODE_FILES) - self._before:
                    shutil.rmtree(path, ignore_errors=True)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)

    def start(self) -> None:
        """Starts the server; a user of the token file holds a role with all rights, so that RBAC is on."""
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f"{TOKEN},bench,bench,\n")
        command = [str(program), "server", f"--data-dir={self.data}", f"--https-listen-port={self.port}"]
        command += [f"--write-kubeconfig={self.kubeconfig}", f"--kube-apiserver-arg=token-auth-file={tokens}"]
        command += [] if self.node else ["--disable-agent"]
        with self.log.open("ab") as log:
            self.began = time.monotonic()
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def stop(self) -> None:
        """Stops the server as systemd would."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        """The server process."""
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Raises RuntimeError with the end of the log when the server has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Cannot measure: the server ended\n{self.log.read_text()[-4000:]}")

    def processes(self) -> dict[str, int]:
        """The Python processes by name."""
        return machine.ours(self.pid)

    def admin(self) -> ssl.SSLContext:
        """TLS as the administrator of the kubeconfig. Raises FileNotFoundError before that is written."""
        text = self.kubeconfig.read_text()
        found = [re.search(f"client-{part}-data: *(\\S+)", text) for part in ("certificate", "key")]
        pem = self.folder / "admin.pem"
        pem.write_bytes(b"\n".join(base64.b64decode(match.group(1)) for match in found if match))
        context = unverified()
        context.load_cert_chain(pem)
        return context


def unverified() -> ssl.SSLContext:
    """TLS without a client certificate; whom we talk to is known: we started it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
