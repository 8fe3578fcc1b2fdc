"""What upstream checks of literals beside their types: durations, timestamps and patterns that are written out."""

from __future__ import annotations

from collections.abc import Callable

from k3s.api import pattern
from k3s.api.cel import times
from k3s.api.cel.errors import CompileError, EvaluationError, Issue, report
from k3s.api.cel.syntax import Call, Literal, Node, walk


def check_literals(source: str, tree: Node) -> None:
    """Raises CompileError for a text that is no duration, timestamp or pattern where one is wanted."""
    issues = []
    for node in walk(tree):
        if not isinstance(node, Call) or not node.args:
            continue
        reader = _READERS.get(node.function)
        text = node.args[-1]
        if reader is None or not isinstance(text, Literal) or not isinstance(text.value, str):
            continue
        try:
            reader[1](text.value)
        except (ValueError, EvaluationError):
            issues.append(Issue(text.offset, f"invalid {reader[0]} argument"))
    if issues:
        raise CompileError(report(source, sorted(issues, key=lambda issue: issue.offset)))


_READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "duration": ("duration", times.parse_duration),
    "timestamp": ("timestamp", times.parse_timestamp),
    "matches": ("matches", pattern.compiled),
}
