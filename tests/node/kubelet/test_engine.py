"""The engine: containerd with the images of a folder, and what happens when it ends."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import os
import platform
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard
from tests.containers import BUSYBOX, busybox
from tests.registry import Registry

from k3s.kubelet import mounts, oci, pause
from k3s.kubelet.containerd import ContainerdConfig
from k3s.kubelet.engine import Engine, EngineConfig

pytestmark = [pytest.mark.root, pytest.mark.slow]


@asynccontextmanager
async def engine_of(folder: Path) -> AsyncIterator[tuple[Engine, asyncio.Task[None], Path]]:
    """An engine that is ready, what runs it, and the folder of containerd's state. Images are in `images`."""
    state = Path(f"/run/k3s-engine-{os.getpid()}")
    config = ContainerdConfig(
        folder / "containerd", folder / "etc" / "config.toml", folder / "net.d", state=state, stream_port=0
    )
    engine = Engine(EngineConfig(config, folder / "images"))
    ready = asyncio.Event()
    serving = asyncio.create_task(engine.run(ready.set))
    try:
        async with asyncio.timeout(30):
            await ready.wait()
        yield engine, serving, state
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        mounts.unmount_below(str(state))
        mounts.unmount_below(str(folder))
        shutil.rmtree(state, ignore_errors=True)


def _pinned(state: Path) -> set[str]:
    """The images that are labelled as pinned; CRI tells of the label since containerd 1.7 only."""
    socket = state / "containerd.sock"
    chosen = 'labels."io.cri-containerd.pinned"==pinned'
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "list", "-q", chosen]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


async def _until_pinned(state: Path, name: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if name in _pinned(state):
                break
            await asyncio.sleep(0.05)


def test_images_of_a_folder_and_a_death(run, tmp_path: Path):
    """Archives are imported before it is ready, later ones when they come; its death is an error that names the log."""

    async def body() -> None:
        folder = tmp_path / "images"
        folder.mkdir()
        (folder / "busybox.tar.gz").write_bytes(gzip.compress(busybox()))
        (folder / "broken.tar").write_bytes(b"nonsense")
        async with engine_of(tmp_path) as (engine, serving, state):
            assert await engine.runtime.image_status(pause.IMAGE) is not None
            assert await engine.runtime.image_status(BUSYBOX) is not None
            await engine.runtime.remove_image(BUSYBOX)
            (folder / "again.tar").write_bytes(busybox())
            async with asyncio.timeout(30):
                while True:
                    if await engine.runtime.image_status(BUSYBOX) is not None:
                        break
                    await asyncio.sleep(0.1)
            os.kill(int((state / "containerd.pid").read_text()), 9)
            with pytest.raises(RuntimeError, match=r"containerd ended with code -9; see .*containerd\.log"):
                await serving

    run(body())


def _lz4(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc", "--format=lz4"], input=data, capture_output=True, check=True).stdout


FORMS = {
    "a.tar": bytes,
    "b.tar.gz": gzip.compress,
    "c.tgz": gzip.compress,
    "d.tar.bz2": bz2.compress,
    "e.tbz": bz2.compress,
    "f.tar.zst": zstandard.compress,
    "g.tzst": zstandard.compress,
    "h.TAR.LZ4": _lz4,
}


def _small(name: str) -> bytes:
    return oci.archive(oci.ImageSpec(name, (oci.Entry("program", b"of " + name.encode()),), machine=platform.machine()))


def test_every_form_that_k3s_takes(run, tmp_path: Path):
    """Archives of every form, and images of lists, present and coming, are there and pinned; hidden files are not."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = {form: f"docker.io/testing/{form[0]}:1" for form in FORMS}
    for form, pack in FORMS.items():
        (folder / form).write_bytes(pack(_small(names[form])))
    (folder / ".hidden.tar").write_bytes(_small("docker.io/testing/hidden:1"))

    async def body() -> None:
        with Registry({"listed:1": _small("listed"), "later:1": _small("later")}) as registry:
            (folder / "some.txt").write_text(f"# a comment\n{registry.host}/listed:1\n\n")
            async with engine_of(tmp_path) as (engine, _serving, state):
                assert _pinned(state) == set(names.values())
                for name in names.values():
                    assert await engine.runtime.image_status(name) is not None, name
                assert await engine.runtime.image_status("docker.io/testing/hidden:1") is None
                await _until_pinned(state, f"{registry.host}/listed:1")
                (folder / "more.TXT").write_text(f"{registry.host}/later:1")
                await _until_pinned(state, f"{registry.host}/later:1")

    run(body())
