"""A real containerd for tests: its own folders and network and a busybox image, gone without a trace afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s.kubelet import images, mounts, oci, pause
from k3s.kubelet.containerd import Containerd, ContainerdConfig
from k3s.kubelet.runtime.cri import CriRuntime

BUSYBOX = "docker.io/library/busybox:1"
_numbers = itertools.count()
_APPLETS = "sh sleep true false echo cat ls env id nc wget httpd hostname mount touch mkdir ps kill trap date head tail"


@dataclass
class Running:
    """containerd, and the connection to it."""

    config: ContainerdConfig
    containerd: Containerd
    runtime: CriRuntime


def busybox() -> bytes:
    """An image archive made from the machine's static busybox."""
    spec = oci.busybox(BUSYBOX, Path("/usr/bin/busybox").read_bytes(), _APPLETS.split(), platform.machine())
    return oci.archive(spec)


def _network(bridge: str, subnet: str, folder: Path) -> str:
    plugin = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": str(folder / "ipam"), "ranges": [[{"subnet": subnet}]]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": bridge, "plugins": [plugin, ports]})


@asynccontextmanager
async def containerd(folder: Path, **programs: Any) -> AsyncIterator[Running]:
    """Starts containerd with everything below `folder`; ends all its containers at the end. `programs` are fields of
    its configuration, for others than the machine's."""
    number = os.getpid() % 200, next(_numbers) % 250
    bridge = f"kt{number[0]}x{number[1]}"
    config = ContainerdConfig(
        root=folder / "containerd",
        config=folder / "etc" / "config.toml",
        cni_config=folder / "net.d",
        state=Path(f"/run/k3s-test-{os.getpid()}-{number[1]}"),
        stream_port=0,
        **programs,
    )
    config.cni_config.mkdir(parents=True)
    (config.cni_config / "10-test.conflist").write_text(
        _network(bridge, f"10.{number[0] + 20}.{number[1]}.0/24", folder)
    )
    child = Containerd(config)
    runtime = await child.start()
    try:
        importer = images.Importer(config.socket)
        await images.ensure_pause(runtime, importer, pause.IMAGE)
        await importer.load_bytes(busybox())
        yield Running(config, child, runtime)
    finally:
        if child.running:
            for sandbox in await runtime.list_pod_sandboxes():
                await runtime.stop_pod_sandbox(sandbox.id)
                await runtime.remove_pod_sandbox(sandbox.id)
        await runtime.close()
        await child.stop()
        remove = await asyncio.create_subprocess_exec("ip", "link", "del", bridge, stderr=subprocess.DEVNULL)
        await remove.wait()
        mounts.unmount_below(str(config.state))
        mounts.unmount_below(str(folder))
        shutil.rmtree(config.state, ignore_errors=True)
