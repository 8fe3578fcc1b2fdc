"""Which strategy belongs to which kind."""

from __future__ import annotations

from k3s.apiserver.strategies.core import NamespaceStrategy, NodeStrategy
from k3s.apiserver.strategies.pod import PodStrategy
from k3s.apiserver.strategy import Strategy

ROWS: dict[tuple[str, str], type[Strategy]] = {
    ("", "Namespace"): NamespaceStrategy,
    ("", "Node"): NodeStrategy,
    ("", "Pod"): PodStrategy,
}
