"""What is said before and around any answer: to browsers (CORS, HSTS), to whoever comes while the server stops, and now
and then to anybody that the connection ends, so that clients spread again over several servers.

Source: upstream's filters of the same names; the options are `--cors-allowed-origins`,
`--strict-transport-security-directives`, `--shutdown-send-retry-after`, `--goaway-chance`. Upstream ends connections of
HTTP/2 only; here they are of HTTP/1.1, where `Connection: close` says the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from k3s.api import pattern
from k3s.base.entropy import Entropy
from k3s.base.message import TEXT, Answer, Request, Response

App = Callable[[Request], "Answer | Awaitable[Answer]"]
_CORS = (
    "Access-Control-Allow-Origin: {}\r\n"
    "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE, PATCH\r\n"
    "Access-Control-Allow-Headers: Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, "
    "X-Requested-With, If-Modified-Since\r\n"
    "Access-Control-Expose-Headers: Date\r\n"
    "Access-Control-Allow-Credentials: true\r\n"
)
_LEAVING = b"The apiserver is shutting down, please try again later.\n"
# Asked also while the server stops.
_WATCHED = ("/readyz", "/livez", "/healthz", "/metrics")


class Front:
    """Stands before `app`. `origins` are expressions for the origins of pages that may use the API, `hsts` the
    directives of Strict-Transport-Security, `goaway` the chance of a request to be its connection's last one. While
    `leaving`, others are sent away."""

    def __init__(
        self, app: App, entropy: Entropy, origins: Sequence[str] = (), hsts: Sequence[str] = (), goaway: float = 0.0
    ) -> None:
        self._app = app
        self._entropy = entropy
        self._goaway = goaway
        self._origins = [pattern.compiled(text) for text in origins]
        self._lines = f"Strict-Transport-Security: {'; '.join(hsts)}\r\n".encode() if hsts else b""
        self.leaving = False

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        """The answer of the app, or of what comes before it."""
        request.lines = self._lines
        request.last = self._goaway > 0 and self._entropy.fraction() < self._goaway
        if self.leaving and not request.target.startswith(_WATCHED):
            return Response(429, _LEAVING, TEXT, (("Retry-After", "5"),))
        origin = request.headers.get("origin") if self._origins else None
        if origin and any(expression.search(origin) for expression in self._origins):
            request.lines += _CORS.format(origin).encode("latin-1", "replace")
            if request.method == "OPTIONS":
                return Response(204, b"", "")
        return self._app(request)
