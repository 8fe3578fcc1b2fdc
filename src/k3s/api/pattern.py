"""Regular expressions as the API knows them: RE2's, which search in time linear in the text, whatever the expression.

Patterns come from clients (schemas of custom kinds, CEL), so Python's own engine, which some patterns keep busy for
ever, is out of the question. The library is loaded when the first pattern is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# What the library says -> what the API says, in whose words a bad expression is refused.
_SAID = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "trailing \\": "trailing backslash at end of expression",
}


class BadPattern(ValueError):
    """A text that is no expression; says why in the words of the API."""


def _why(said: str) -> str:
    what, colon, part = said.partition(": ")
    return f"error parsing regexp: {_SAID.get(what, what)}: `{part if colon else ''}`"


@lru_cache(maxsize=512)
def compiled(text: str) -> Any:
    """The compiled expression, with `search`, `fullmatch`, `finditer`. Raises BadPattern."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        why = error.args[0]
        raise BadPattern(_why(why.decode(errors="replace") if isinstance(why, bytes) else str(why))) from None


def found(text: str, value: str) -> bool:
    """Whether an expression matches somewhere in a value. Raises BadPattern."""
    return compiled(text).search(value) is not None
