"""The unpacked payload that this process runs from, when it was started by the one executable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: Set by the launcher for itself and whatever it starts.
VARIABLE = "K3S_BUNDLE_DIR"


def folder(env: Mapping[str, str] = os.environ) -> Path | None:
    """The payload's folder, with `bin`, `lib` and `etc` in it; None for a process of a checkout or a wheel."""
    found = env.get(VARIABLE)
    return Path(found) if found else None


def program(name: str, env: Mapping[str, str] = os.environ) -> str | None:
    """A program of the payload; None when there is no payload or it has no such program."""
    home = folder(env)
    path = home / "bin" / name if home is not None else None
    return str(path) if path is not None and path.is_file() else None
