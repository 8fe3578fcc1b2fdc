"""A clock that a test moves."""

from __future__ import annotations


class MovedClock:
    """Both clocks show `at`."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def now(self) -> float:
        """See `base.clock.Clock`."""
        return self.at

    def monotonic(self) -> float:
        """See `base.clock.Clock`."""
        return self.at
