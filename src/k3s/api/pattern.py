"""Regular expressions as the API knows them: RE2's, which search in time linear in the text, whatever the expression.

Patterns come from clients (schemas of custom kinds, CEL), so Python's own engine, which some patterns keep busy for
ever, is out of the question. The library is loaded when the first pattern is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


class BadPattern(ValueError):
    """A text that is no expression; says why in the words of RE2."""


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
        raise BadPattern(why.decode(errors="replace") if isinstance(why, bytes) else str(why)) from None


def found(text: str, value: str) -> bool:
    """Whether an expression matches somewhere in a value. Raises BadPattern."""
    return compiled(text).search(value) is not None
