"""`k3s kubectl` hands over to the real one with this cluster's kubeconfig."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from k3s.cli import kubectl, programs


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


def kubeconfig(handed: dict[str, object], *words: str) -> str | None:
    with pytest.raises(Replaced):
        kubectl.main(["get", "nodes", "--help", *words])
    env = handed["env"]
    assert isinstance(env, dict) and handed["args"] == [handed["program"], "get", "nodes", "--help", *words]
    return env.get("KUBECONFIG")


def test_no_file_of_ours(handed: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """Where no server has written one, kubectl's own default holds: ~/.kube/config."""
    assert kubeconfig(handed) is None
    assert capsys.readouterr().err == ""


def test_users_file_without_the_systems(handed: dict[str, object], tmp_path: Path) -> None:
    """A server that runs without root has written the user's own file."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "k3s.yaml").write_text("")
    assert kubeconfig(handed) == str(tmp_path / ".kube" / "k3s.yaml")


def test_systems_file(handed: dict[str, object], tmp_path: Path) -> None:
    """The file of a server that runs as root goes first; KUBECONFIG before both."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "k3s.yaml").write_text("")
    assert kubeconfig(handed) == str(tmp_path / "etc" / "k3s.yaml")


def test_users_choice(handed: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG is left as it is, and so is the flag."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "k3s.yaml").write_text("")
    assert kubeconfig(handed, "--kubeconfig", "/x") is None and kubeconfig(handed, "--kubeconfig=/x") is None
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    assert kubeconfig(handed) == "/some/where"


def test_a_file_that_may_not_be_read(
    handed: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy is told in k3s's words, because kubectl's own do not help; the file stays the choice."""
    path = tmp_path / "etc" / "k3s.yaml"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.setattr(kubectl.os, "access", lambda *args: False)
    assert kubeconfig(handed) == str(path)
    assert capsys.readouterr().err.split("msg=")[1] == (
        f'"Unable to read {path}, please start server with --write-kubeconfig-mode or --write-kubeconfig-group to '
        'modify kube config permissions"\n'
    )


def test_a_link_of_ours_is_not_the_program(tmp_path: Path) -> None:
    """PATH may have a link called ctr or kubectl to k3s: the program behind it is meant."""
    folders = [tmp_path / "links", tmp_path / "programs"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "k3s").write_text("")
    (folders[0] / "k3s").chmod(0o755)
    (folders[0] / "ctr").symlink_to("k3s")
    env = {"PATH": ":".join(map(str, folders))}
    assert programs.find("ctr", env) is None
    (folders[1] / "ctr").write_text("")
    (folders[1] / "ctr").chmod(0o755)
    assert programs.find("ctr", env) == str(folders[1] / "ctr")


def test_the_program_is_there() -> None:
    """kubectl came with the locked dependencies and can be run."""
    program = kubectl.find()
    assert program is not None and os.stat(program).st_mode & stat.S_IXUSR
