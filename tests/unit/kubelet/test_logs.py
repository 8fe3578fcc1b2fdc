"""Container logs: what a client sees of the runtime's files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from k3s.kubelet.logs import LogOptions, LogReader, tail_offset

_STAMP = "2026-01-31T10:00:0{}.000000000Z"


def _line(second: int, text: str, stream: str = "stdout", tag: str = "F") -> str:
    return f"{_STAMP.format(second)} {stream} {tag} {text}\n"


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "0.log"
    path.write_text("".join(lines))
    return path


async def _read(path: Path, **options: object) -> str:
    reader = LogReader(path, LogOptions(**options))  # type: ignore[arg-type]
    return b"".join([piece async for piece in reader.pieces()]).decode()


def test_text_without_what_the_runtime_adds(run: Callable[..., None], tmp_path: Path) -> None:
    """Both streams in order; one of them; with times; pieces of a long line are one line again, with one time."""
    path = _file(
        tmp_path, "rubbish\n", _line(1, "one"), _line(2, "two", "stderr"), _line(3, "thr", tag="P"), _line(3, "ee")
    )

    async def check() -> None:
        assert await _read(path) == "one\ntwo\nthree\n"
        assert await _read(path, stream="stderr") == "two\n"
        assert await _read(path, tail=1) == "ee\n"
        stamps = [_STAMP.format(n) for n in (1, 2, 3)]
        shown = f"{stamps[0]} one\n{stamps[1]} two\n{stamps[2]} three\n"
        assert await _read(path, timestamps=True) == shown

    run(check())


def test_tail_since_and_limit(run: Callable[..., None], tmp_path: Path) -> None:
    """The last lines, the lines from a time on, the first bytes."""
    path = _file(tmp_path, *(_line(n, f"line {n}") for n in range(1, 6)))

    async def check() -> None:
        assert await _read(path, tail=2) == "line 4\nline 5\n"
        assert await _read(path, tail=0) == ""
        assert await _read(path, tail=99) == await _read(path)
        assert await _read(path, since=1769853604.0) == "line 4\nline 5\n"
        assert await _read(path, limit=8) == "line 1\nl"

    run(check())


def test_tail_offset_reads_backwards_over_blocks(tmp_path: Path) -> None:
    """In a file of many blocks the position is that of the line wanted."""
    lines = [_line(1, "x" * 1000) for _ in range(500)]
    path = _file(tmp_path, *lines)
    assert tail_offset(path, 100) == path.stat().st_size - 100 * len(lines[0])


def test_following_ends_with_the_container(run: Callable[..., None], tmp_path: Path) -> None:
    """A follower sees each line as it is written, goes on over a rotation, and ends when told that all is over."""
    path = _file(tmp_path, _line(1, "one"))
    over = False
    told: list[Callable[[], None]] = []

    def listen(tell: Callable[[], None]) -> Callable[[], None]:
        told.append(tell)
        return told.clear

    async def check() -> None:
        nonlocal over
        pieces = LogReader(path, LogOptions(follow=True), lambda: over, listen).pieces()
        assert await anext(pieces) == b"one\n"
        with path.open("a") as file:
            file.write(_line(2, "two"))
        assert await anext(pieces) == b"two\n"
        path.rename(tmp_path / "0.log.old")
        path.write_text(_line(3, "three"))
        assert await anext(pieces) == b"three\n"
        waiting = asyncio.ensure_future(anext(pieces, b"end"))
        await asyncio.sleep(0)
        over = True
        told[0]()
        assert await asyncio.wait_for(waiting, 5) == b"end"
        assert told == [], "nobody listens any more"

    run(check())
