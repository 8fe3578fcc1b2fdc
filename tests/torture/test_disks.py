"""A disk that is full, read-only or broken: what clients and health checks are told, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.torture.disk import FULL, NO_SYNC, READ_ONLY, WELL, Faulty
from tests.torture.server import Server

from k3s.api.errors import ApiError, OutcomeUnknown, ServiceUnavailable, Timeout
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.client.transport import Request

MAP = builtin("v1", "ConfigMap")
LEASE = builtin("coordination.k8s.io/v1", "Lease")
# No other writer than the test.
_ALONE = ("--disable-controller-manager", "--disable-scheduler")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def config(name: str, size: int = 10) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": "x" * size}}


async def readiness(client: Client) -> str:
    """Empty when the server says that it is ready, else what it says."""
    try:
        await client.raw(Request("GET", "/readyz"))
    except ApiError as error:
        return error.message
    return ""


async def recovered(client: Client) -> None:
    """Waits until readiness is back; nobody writes meanwhile."""
    async with asyncio.timeout(15):
        while await readiness(client):  # noqa: ASYNC110 - health checks are there to be asked
            await asyncio.sleep(0.1)


async def present(client: Client) -> None:
    """Waits until the server has told that it is there: of its own accord it writes nothing more for minutes."""
    async with asyncio.timeout(15):
        while not (await client.list(LEASE, "kube-system")).items:  # noqa: ASYNC110 - it is there within a moment
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Client]:
    try:
        await server.start()
        client = server.client()
        await client.create(MAP, config("before"))
        yield client
        server.stop()
    finally:
        server.remove()


@pytest.mark.parametrize(
    ("fault", "words"),
    [(FULL, "no space is left on its disk"), (READ_ONLY, "its disk or file is read-only")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_no_writes(tmp_path: Path, fault: int, words: str) -> None:
    """503 with the reason in words, not ready for the same reason, reads go on, and writes as soon as they can."""

    async def main() -> None:
        disk = Faulty(tmp_path, tmp_path / "data" / "server" / "db")
        async with serving(Server(tmp_path, tmp_path / "data", env=disk.environment(trace=False))) as client:
            # The disk's own word for read-only is in its flags, which a preloaded library does not forge.
            wanted = words if fault == FULL else "(its disk or file is read-only|its disk reports an error)"
            disk.goes(fault)
            with pytest.raises(ServiceUnavailable, match=wanted):
                await client.create(MAP, config("refused"))
            assert "[-]etcd failed: Cannot write to the datastore" in await readiness(client)
            assert (await client.list(MAP, "default")).items[0]["metadata"]["name"] == "before"
            disk.goes(WELL)
            await recovered(client)
            await client.create(MAP, config("after"))
            with pytest.raises(ApiError, match="not found"):
                await client.get(MAP, "default", "refused")

    asyncio.run(main())


def test_a_disk_that_cannot_sync(tmp_path: Path) -> None:
    """504 that says that the outcome is unknown; afterwards there is one truth, also for the next life."""

    async def main() -> None:
        disk = Faulty(tmp_path, tmp_path / "data" / "server" / "db")
        server = Server(tmp_path, tmp_path / "data", *_ALONE, env=disk.environment(trace=False))
        async with serving(server) as client:
            await present(client)
            disk.goes(NO_SYNC)
            with pytest.raises((Timeout, OutcomeUnknown), match="it is not known whether this was done"):
                await client.create(MAP, config("perhaps"))
            assert "[-]etcd failed: Cannot tell whether" in await readiness(client)
            disk.goes(WELL)
            await recovered(client)
            found = (await client.list(MAP, "default")).items
            server.kill()
            await server.start()
            assert (await client.list(MAP, "default")).items == found

    asyncio.run(main())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_disk_that_is_really_full(tmp_path: Path, small: Path) -> None:
    """Fills it with objects; what was acknowledged is there, and once another file goes, writes go on."""

    async def main() -> None:
        async with serving(Server(tmp_path, small / "data")) as client:
            (small / "ballast").write_bytes(b"x" * (12 << 20))
            made = 0
            with pytest.raises(ServiceUnavailable, match="no space is left on its disk"):
                for number in range(1000):
                    await client.create(MAP, config(f"m{number}", 100_000))
                    made = number + 1
            assert "no space is left" in await readiness(client)
            (small / "ballast").unlink()
            await recovered(client)
            await client.create(MAP, config("after"))
            names = {item["metadata"]["name"] for item in (await client.list(MAP, "default")).items}
            assert {f"m{number}" for number in range(made)} | {"before", "after"} <= names

    asyncio.run(main())


class Image:
    """A disk of its own, that the kernel makes read-only by itself as it does after an error of a real one."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "image"
        self.folder = folder / "image.mounted"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def fail(self) -> None:
        """An error of the file system; from now on nothing is written, whoever has files open."""
        device = Path(_run("findmnt", "-no", "SOURCE", str(self.folder)).strip())
        Path(f"/sys/fs/ext4/{device.name}/trigger_fs_error").write_text("test")

    def remove(self) -> None:
        """Takes it away, though files are open."""
        _run("umount", "-l", str(self.folder))

    def repair(self) -> None:
        """What was on it comes back on another disk, checked, at the same place."""
        repaired = self._image.with_name("repaired")
        _run("cp", str(self._image), str(repaired))
        subprocess.run(["e2fsck", "-fy", str(repaired)], check=False, capture_output=True)
        self._image = repaired
        self._mount()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    made = Image(tmp_path)
    yield made
    subprocess.run(["umount", "-l", str(made.folder)], check=False)


@pytest.mark.root
def test_a_disk_that_really_becomes_read_only(tmp_path: Path, image: Image) -> None:
    """The reason in words for clients and health checks, reads go on, and after the repair writes do, in one life."""

    async def main() -> None:
        async with serving(Server(tmp_path, image.folder / "data")) as client:
            image.fail()
            with pytest.raises(ServiceUnavailable, match="its disk or file is read-only"):
                await client.create(MAP, config("refused"))
            assert "its disk or file is read-only" in await readiness(client)
            assert (await client.list(MAP, "default")).items[0]["metadata"]["name"] == "before"
            image.remove()
            with pytest.raises(ServiceUnavailable, match="Cannot open the datastore"):
                await client.create(MAP, config("refused"))
            image.repair()
            await recovered(client)
            await client.create(MAP, config("after"))
            names = {item["metadata"]["name"] for item in (await client.list(MAP, "default")).items}
            assert {"before", "after"} <= names
            assert "refused" not in names

    asyncio.run(main())
