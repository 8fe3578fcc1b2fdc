"""containerd as a child of the agent: its configuration, its start, its end.

Containers do not depend on it: their shims live on when containerd ends and are found again when it starts. The same
state folder, root and socket therefore have to be used each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k3s.base import files
from k3s.base.inotify import appears
from k3s.kubelet import pause
from k3s.kubelet.runtime.cri import CriRuntime
from k3s.kubelet.runtime.interface import RuntimeFailure

log = logging.getLogger(__name__)

# Snapshotters for file systems that we do not use: each costs time at every start.
_DISABLED = ("snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper", "snapshotter.v1.zfs")
# Runtimes with runc's command line, which need nothing but their program.
_HANDLERS = ("crun",)
_START_S = 60.0
# The CRI part of containerd comes up a little after its socket; asked at these distances.
_CRI_RETRY_S = 0.03
_STOP_S = 10.0
_LOG_LIMIT_BYTES = 50 << 20


@dataclass(frozen=True, slots=True)
class ContainerdConfig:
    """Where containerd lives. `binary` and `runc` are found on PATH when they are names."""

    root: Path  # <agent>/containerd
    config: Path  # <agent>/etc/containerd/config.toml
    cni_config: Path  # <agent>/etc/cni/net.d
    state: Path = Path("/run/k3s/containerd")
    cni_bin: Path = Path("/usr/lib/cni")
    sandbox_image: str = pause.IMAGE
    snapshotter: str = ""  # empty: overlayfs where it works, else native
    binary: str = "containerd"
    runc: str = "runc"
    # Handlers that pods may choose (RuntimeClass) -> programs that stand in for runc.
    handlers: Mapping[str, str] = field(default_factory=dict)
    stream_port: int = 10010
    stream_idle_s: float = 4 * 3600.0
    selinux: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """The gRPC socket."""
        return self.state / "containerd.sock"


def config_text(config: ContainerdConfig, *, snapshotter: str, restrict_oom: bool) -> str:
    """The text of config.toml (version 2, which containerd 1.4 to 2.x read)."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    disabled = ", ".join(f'"io.containerd.{name}"' for name in _DISABLED)
    return f"""# Written by k3s at every start; changes are lost.
version = 2
root = "{config.root}"
state = "{config.state}"
disabled_plugins = [{disabled}]

[grpc]
  address = "{config.socket}"

[{cri}]
  stream_server_address = "127.0.0.1"
  stream_server_port = "{config.stream_port}"
  stream_idle_timeout = "{config.stream_idle_s:.3f}s"
  enable_selinux = {str(config.selinux).lower()}
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  restrict_oom_score_adj = {str(restrict_oom).lower()}
  sandbox_image = "{config.sandbox_image}"

[{cri}.cni]
  bin_dir = "{config.cni_bin}"
  conf_dir = "{config.cni_config}"

[{cri}.containerd]
  snapshotter = "{snapshotter}"
  disable_snapshot_annotations = true
  default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{config.runc}"

[{cri}.registry]
  config_path = "{config.config.parent / "certs.d"}"
""" + "".join(_handler(cri, name, program) for name, program in sorted(config.handlers.items()))


def _handler(cri: str, name: str, program: str) -> str:
    return f"""
[{cri}.containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.{name}.options]
  SystemdCgroup = false
  BinaryName = "{program}"
"""


def handlers_here() -> dict[str, str]:
    """The handlers whose programs are on PATH, as upstream finds them (spec 5.2)."""
    return {name: program for name in _HANDLERS if (program := shutil.which(name))}


def overlay_works(folder: Path) -> bool:
    """Whether overlayfs can be mounted with its layers in `folder` (it cannot on some network and container disks)."""
    with tempfile.TemporaryDirectory(dir=files.folder(folder), prefix=".overlay-") as name:
        base = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (base / part).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        mounted = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, f"{base}/merged"], capture_output=True, check=False
        )
        if mounted.returncode == 0:
            subprocess.run(["umount", f"{base}/merged"], capture_output=True, check=True)
        return mounted.returncode == 0


