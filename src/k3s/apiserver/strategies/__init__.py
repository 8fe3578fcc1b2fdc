"""The kinds with specials: one row each (law 1)."""

from __future__ import annotations

from k3s.api.kinds import Kind
from k3s.apiserver.cache import Cache
from k3s.apiserver.strategy import Strategy
from k3s.base.entropy import Entropy


class Strategies:
    """The strategy of each kind, made when it is first needed."""

    def __init__(
        self, cache: Cache, entropy: Entropy, service_cidrs: tuple[str, ...], node_ports: tuple[int, int]
    ) -> None:
        self._made: dict[tuple[str, str, str], Strategy] = {}
        self._cache = cache
        self._entropy = entropy
        self._service_cidrs = service_cidrs
        self._node_ports = node_ports

    def of(self, kind: Kind) -> Strategy:
        """The strategy of a kind."""
        key = (kind.group, kind.version, kind.kind)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(kind)
        return found

    def forget(self, kind: Kind) -> None:
        """A custom kind changed or went."""
        self._made.pop((kind.group, kind.version, kind.kind), None)

    def _make(self, kind: Kind) -> Strategy:
        if kind.group == "" and kind.kind == "Service":
            from k3s.apiserver.strategies.service import ServiceStrategy

            return ServiceStrategy(kind, self._cache, self._entropy, self._service_cidrs, self._node_ports)
        from k3s.apiserver.strategies import table

        made = table.ROWS.get((kind.group, kind.kind), Strategy)
        return made(kind)
