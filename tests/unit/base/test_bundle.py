"""Where a process of the executable finds its own programs."""

from __future__ import annotations

from pathlib import Path

from k3s.base import bundle


def test_programs_of_the_payload(tmp_path: Path) -> None:
    """A program that the payload has is found there; without a payload nothing is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").write_text("")
    env = {bundle.VARIABLE: str(tmp_path)}
    assert bundle.folder(env) == tmp_path
    assert bundle.program("kubectl", env) == str(tmp_path / "bin/kubectl")
    assert bundle.program("helm", env) is None
    assert bundle.program("kubectl", {}) is None
