"""Work that may be long, and mostly is not: at once when its expressions cost little, else on a thread beside the loop.

See docs/decisions/0018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from k3s.api.allowance import Allowance, TooLong, allowed
from k3s.base import aio

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