def oom_lowering_refused() -> bool:
    """Whether this process may not lower oom_score_adj (inside an unprivileged container, for example)."""
    path = Path("/proc/self/oom_score_adj")
    now = int(path.read_text())
    if now <= -1000:
        return False
    try:
        path.write_text(str(now - 1))
    except OSError:
        return True
    path.write_text(str(now))
    return False


def prepare(config: ContainerdConfig) -> str:
    """Writes config.toml and the folders; answers the snapshotter. Raises RuntimeError when none can work."""
    snapshotter = config.snapshotter
    if snapshotter in ("", "overlayfs") and not overlay_works(config.root):
        if snapshotter:
            raise RuntimeError(
                f"Cannot use the overlayfs snapshotter: {config.root} does not support overlayfs; "
                "use --snapshotter=native or a data directory on another file system"
            )
        log.warning("Overlayfs does not work here, images are copied instead", extra={"folder": str(config.root)})
        snapshotter = "native"
    snapshotter = snapshotter or "overlayfs"
    files.folder(config.state)
    files.folder(config.cni_config)
    files.write_changed(
        config.config, config_text(config, snapshotter=snapshotter, restrict_oom=oom_lowering_refused()), 0o600
    )
    return snapshotter


class Containerd:
    """The running child. `start` waits until it answers, `wait` until it has ended."""

    def __init__(self, config: ContainerdConfig) -> None:
        self.config = config
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> CriRuntime:
        """Starts containerd and answers a connection to it. Raises RuntimeError with the remedy when it fails."""
        config = self.config
        binary = shutil.which(config.binary)
        if binary is None:
            raise RuntimeError(f"Cannot start containers: {config.binary} is not installed; install containerd")
        prepare(config)
        _stop_stale(config)
        log_path = config.root / "containerd.log"
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
        with contextlib.suppress(FileNotFoundError):
            config.socket.unlink()
        with log_path.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(binary, "--config", str(config.config)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **config.environment},
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        files.write(config.state / "containerd.pid", f"{self._process.pid}\n", 0o644)
        return await self._ready()

    async def _ready(self) -> CriRuntime:
        assert self._process is not None
        process = self._process
        deadline = asyncio.get_running_loop().time() + _START_S
        ended = asyncio.ensure_future(process.wait())  # noqa: TID251 - waited for or cancelled below
        here = asyncio.ensure_future(appears(self.config.socket, _START_S))  # noqa: TID251 - the same
        try:
            await asyncio.wait({ended, here}, return_when=asyncio.FIRST_COMPLETED)
            runtime = CriRuntime(str(self.config.socket))
            while not ended.done():
                with contextlib.suppress(RuntimeFailure):
                    await runtime.version()
                    await runtime.status()
                    return runtime
                if asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(_CRI_RETRY_S)
        finally:
            for task in (ended, here):
                task.cancel()
        raise RuntimeError(
            f"Cannot start containerd: it {'ended' if process.returncode is not None else 'does not answer'}; "
            f"see {self.config.root / 'containerd.log'}"
        )

    @property
    def running(self) -> bool:
        """Whether the child is there."""
        return self._process is not None and self._process.returncode is None

    async def wait(self) -> int:
        """Waits until containerd has ended; answers its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends containerd; containers go on."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except asyncio.TimeoutError:
            log.warning("Containerd did not end in time and is killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _die_with_parent() -> Callable[[], None]:
    """What the child does first: asks the kernel for SIGTERM when we die (PR_SET_PDEATHSIG)."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(1, signal.SIGTERM, 0, 0, 0)

    return ask


def _stop_stale(config: ContainerdConfig) -> None:
    """Ends a containerd of ours that outlived its agent: two on one root would destroy its database."""
    try:
        pid = int((config.state / "containerd.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    if os.fsencode(config.config) not in command:
        return
    log.warning("An older containerd still runs and is stopped", extra={"pid": pid})
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        # Blocks the loop: nothing else runs at this point of the start.
        import select

        if not select.select([handle], [], [], _STOP_S)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], _STOP_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
