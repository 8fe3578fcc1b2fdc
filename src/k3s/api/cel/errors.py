"""What can go wrong with an expression: when it is compiled and when it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k3s.api.allowance import TooLong

# More than these are counted, not shown.
_MOST_SHOWN = 100
# Longer lines are not quoted.
_LONGEST_QUOTED = 16384


class CompileError(Exception):
    """An expression that is no expression, or has no type; the text names each place as upstream does."""


class EvaluationError(Exception):
    """An evaluation without a value; the text is upstream's, such as `no such key: x`."""


class Fault(EvaluationError):
    """An error that `&&`, `||`, `all` and `exists` may forget when the rest decides the outcome."""


class CostExceeded(EvaluationError):
    """The evaluation cost more than it may; nothing forgets this one."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


def exceeded(frame: list[Any]) -> Exception:
    """Why an evaluation ends whose cost is below the frame's floor: it is over its limit, or it is too long here."""
    return CostExceeded() if frame[0] < 0 else TooLong()


# Longer values are not made: no request has them, and what makes them is not in every case paid for by its length.
_MOST_CHARACTERS, _MOST_ELEMENTS = 1 << 24, 1 << 20


def bounded_text(length: int) -> None:
    """Raises CostExceeded for a text that would be longer than any that makes sense."""
    if length > _MOST_CHARACTERS:
        raise CostExceeded


def bounded_list(length: int) -> None:
    """Raises CostExceeded for a list that would be longer than any that makes sense."""
    if length > _MOST_ELEMENTS:
        raise CostExceeded


@dataclass(frozen=True, slots=True)
class Issue:
    """One error of an expression: the offset in code points (-1 when it has no place), and what is wrong."""

    offset: int
    message: str


def report(source: str, issues: list[Issue]) -> str:
    """All errors with the line of each and a caret below the place."""
    shown = [_shown(source, issue) for issue in issues[:_MOST_SHOWN]]
    if len(issues) > _MOST_SHOWN:
        shown.append(f"{len(issues) - _MOST_SHOWN} more errors were truncated")
    return "compilation failed: " + "\n".join(shown)


def _shown(source: str, issue: Issue) -> str:
    if issue.offset < 0:
        return f"ERROR: <input>:-1:0: {issue.message}"
    before = source[: issue.offset]
    line = before.count("\n")
    column = len(before) - (before.rfind("\n") + 1)
    text = f"ERROR: <input>:{line + 1}:{column + 1}: {issue.message}"
    quoted = source.split("\n")[line].replace("\t", " ")
    if len(quoted) > _LONGEST_QUOTED:
        return text
    # Characters outside ASCII are taken as wide ones, and so are their marks.
    dots = "".join("." if char < "\x80" else "．" for char in quoted[:column])
    mark = "＾" if column < len(quoted) and quoted[column] >= "\x80" else "^"
    return f"{text}\n | {quoted}\n | {dots}{mark}"
