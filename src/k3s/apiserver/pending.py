"""Questions that somebody outside has to answer: how a step that never waits says so, and how it is taken again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_ANSWERS: ContextVar[dict[Hashable, Any] | None] = ContextVar("answers", default=None)


class Pending(Exception):
    """Somebody outside has to be asked first: who awaits `work`, which never fails, gets an answer the next time."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        super().__init__("the answer is being asked for")
        self.work = work


def keep(key: Hashable, answer: Any) -> None:
    """Keeps an answer for the request that asked, however short it counts for others."""
    answers = _ANSWERS.get()
    if answers is not None:
        answers[key] = answer


def kept(key: Hashable) -> Any:
    """What this request has been answered already; None when it has not asked."""
    answers = _ANSWERS.get()
    return None if answers is None else answers.get(key)


@contextmanager
def _one_request() -> Iterator[None]:
    if _ANSWERS.get() is not None:
        yield
        return
    token = _ANSWERS.set({})
    try:
        yield
    finally:
        _ANSWERS.reset(token)


async def again(pending: Pending, call: Callable[[], T | Awaitable[T]]) -> T:
    """Awaits the answer, then what `call` gives; as often as that raises Pending for a further question."""
    await asyncio.sleep(0)  # what was begun outside of a task goes on in one (see `aio.begun`)
    with _one_request():
        while True:
            await pending.work
            try:
                found = call()
                return await found if isinstance(found, Awaitable) else found
            except Pending as further:
                pending = further
