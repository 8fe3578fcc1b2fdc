"""Work that may be long, and mostly is not: at once when it is little, else on a thread beside the loop.

See docs/decisions/0018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from k3s.api.allowance import Allowance, TooLong, allowed
from k3s.base import aio

# From so many bytes on, reading, changing and checking an object takes milliseconds: up to 3 µs for each byte, YAML 6.
HEAVY = 128 * 1024

T = TypeVar("T")


async def considered(work: Callable[[], T], allowance: Allowance | None = None) -> T:
    """What `work` answers; it suspends only when that takes long. Raises what `work` raises.

    `work` is free of effects, because it may be begun twice. Pieces of work that follow one another without a pause
    share one allowance.
    """
    before = allowed.set(allowance or Allowance())
    try:
        return work()
    except TooLong:
        pass
    finally:
        allowed.reset(before)
    return await aio.lengthy(work)


async def beside(heavy: bool, work: Callable[[], T]) -> T:
    """What `work` answers, from a thread beside the loop when it is heavy. Raises what `work` raises.

    `work` looks at nothing that changes meanwhile: objects, schemas and rules.
    """
    return await aio.lengthy(work) if heavy else work()
