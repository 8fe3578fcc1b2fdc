"""The audit log's file: its mode, when it is begun anew, which old files stay."""

from __future__ import annotations

import asyncio
import gzip
import stat
from pathlib import Path
from typing import Any

import pytest

from k3s.apiserver.audit.logfile import LogFile, LogSettings

DAY = 86400.0


def written(run: Any, settings: LogSettings, lines: int, times: Any) -> None:
    async def body() -> None:
        file = LogFile(settings, times)
        file._limit = 100
        file.open()
        for number in range(lines):
            file.write(b"%099d\n" % number)
            await asyncio.gather(*file._tasks._tasks)
        await file.close()

    run(body())


def test_old_files_by_number_and_age(run: Any, tmp_path: Path) -> None:
    """The newest stay; those too old or too many go; foreign files are left alone."""
    now = iter(range(1_700_000_000, 1_800_000_000, int(DAY)))
    path = tmp_path / "sub" / "audit.log"
    foreign = tmp_path / "sub" / "audit-else.log"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    written(run, LogSettings(str(path), max_files=2), 6, lambda: next(now))
    names = sorted(file.name for file in path.parent.iterdir())
    assert names[-1] == "audit.log" and "audit-else.log" in names and len(names) == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old = [name for name in names if name.startswith("audit-2023")]
    assert len(old) == 2 and old[0].startswith("audit-2023-11-") and old[0].endswith(".000.log")
    assert (path.parent / old[1]).read_bytes() == b"%099d\n" % 4
    assert path.read_bytes() == b"%099d\n" % 5


def test_old_files_are_packed(run: Any, tmp_path: Path) -> None:
    """With the flag, and still readable by the owner only."""
    now = iter(range(1_700_000_000, 1_800_000_000, 10))
    path = tmp_path / "audit.log"
    written(run, LogSettings(str(path), packed=True), 3, lambda: next(now))
    packed = sorted(tmp_path.glob("*.gz"))
    assert [gzip.decompress(file.read_bytes()) for file in packed] == [b"%099d\n" % n for n in range(2)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in packed} == {0o600}
    assert sorted(tmp_path.iterdir()) == [*packed, path]


def test_old_files_by_age(run: Any, tmp_path: Path) -> None:
    """What is older than the days that are allowed goes when the file is begun anew."""
    now = iter(range(1_700_000_000, 1_800_000_000, int(DAY)))
    written(run, LogSettings(str(tmp_path / "audit.log"), max_age_days=3), 8, lambda: next(now))
    assert 1 <= len(list(tmp_path.glob("audit-*.log"))) <= 3


def test_a_rotation_that_fails_writes_to_nobody_elses_file(run: Any, tmp_path: Path) -> None:
    """The folder is gone when the file is begun anew: an error, no foreign descriptor; later it goes on."""

    async def body() -> None:
        folder = tmp_path / "log"
        file = LogFile(LogSettings(str(folder / "audit.log")), lambda: 1_700_000_000.0)
        file._limit = 10
        file.open()
        file.write(b"first line\n")
        folder.rename(tmp_path / "moved")
        with pytest.raises(OSError):
            file.write(b"second line\n")
        assert file._file == -1
        file.write(b"third line\n")
        assert (folder / "audit.log").read_bytes() == b"third line\n"
        await file.close()

    run(body())
