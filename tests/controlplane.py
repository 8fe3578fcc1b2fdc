"""`./k3s server --disable-agent` as a process, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.cluster import ROOT


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def flags_of(folder: Path, port: int) -> list[str]:
    """The command of a control plane below a folder."""
    return [
        "./k3s",
        "server",
        "--config=/dev/null",
        "--disable-agent",
        f"--data-dir={folder / 'data'}",
        "--bind-address=127.0.0.1",
        f"--https-listen-port={port}",
        f"--write-kubeconfig={folder / 'admin.yaml'}",
    ]


class Server:
    """A control plane that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        """Waits for READY=1, as systemd does."""
        notify = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(notify))
            systemd.settimeout(60)
            with (self.folder / "log").open("wb") as log:
                env = {**os.environ, "NOTIFY_SOCKET": str(notify)}
                # Ends with us, whatever becomes of the test.
                command = ["setpriv", "--pdeathsig", "KILL", *flags_of(self.folder, self.port), *flags]
                self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)
            assert systemd.recv(100) == b"READY=1"
        notify.unlink()

    def stop(self) -> int:
        """Asks for the end and waits for it; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def kubectl(self, *args: str, input: str = "") -> str:
        """What kubectl prints."""
        command = [ROOT / ".venv" / "bin" / "kubectl", f"--kubeconfig={self.folder / 'admin.yaml'}", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, input=input).stdout
