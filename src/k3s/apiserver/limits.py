"""How long a request may take.

Rules: upstream's WithRequestDeadline (`--request-timeout`, the `timeout` parameter). Requests that are meant to last
(watches, logs, exec, proxies) have no deadline. What the cache answers at once is not timed; see docs/decisions.
"""

from __future__ import annotations

from k3s.api import times
from k3s.api.errors import BadRequest, Timeout
from k3s.apiserver.request import Target
from k3s.base.message import TEXT, Response

_LASTING_VERBS = frozenset({"watch", "proxy"})
_LASTING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_TOO_MANY = b"Too many requests, please try again later.\n"


def lasting(target: Target) -> bool:
    """Whether a request is meant to last."""
    info = target.info
    return info.verb in _LASTING_VERBS or info.subresource in _LASTING_SUBRESOURCES or info.path.startswith("/debug/")


def late() -> Timeout:
    """The answer to what did not complete in time."""
    return Timeout("Timeout: request did not complete within the allotted timeout", {})


def too_many(retry_after_s: int = 1) -> Response:
    """The answer to what there is no room for."""
    return Response(429, _TOO_MANY, TEXT, (("Retry-After", str(retry_after_s)),))


class Pushback:
    """After how many seconds those whom one priority level sends away may come again: longer while it sends away many.

    Upstream's rule: twice as long when three a second were sent away for as long as the time is now, a second less when
    there was not one a second.
    """

    __slots__ = ("_counts", "_raised", "seconds")

    _LONGEST_S = 32

    def __init__(self) -> None:
        self.seconds = 1
        self._raised = 0
        # Who was sent away, by second.
        self._counts: dict[int, int] = {}

    def sent_away(self, now: float) -> int:
        """Counts one more; the seconds after which it may come again."""
        second = int(now)
        if second not in self._counts:
            self._adapt(second)
        self._counts[second] = self._counts.get(second, 0) + 1
        return self.seconds

    def _adapt(self, second: int) -> None:
        self._counts = {at: count for at, count in self._counts.items() if second - at <= self._LONGEST_S}
        recent = sum(count for at, count in self._counts.items() if second - at <= self.seconds)
        if recent >= 3 * self.seconds and second - self._raised >= self.seconds:
            self.seconds = min(2 * self.seconds, self._LONGEST_S)
            self._raised = second
        elif recent < self.seconds and self.seconds > 1:
            self.seconds -= 1


class Limits:
    """The seconds that a request of one server may take."""

    def __init__(self, request_s: float = 60.0) -> None:
        self._request_s = request_s

    def seconds(self, target: Target) -> float | None:
        """How long a request may take; None when it may last. Raises BadRequest for a `timeout` that is none."""
        if lasting(target):
            return None
        text = target.query.get("timeout")
        if not text:
            return self._request_s
        try:
            wanted = times.duration(text)
        except times.TimeError as error:
            raise BadRequest(f"invalid timeout specified in the request URL - {error}") from None
        return wanted if 0 < wanted < self._request_s else self._request_s
