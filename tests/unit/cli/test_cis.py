"""check-config --cis: what it says of files of every mode and owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k3s.cli import check_config, cis

OWNER = (os.geteuid(), os.getegid())


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder as a server and its agent leave it: every file that is asked for, with the most it may have."""
    for check in cis.CHECKS:
        path = tmp_path / check.files.replace("**/*", "etcd/peer")
        if check.files in ("server/db", "server/tls"):
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o600 if check.most is None else check.most)
    return tmp_path


def failing(data_dir: Path, owner: tuple[int, int] = OWNER) -> dict[str, str]:
    """Number of each check that fails, and what it says."""
    return {f.what.split(" ")[0]: f.found for f in cis.findings(data_dir, owner) if f.state == "missing"}


def test_files_as_k3s_writes_them_pass(data_dir: Path) -> None:
    """Nothing is held against the modes that are asked for, or narrower ones."""
    assert failing(data_dir) == {}
    assert {f.found for f in cis.findings(data_dir, OWNER)} == {"pass"}
    (data_dir / "server/cred/admin.kubeconfig").chmod(0o400)
    assert failing(data_dir) == {}


@pytest.mark.parametrize("check", [c for c in cis.CHECKS if c.most is not None], ids=lambda c: c.number)
def test_each_mode_is_looked_at(data_dir: Path, check: cis.Check) -> None:
    """One bit too many fails that check alone, with the command that repairs it."""
    assert check.most is not None
    path = next(iter(data_dir.glob(check.files)))
    path.chmod(check.most | 0o020)
    wanted = f"{path} has mode {check.most | 0o020:o}: chmod {check.most:o} {path}"
    assert failing(data_dir) == {check.number: wanted}


def test_each_owner_is_looked_at(data_dir: Path) -> None:
    """Files of somebody else fail every check of owners and none of modes."""
    assert set(failing(data_dir, (4711, 4712))) == {c.number for c in cis.CHECKS if c.most is None}
    assert "chown 4711:4712 " in failing(data_dir, (4711, 4712))["1.1.14"]


def test_files_of_the_other_role_are_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent has no datastore, and is told so; a folder where nothing ran is an error that says what to do."""
    assert check_config.main(["--cis", f"--data-dir={tmp_path}"]) == 1
    assert f"no k3s has run in {tmp_path}: start it first" in capsys.readouterr().out
    (tmp_path / "agent").mkdir()
    assert check_config.main(["--cis", f"--data-dir={tmp_path}"]) == 0
    assert "1.1.11 folder of the datastore: mode 700 or less: no such file here" in capsys.readouterr().out
    assert check_config.main(["--cis", "--datadir=/x"]) == 1
    assert "--cis does not know --datadir=/x" in capsys.readouterr().out
