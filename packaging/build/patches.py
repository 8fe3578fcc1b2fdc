"""Patches of what a stage unpacks: `packaging/patches/<stage>/*.patch`, in the order of their names."""

from __future__ import annotations

import subprocess
from pathlib import Path

from build.inputs import LockError


def found(root: Path, stage: str) -> list[Path]:
    """The patches of a stage."""
    return sorted((root / "packaging/patches" / stage).glob("*.patch"))


def apply(patches: list[Path], folder: Path, stage: str) -> None:
    """Changes the files below a folder. Raises LockError that names the first patch that does not fit exactly."""
    for patch in patches:
        command = ["patch", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-p1", "-i", str(patch)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            raise LockError(f"stage {stage}: needs the program patch, which is not on PATH") from None
        if done.returncode:
            raise LockError(
                f"stage {stage}: {patch.name} does not fit what it is for any more:\n{done.stdout.strip()}\n"
                "Make it anew for the locked version, or remove it when it is no longer needed."
            )
