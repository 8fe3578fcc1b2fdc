"""What the long-running personalities share: settings or a refusal, logging, signals, event loop, exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from typing import Any

from k3s.base import log as logs
from k3s.base.aio import Tasks
from k3s.cli.main import fail
from k3s.run.config import CannotStart, ConfigError, HelpWanted, Settings, resolve
from k3s.run.options import help_text

log = logging.getLogger(__name__)

_LOG_BYTES, _LOG_FILES = 50 * 1024 * 1024, 3
# Nothing before this was signed: a clock that is behind it makes every certificate invalid (spec 1.2).
_EARLIEST = 315532800.0
# New containers before cycles among them are looked for. Objects here are trees that die by their reference count;
# looking as often as usual costs a tenth of the CPU of a write.
_YOUNG = (10_000, 20, 20)


def settings_or_exit(personality: str, args: Sequence[str]) -> Settings:
    """The settings; prints help or the refusal and ends the process otherwise."""
    try:
        settings = resolve(personality, args, os.environ)
    except HelpWanted:
        print(help_text(personality), end="")
        sys.exit(0)
    except ConfigError as error:
        fail(str(error))
    log_to(settings)
    return settings


def log_to(settings: Settings) -> None:
    """Sets up logging as the settings say."""
    debug = settings.switch("debug") or settings.number("v") >= 4
    logs.setup(logging.DEBUG if debug else logging.INFO, settings.text("log-format"))
    path = settings.text("log")
    if not path:
        return
    root = logging.getLogger()
    try:
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
    except OSError as error:
        fail(f"Wrong value {path!r} for --log: {error.strerror}; name a file that may be written")
    handler.setFormatter(root.handlers[0].formatter)
    if not settings.switch("alsologtostderr"):
        root.handlers.clear()
    root.addHandler(handler)


def run_or_exit(main: Callable[[], Coroutine[Any, Any, None]], now: float) -> int:
    """Runs a personality's coroutine to its end; the exit code: 0 in order, 1 for a failure, 2 for a wrong setting."""
    if now < _EARLIEST:
        fail("The clock of this machine is before 1980: set it, or every certificate is invalid", 1)
    import uvloop

    from k3s.run.supervisor import ServiceFailed

    gc.freeze()  # modules and classes stay: nobody has to look at them again
    gc.set_threshold(*_YOUNG)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except ConfigError as error:
        print(f"k3s: {error}", file=sys.stderr)
        return 2
    except CannotStart as error:
        print(f"k3s: {error}", file=sys.stderr)
        return 1
    except ServiceFailed as error:
        log.error("Stopped: %s", error)
        return 1
    except OSError as error:
        log.error("Cannot go on: %s", error)
        return 1
    except KeyboardInterrupt:  # before stop_on_signals: nothing runs yet that has to be stopped in order
        return 128 + signal.SIGINT
    return 0


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; the second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            log.warning("Stopped at once, by a second signal")
            os._exit(128 + number)
        log.info("Stopping")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


async def done_before(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Does `work`, ended when `stop` is set; True when it was done. Raises what it raises."""
    task, tasks = asyncio.current_task(), Tasks("stop")
    assert task is not None

    async def interrupt() -> None:
        await stop.wait()
        task.cancel()

    tasks.spawn(interrupt(), "interrupt")
    try:
        try:
            await work
        finally:
            await tasks.close()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        task.uncancel()
        return False
    return True


def notifier(env: MutableMapping[str, str]) -> Callable[[], None]:
    """What tells systemd (Type=notify) that the service is up; it does nothing elsewhere.

    Takes the address out of `env`: what this process starts is not the service and must not tell for it.
    """
    address = env.pop("NOTIFY_SOCKET", "")

    def tell() -> None:
        if not address:
            return
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)

    return tell
