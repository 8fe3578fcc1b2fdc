"""Discovery and OpenAPI behind one door, made on the first request that asks for either."""

from __future__ import annotations

from collections.abc import Mapping

from k3s.api.kinds import Registry
from k3s.apiserver.discovery import Discovery, Found, Others
from k3s.apiserver.openapi import OpenAPI

_TEXT = "text/plain; charset=utf-8"


class Documents:
    """The answers of discovery and OpenAPI paths."""

    def __init__(self, registry: Registry, address: str = "", others: Others | None = None) -> None:
        self._discovery = Discovery(registry, address, others)
        self._openapi = OpenAPI(registry, others=others)

    def answer(self, path: str, accept: str, query: Mapping[str, str]) -> Found | None:
        """The answer of a path; None when it is none of ours. Raises NotAcceptable and NotFound."""
        if path.startswith("/openapi/"):
            return self._openapi.answer(path, accept, query)
        found = self._discovery.answer(path, accept, query)
        if found is None and path.startswith("/apis/") and path.count("/") == 2:
            return Found(404, _TEXT, b"404 page not found\n", {})
        return found


def documents(registry: Registry, address: str = "", others: Others | None = None) -> Documents:
    """The documents of a registry and of other servers; nothing is computed before it is asked for."""
    return Documents(registry, address, others)
