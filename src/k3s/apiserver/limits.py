"""How long a request may take, and how many may be under way at once.

Rules: upstream's WithRequestDeadline (`--request-timeout`, the `timeout` parameter) and WithMaxInFlightLimit. Requests
that are meant to last (watches, logs, exec, proxies) have no deadline and are not counted. What the cache answers at
once is never under way, so it is neither counted nor timed; see docs/decisions.
"""

from __future__ import annotations

from k3s.api import times
from k3s.api.errors import BadRequest, Timeout
from k3s.apiserver.identity import MASTERS, User
from k3s.apiserver.request import Target
from k3s.base.message import TEXT, Response

_LASTING_VERBS = frozenset({"watch", "proxy"})
_LASTING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_READING = frozenset({"get", "list"})
_TOO_MANY = b"Too many requests, please try again later.\n"


def lasting(target: Target) -> bool:
    """Whether a request is meant to last."""
    info = target.info
    return info.verb in _LASTING_VERBS or info.subresource in _LASTING_SUBRESOURCES or info.path.startswith("/debug/")


def late() -> Timeout:
    """The answer to what did not complete in time."""
    return Timeout("Timeout: request did not complete within the allotted timeout", {})


def too_many() -> Response:
    """The answer to what there is no room for."""
    return Response(429, _TOO_MANY, TEXT, (("Retry-After", "1"),))


class Limits:
    """The limits of one server: seconds of a request, and how many may read and write at once (0: no limit)."""

    def __init__(self, request_s: float = 60.0, reading: int = 400, writing: int = 200) -> None:
        self._request_s = request_s
        self._most = {True: reading, False: writing}
        self._now = {True: 0, False: 0}

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

    def enter(self, target: Target, user: User | None) -> bool:
        """Takes a place; False when there is none. Administrators always find one, so that they can help."""
        reads = target.info.verb in _READING
        most = self._most[reads]
        if most and self._now[reads] >= most and not (user is not None and MASTERS in user.groups):
            return False
        self._now[reads] += 1
        return True

    def leave(self, target: Target) -> None:
        """Gives the place back."""
        self._now[target.info.verb in _READING] -= 1
