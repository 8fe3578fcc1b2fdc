"""Coroutines that are begun where no task waits yet, and work on the thread beside the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from k3s.base import aio


async def nothing() -> str:
    return "done"


def test_a_coroutine_that_does_not_wait_ends_at_once() -> None:
    """There is no loop, and none is needed."""
    assert aio.begun(nothing()) == "done"

    async def fails() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        aio.begun(fails())


def test_the_rest_of_a_coroutine_is_awaited(run: Any) -> None:
    """It goes on where it waited, with what it waited for: a result, an error, its cancellation."""
    steps: list[str] = []

    async def waits(future: asyncio.Future[str]) -> str:
        steps.append("begun")
        try:
            return await future + await nothing()
        except ValueError:
            await asyncio.sleep(0)
            return "mended"
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise

    async def body() -> None:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[str] = loop.create_future()
        rest = aio.begun(waits(first))
        assert steps == ["begun"] and isinstance(rest, Awaitable)
        loop.call_soon(first.set_result, "well ")
        assert await rest == "well done"
        second: asyncio.Future[str] = loop.create_future()
        rest = aio.begun(waits(second))
        loop.call_soon(second.set_exception, ValueError())
        assert isinstance(rest, Awaitable) and await rest == "mended"
        rest = aio.begun(waits(loop.create_future()))
        assert isinstance(rest, Awaitable)
        task = asyncio.ensure_future(rest)
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps[-1] == "cancelled"

    run(body())


def test_long_work_is_done_on_one_thread_which_may_ask_the_loop(run: Any) -> None:
    """What fails there is raised here."""

    async def body() -> None:
        here = threading.get_ident()
        places = await asyncio.gather(*(aio.lengthy(threading.get_ident) for _ in range(3)))
        assert len(set(places)) == 1 and here not in places
        assert await aio.lengthy(lambda: aio.on_loop(threading.get_ident)) == here
        assert aio.on_loop(threading.get_ident) == here

        def fails() -> None:
            raise ValueError("x")

        with pytest.raises(ValueError, match="x"):
            await aio.lengthy(fails)
        with pytest.raises(ValueError, match="x"):
            await aio.lengthy(lambda: aio.on_loop(fails))

    run(body())
    assert aio.on_loop(threading.get_ident) == threading.get_ident()


def test_work_that_nobody_waits_for_any_more_is_not_begun(run: Any) -> None:
    """Whoever gave up is not in the way of the next."""

    async def body() -> None:
        held, done = threading.Event(), list[str]()
        first = aio.lengthy(held.wait)
        second = aio.lengthy(lambda: done.append("second"))
        third = aio.lengthy(lambda: done.append("third"))
        second.cancel()
        await asyncio.sleep(0)  # the thread's side hears of it in the loop's next turn
        held.set()
        await asyncio.gather(first, third)
        assert done == ["third"]

    run(body())
