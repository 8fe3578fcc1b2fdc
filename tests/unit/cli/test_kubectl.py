"""`k3s kubectl` hands over to the real one with this cluster's kubeconfig."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from k3s.cli import kubectl


class Replaced(Exception):
    """Stands for the other program."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What the process would be replaced by; the user's home is an empty folder."""
    seen: dict[str, object] = {}

    def replace(program: str, args: Sequence[str], env: dict[str, str]) -> NoReturn:
        seen.update(program=program, args=list(args), env=env)
        raise Replaced

    monkeypatch.setattr(kubectl.os, "execve", replace)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(kubectl, "_SYSTEM_KUBECONFIG", tmp_path / "etc" / "k3s.yaml")
    return seen


def kubeconfig(handed: dict[str, object]) -> str:
    with pytest.raises(Replaced):
        kubectl.main(["get", "nodes", "--help"])
    env = handed["env"]
    assert isinstance(env, dict) and handed["args"] == [handed["program"], "get", "nodes", "--help"]
    return str(env["KUBECONFIG"])


def test_users_file_without_the_systems(handed: dict[str, object], tmp_path: Path) -> None:
    """A server that runs without root has written the user's own file."""
    assert kubeconfig(handed) == str(tmp_path / ".kube" / "k3s.yaml")


def test_systems_file(handed: dict[str, object], tmp_path: Path) -> None:
    """The file of a server that runs as root goes first; KUBECONFIG before both."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "k3s.yaml").write_text("")
    assert kubeconfig(handed) == str(tmp_path / "etc" / "k3s.yaml")


def test_users_choice(handed: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG is left as it is."""
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    assert kubeconfig(handed) == "/some/where"


def test_a_file_that_may_not_be_read(
    handed: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy is told, because kubectl's own words do not help."""
    path = tmp_path / ".kube" / "k3s.yaml"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.setattr(kubectl.os, "access", lambda *args: False)
    kubeconfig(handed)
    assert "--write-kubeconfig-mode" in capsys.readouterr().err


def test_the_program_is_there() -> None:
    """kubectl came with the locked dependencies and can be run."""
    program = kubectl.find()
    assert program is not None and os.stat(program).st_mode & stat.S_IXUSR
