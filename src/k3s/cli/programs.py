"""Where a program lies that a personality hands over to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from k3s.base import bundle


def find(name: str, env: Mapping[str, str] = os.environ) -> str | None:
    """The program of the executable's payload, else the first on PATH that is not k3s under this name: a link of it
    would lead back here for ever."""
    if found := bundle.program(name, env):
        return found
    for folder in os.get_exec_path(dict(env)):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK) and os.path.basename(os.path.realpath(path)) != "k3s":
            return path
    return None
