"""The engine: containerd with the images of a folder, and what happens when it ends."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from pathlib import Path

import pytest
from tests.containers import BUSYBOX, busybox

from k3s.kubelet import mounts, pause
from k3s.kubelet.containerd import ContainerdConfig
from k3s.kubelet.engine import Engine, EngineConfig

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_images_of_a_folder_and_a_death(run, tmp_path: Path):
    """Archives are imported before it is ready, later ones when they come; its death is an error that names the log."""

    async def body() -> None:
        state = Path(f"/run/k3s-engine-{os.getpid()}")
        config = ContainerdConfig(
            tmp_path / "containerd", tmp_path / "etc" / "config.toml", tmp_path / "net.d", state=state, stream_port=0
        )
        folder = tmp_path / "images"
        folder.mkdir()
        (folder / "busybox.tar.gz").write_bytes(gzip.compress(busybox()))
        (folder / "broken.tar").write_bytes(b"nonsense")
        engine = Engine(EngineConfig(config, folder))
        ready = asyncio.Event()
        serving = asyncio.create_task(engine.run(ready.set))
        try:
            async with asyncio.timeout(30):
                await ready.wait()
                assert await engine.runtime.image_status(pause.IMAGE) is not None
                assert await engine.runtime.image_status(BUSYBOX) is not None
                await engine.runtime.remove_image(BUSYBOX)
                (folder / "again.tar").write_bytes(busybox())
                while True:
                    if await engine.runtime.image_status(BUSYBOX) is not None:
                        break
                    await asyncio.sleep(0.1)
            os.kill(int((state / "containerd.pid").read_text()), 9)
            with pytest.raises(RuntimeError, match=r"containerd ended with code -9; see .*containerd\.log"):
                await serving
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            mounts.unmount_below(str(state))
            shutil.rmtree(state, ignore_errors=True)

    run(body())
