"""What the agent process has to know; apart from its parts, so that the server can judge it without loading them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from k3s.api.object import Object
from k3s.base.tls import UNSAID, Listening


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the agent process has to know; made from the options by `run.settings`."""

    data_dir: Path
    server: str
    token: str = field(repr=False)
    node_name: str
    node_ip: str = ""
    node_external_ip: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Object, ...] = ()
    pause_image: str = ""
    snapshotter: str = "overlayfs"
    runtime_endpoint: str = ""
    resolv_conf: str = ""
    max_pods: int = 110
    stream_idle_s: float = 4 * 3600.0  # exec, attach and port-forward without data end after this; 0: never
    seccomp_default: bool = False
    tls: Listening = UNSAID
    protects_kernel: bool = False
    node_args: tuple[str, ...] = ()

    @property
    def agent_dir(self) -> Path:
        """`<data-dir>/agent`."""
        return self.data_dir / "agent"
