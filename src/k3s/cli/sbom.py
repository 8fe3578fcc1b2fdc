"""`k3s sbom`: what the executable carries, as SPDX 2.3."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from k3s.base import bundle
from k3s.cli.main import fail


def main(args: Sequence[str]) -> int:
    """Prints the bill of materials that was made with the payload."""
    if args:
        fail(f"sbom takes no arguments, not {args[0]!r}")
    home = bundle.folder()
    if home is None:
        fail("This k3s is no executable of one file: its Python packages are those of requirements.lock", 1)
    sys.stdout.write((home / "sbom.spdx.json").read_text())
    return 0
