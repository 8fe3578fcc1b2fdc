"""How much may be computed while everybody else waits.

Whoever runs expressions on the event loop sets `allowed` for the time of the call. What needs more ends with TooLong,
without an effect, and is begun anew where nobody waits for it (`apiserver.considered`).
"""

from __future__ import annotations

from contextvars import ContextVar

#: In units of an expression's cost, about 0.7 µs each: some ten thousandths of what one evaluation may cost.
AT_ONCE = 10_000


class TooLong(Exception):
    """The work is allowed, but not here."""


class Allowance:
    """What is left of the cost that pieces of work may have together before others are let through."""

    __slots__ = ("left",)

    def __init__(self, left: int = AT_ONCE) -> None:
        self.left = left


#: The allowance of who runs now; None: no limit but the work's own.
allowed: ContextVar[Allowance | None] = ContextVar("allowed", default=None)
