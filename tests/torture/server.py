"""A control plane that may be killed, stopped in its tracks, and started again on the same data."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import ROOT

from k3s.client.client import Client
from k3s.client.https import CONNECTIONS, HttpsTransport
from k3s.client.tls import Credentials

TOKEN = "torture-token"
_READY_S = 60.0


class Server:
    """`./k3s server --disable-agent` with everything below `folder`, unless its data is elsewhere."""

    def __init__(self, folder: Path, data: Path, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = data
        self.log = folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._args = args
        self._env = dict(env or os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self.lives = 0
        (folder / "tokens.csv").write_text(f'{TOKEN},torture,torture,"system:masters"\n')

    @property
    def database(self) -> Path:
        """The datastore's file."""
        return self.data / "server" / "db" / "state.db"

    @property
    def pid(self) -> int:
        """The server process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts and waits until it says that it is ready."""
        self.lives += 1
        command = ["setpriv", "--pdeathsig", "KILL", "./k3s", "server", "--config=/dev/null", "--disable-agent"]
        command += [f"--data-dir={self.data}", f"--https-listen-port={self.port}"]
        command += [f"--write-kubeconfig={self.folder / 'admin.yaml'}"]
        command += [f"--kube-apiserver-arg=token-auth-file={self.folder / 'tokens.csv'}", *self._args]
        told = self.folder / "notify"
        told.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, self.log.open("ab") as log:
            systemd.bind(str(told))
            systemd.setblocking(False)
            env = {**self._env, "NOTIFY_SOCKET": str(told)}
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)  # noqa: ASYNC220
            try:
                async with asyncio.timeout(_READY_S):
                    assert await asyncio.get_running_loop().sock_recv(systemd, 100) == b"READY=1"
            except TimeoutError:
                raise AssertionError(f"the server did not start:\n{self.log.read_text()[-4000:]}") from None

    def kill(self) -> None:
        """Ends it without asking."""
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended by itself:\n{self.log.read_text()[-4000:]}"
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stops it in its tracks."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stops it in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def remove(self) -> None:
        """Ends it however it is."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def transport(self, connections: int = CONNECTIONS) -> HttpsTransport:
        """A way to it of one's own."""
        authority = str(self.data / "server" / "tls" / "server-ca.crt")
        trust = Credentials(ca_file=authority)
        url = f"https://127.0.0.1:{self.port}"
        return HttpsTransport(url, trust, token=TOKEN, request_s=20.0, connections=connections)

    def client(self) -> Client:
        """A client with all rights."""
        return Client(self.transport())
