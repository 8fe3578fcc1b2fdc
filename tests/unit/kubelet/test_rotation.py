"""Container logs that are full are renamed, packed and removed."""

from __future__ import annotations

import gzip
from pathlib import Path

from k3s.kubelet.rotation import Rotation
from k3s.kubelet.runtime.fake import FakeRuntime
from k3s.kubelet.runtime.interface import RuntimeFailure


class Hand:
    """A clock that is moved by hand."""

    at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Opening(FakeRuntime):
    """Opens a new log file, as a real runtime does; or refuses."""

    def __init__(self, clock: Hand, path: Path, *, refuse: bool = False) -> None:
        super().__init__(clock)
        self._path, self._refuse = path, refuse

    async def reopen_container_log(self, container_id: str) -> None:
        if self._refuse:
            raise RuntimeFailure("UNKNOWN", "no")
        self._path.write_bytes(b"")


def test_a_full_log_is_rotated(run, tmp_path: Path):
    """At most three files: the one that is written to, the newest rotated one plain, an older one packed."""

    async def body() -> None:
        clock, path = Hand(), tmp_path / "0.log"
        rotation = Rotation(Opening(clock, path), clock, 10, 3)
        await rotation.check(path, "c")
        for number in range(5):
            clock.at += 60
            path.write_bytes(b"%d" % number * 9)
            await rotation.check(path, "c")
            assert path.read_bytes() == b"%d" % number * 9
            path.write_bytes(b"%d" % number * 10)
            await rotation.check(path, "c")
            assert path.read_bytes() == b""
        names = sorted(p.name for p in tmp_path.iterdir())
        assert names == ["0.log", "0.log.19700101-000400.gz", "0.log.19700101-000500"]
        assert gzip.decompress((tmp_path / names[1]).read_bytes()) == b"3" * 10

    run(body())


def test_a_refusal_leaves_the_log(run, tmp_path: Path):
    """When the runtime does not open a new file the old one keeps its name."""

    async def body() -> None:
        clock, path = Hand(), tmp_path / "0.log"
        path.write_bytes(b"x" * 20)
        await Rotation(Opening(clock, path, refuse=True), clock, 10, 3).check(path, "c")
        assert [p.name for p in tmp_path.iterdir()] == ["0.log"]

    run(body())
