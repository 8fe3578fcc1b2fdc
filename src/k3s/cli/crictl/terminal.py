"""The person's side of a stream: the standard input in pieces, and the terminal as a program inside expects it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator

_PIECE = 32 * 1024
#: Ctrl-P, Ctrl-Q: leaves the program running and the stream.
DETACH = b"\x10\x11"


async def pieces(descriptor: int) -> AsyncIterator[bytes]:
    """What comes from a file, pipe or terminal, until its end."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or os.path.samestat(os.fstat(descriptor), os.stat(os.devnull)):
        # Always ready, which the event loop's selector does not wait for.
        while data := os.read(descriptor, _PIECE):
            yield data
        return
    loop = asyncio.get_running_loop()
    while True:
        # One piece at a time: whoever types or sends faster than the other side takes has to wait.
        came: asyncio.Future[bytes] = loop.create_future()

        def take(came: asyncio.Future[bytes] = came) -> None:
            loop.remove_reader(descriptor)
            try:
                came.set_result(os.read(descriptor, _PIECE))
            except OSError:  # a terminal that went away
                came.set_result(b"")

        loop.add_reader(descriptor, take)
        try:
            data = await came
        finally:
            loop.remove_reader(descriptor)
        if not data:
            return
        yield data


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the program inside; as before afterwards."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size(descriptor: int) -> bytes:
    """The terminal's size as the stream's protocol sends it."""
    width, height = os.get_terminal_size(descriptor)
    return json.dumps({"Width": width, "Height": height}).encode()


@contextlib.contextmanager
def on_resize(tell: Callable[[], None]) -> Iterator[None]:
    """Has `tell` called whenever the terminal changes its size."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
