"""The seam between the kubelet and what runs containers: the verbs of the Container Runtime Interface (CRI v1).

Configurations go in as dicts in the shape of the CRI messages (field names of runtime.v1), results come back as small
frozen values. Two implementations pass the same contract tests: `cri` (gRPC to a real runtime) and `fake` (memory).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Config = Mapping[str, Any]

# Labels that every sandbox and container carries, so that a restarted kubelet finds its pods again (CRI convention).
POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"

CREATED, RUNNING, EXITED, UNKNOWN = "created", "running", "exited", "unknown"


class RuntimeFailure(Exception):
    """The runtime refused or failed; `code` is the name of the gRPC status, such as NOT_FOUND or UNAVAILABLE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def gone(self) -> bool:
        """What was asked for does not exist (any more)."""
        return self.code == "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Version:
    """Who the runtime is."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the runtime and its network can take pods, and why not."""

    runtime: bool
    network: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's shared environment. `created_at` in seconds since the epoch; `ips` is empty in lists."""

    id: str
    pod_uid: str
    namespace: str
    name: str
    attempt: int
    ready: bool
    created_at: float
    ips: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """A container. Times in seconds since the epoch (0: not yet); lists fill only what is known without asking."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def pod_uid(self) -> str:
        """The uid of the pod to which it belongs."""
        return self.labels.get(POD_UID, "")


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image; `uid` and `username` are what its configuration says to run as."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Filesystem:
    """How much of a file system a store uses."""

    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended in a container."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: processor nanoseconds since start, bytes of memory and of its writable layer."""

    container_id: str
    labels: Mapping[str, str]
    at: float
    cpu_ns: int
    memory_working_bytes: int
    memory_usage_bytes: int
    memory_rss_bytes: int
    disk_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something ended or began: kind is exit, oom, start, delete, or resync (events may have been missed)."""

    kind: str
    container_id: str = ""


class Runtime(Protocol):
    """What the kubelet asks of a container runtime. Every verb raises RuntimeFailure."""

    async def version(self) -> Version:
        """Name and version."""

    async def status(self) -> Readiness:
        """Readiness of runtime and network."""

    async def run_pod_sandbox(self, config: Config, handler: str = "") -> str:
        """Makes and starts a sandbox; answers its id."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Ends all containers of a sandbox and its network; fine when it is already stopped or gone."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes a sandbox and what is left in it; fine when it is gone."""

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        """The sandbox with its addresses."""

    async def list_pod_sandboxes(self, pod_uid: str = "") -> list[Sandbox]:
        """All sandboxes, or those of a pod."""

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str:
        """Makes a container; answers its id."""

    async def start_container(self, container_id: str) -> None:
        """Starts a container that was created."""

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        """Asks a container to end and kills it after `timeout_s`; fine when it has ended or is gone."""

    async def remove_container(self, container_id: str) -> None:
        """Removes a container, running or not; fine when it is gone."""

    async def container_status(self, container_id: str) -> Container:
        """The container with all that is known."""

    async def list_containers(self, pod_uid: str = "") -> list[Container]:
        """All containers, or those of a pod."""

    async def update_container_resources(self, container_id: str, linux: Config) -> None:
        """Changes the limits of a container (LinuxContainerResources)."""

    async def reopen_container_log(self, container_id: str) -> None:
        """Makes the runtime open the log file anew after it was renamed."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Runs a command to its end; DEADLINE_EXCEEDED when that takes longer."""

    async def exec_url(self, request: Config) -> str:
        """Where to stream an exec (fields of ExecRequest)."""

    async def attach_url(self, request: Config) -> str:
        """Where to stream an attach (fields of AttachRequest)."""

    async def port_forward_url(self, request: Config) -> str:
        """Where to stream port forwarding (fields of PortForwardRequest)."""

    async def pull_image(self, image: str, auth: Config | None, sandbox_config: Config | None) -> str:
        """Fetches an image; answers its reference."""

    async def image_status(self, image: str) -> Image | None:
        """The image, or None when it is not there."""

    async def list_images(self) -> list[Image]:
        """All images."""

    async def remove_image(self, image: str) -> None:
        """Removes an image; fine when it is gone."""

    async def image_fs_info(self) -> list[Filesystem]:
        """Where images are stored and what they use."""

    async def container_usage(self) -> list[Usage]:
        """What every running container uses now."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """What happens, from now on, without end; begins with a resync once it listens, and after each gap."""

    async def close(self) -> None:
        """Ends the connection; containers go on."""
