"""What long-running commands share: exit codes, signals, readiness, logs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from k3s.cli import process
from k3s.run.config import CannotStart, ConfigError, resolve
from k3s.run.supervisor import ServiceFailed

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (ConfigError("wrong"), 2),
        (CannotStart("taken"), 1),
        (ServiceFailed("broken"), 1),
        (OSError("full"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException | None, code: int) -> None:
    """2 for what a person has to change, 1 for a failure, 130 for Ctrl-C before anything runs."""

    async def main() -> None:
        if error is not None:
            raise error

    assert process.run_or_exit(main, 1e9) == code


def test_a_clock_that_was_never_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Certificates could not be valid: refused at once."""
    with pytest.raises(SystemExit) as ended:
        process.run_or_exit(lambda: asyncio.sleep(0), 100.0)
    assert ended.value.code == 1 and "clock" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(run: Run, number: int) -> None:
    """SIGTERM and Ctrl-C both ask for a stop in order."""

    async def story() -> None:
        stop = process.stop_on_signals()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)

    run(story())


def test_work_that_a_stop_ends(run: Run) -> None:
    """Joining a cluster that does not answer ends with the stop; what was done before it counts as done."""

    async def story() -> None:
        stop = asyncio.Event()
        assert await process.done_before(asyncio.sleep(0), stop)
        with pytest.raises(ConfigError):
            await process.done_before(_fails(), stop)
        stop.set()
        assert not await process.done_before(asyncio.sleep(3600), stop)

    run(story())


async def _fails() -> None:
    raise ConfigError("no")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    """READY=1 arrives at NOTIFY_SOCKET, a path or an abstract name; programs started from here do not get it."""
    name = f"@k3s-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        process.notifier({})()
        env = {"NOTIFY_SOCKET": name, "HOME": "/root"}
        tell = process.notifier(env)
        assert env == {"HOME": "/root"}
        tell()
        assert systemd.recv(100) == b"READY=1"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("args", "level"), [((), logging.INFO), (("--debug",), logging.DEBUG), (("-v=4",), logging.DEBUG), (("-v=2",), 20)]
)
def test_log_level(root_logger: logging.Logger, args: tuple[str, ...], level: int) -> None:
    """--debug and -v from 4 on show what developers want."""
    process.log_to(resolve("server", ["--config=/dev/null", *args], {}))
    assert root_logger.level == level


def test_log_file(root_logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--log writes to a file only; with --alsologtostderr to standard error, too; --log-format=json is JSON."""
    path = tmp_path / "k3s.log"
    flags = ["--config=/dev/null", f"--log={path}", "--log-format=json"]
    process.log_to(resolve("server", flags, {}))
    logging.getLogger("k3s.test").warning("first")
    assert capsys.readouterr().err == ""
    process.log_to(resolve("server", [*flags, "--alsologtostderr"], {}))
    logging.getLogger("k3s.test").warning("second")
    shown = capsys.readouterr().err
    assert "second" in shown and "first" not in shown
    lines = path.read_text().splitlines()
    assert '"first"' in lines[0] and all(line.startswith("{") for line in lines)
