"""Waiting for changes of files without polling."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from k3s.base.inotify import FolderWatch, appears


def test_changes_are_told(run, tmp_path: Path):
    """Creation, writing, renaming and deletion of an entry are told by its name."""

    async def body() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        watch = FolderWatch(tmp_path, told.put_nowait)
        (tmp_path / "a").write_text("x")
        assert await asyncio.wait_for(told.get(), 5) == "a"
        (tmp_path / "a").rename(tmp_path / "b")
        while await asyncio.wait_for(told.get(), 5) != "b":
            pass
        (tmp_path / "b").unlink()
        assert await asyncio.wait_for(told.get(), 5) == "b"
        watch.close()

    run(body())


def test_a_file_appears(run, tmp_path: Path):
    """A file that is there, one that comes, one that does not."""

    async def body() -> None:
        waiting = asyncio.create_task(appears(tmp_path / "late", 5))
        await asyncio.sleep(0)
        (tmp_path / "late").touch()
        assert await waiting
        assert await appears(tmp_path / "late", 5)
        assert not await appears(tmp_path / "never", 0.01)

    run(body())


def test_a_missing_folder_is_an_error(run, tmp_path: Path):
    """The error names the folder."""

    async def body() -> None:
        with pytest.raises(OSError, match="Cannot watch"):
            FolderWatch(tmp_path / "none", lambda _name: None)

    run(body())
