"""The API server against recorded answers of upstream, request by request: a ratchet over the scenarios that differ.

The recordings are no part of this repository; where their folder is absent (`K3S_TRANSCRIPTS` names another), the test
is skipped. `known.txt` beside this file lists the scenarios that still differ; it may only shrink.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import ROOT

FOLDER = Path(os.environ.get("K3S_TRANSCRIPTS") or ROOT.parent / "shared" / "transcripts")
KNOWN = Path(__file__).with_name("known.txt")
_USERS = 'admintok,admin,admin-uid,"system:masters"\nalicetok,alice,alice-uid\nbobtok,bob,bob-uid,"devs"\n'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (FOLDER / "replay.py").exists(), reason=f"no recordings in {FOLDER}; set K3S_TRANSCRIPTS"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A control plane in which nothing but the API server writes: its port and its data folder."""
    folder = tmp_path_factory.mktemp("transcripts")
    (folder / "users.csv").write_text(_USERS)
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = int(made.getsockname()[1])
    command = [
        *("./k3s", "server", "--config=/dev/null"),
        *("--disable-agent", "--disable-scheduler", "--disable-controller-manager"),
        *("--kube-apiserver-arg=anonymous-auth=true", f"--kube-apiserver-arg=token-auth-file={folder / 'users.csv'}"),
        *(f"--data-dir={folder / 'data'}", f"--write-kubeconfig={folder / 'admin.yaml'}"),
        f"--https-listen-port={port}",
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, (folder / "log").open("wb") as log:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(60)
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)
        try:
            assert systemd.recv(100) == b"READY=1"
            yield port, folder / "data"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def replayed(port: int, data: Path) -> dict[str, str]:
    """`file/scenario` -> its differences, empty where there are none."""
    command = [
        *(sys.executable, str(FOLDER / "replay.py"), f"--server=https://127.0.0.1:{port}"),
        f"--ca={data / 'server/tls/server-ca.crt'}",
        *("--token-admin=admintok", "--token-alice=alicetok", "--token-bob=bobtok"),
        str(FOLDER),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    found: dict[str, str] = {}
    name = ""
    for line in done.stdout.splitlines():
        word, _, title = line.partition(" ")
        if word in ("pass", "FAIL"):
            name = title
            found[name] = ""
        elif line.startswith("  "):
            found[name] += line + "\n"
    assert found, done.stderr
    return found


def test_answers_are_those_of_upstream(server: tuple[int, Path]) -> None:
    """No scenario differs that did not before, and none of the known ones has come right without leaving the list."""
    known = {line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")}
    found = replayed(*server)
    new = {name: lines for name, lines in found.items() if lines and name not in known}
    right = sorted(name for name in known if not found.get(name))
    assert not new, "these differ from upstream now:\n" + "\n".join(f"{name}\n{lines}" for name, lines in new.items())
    assert not right, "these are as upstream's now (or gone): take them off the list:\n" + "\n".join(right)
