"""What a pod's state machine is told (events) and what it asks for (commands): the alphabet of `pod.step`.

Pure values. Each command names the event that answers it; until then it is in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

from k3s.api.object import Object
from k3s.kubelet.runtime.interface import Container, Sandbox

# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PodChanged:
    """The object is new or changed (deletion included)."""

    pod: Object


@dataclass(frozen=True, slots=True)
class PodGone:
    """The object does not exist any more."""


@dataclass(frozen=True, slots=True)
class Evict:
    """The node cannot keep the pod."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class VolumesReady:
    """All volumes are there."""


@dataclass(frozen=True, slots=True)
class SetupFailed:
    """Volumes or sandbox could not be made; tried again later."""


@dataclass(frozen=True, slots=True)
class SandboxStarted:
    """The sandbox runs and has its addresses."""

    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class SandboxDied:
    """The sandbox's own process ended."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class SandboxStopped:
    """A dead sandbox has given back its address."""


@dataclass(frozen=True, slots=True)
class Started:
    """A container runs (its post-start hook is done)."""

    name: str
    container: Container


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A container did not come to run; `container` when it was made."""

    name: str
    reason: str
    message: str
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What the runtime says of a container now."""

    container: Container


@dataclass(frozen=True, slots=True)
class Vanished:
    """The runtime does not know a container any more."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe's result passed its threshold."""

    name: str
    kind: str
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class HookFailed:
    """The post-start hook failed: the container is to be ended."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """Nothing is being started any more; what the runtime holds for the pod follows as Observed."""

    sandbox: Sandbox | None


@dataclass(frozen=True, slots=True)
class Released:
    """Sandbox stopped, volumes unmounted."""


@dataclass(frozen=True, slots=True)
class Published:
    """The final status has reached the API server."""


@dataclass(frozen=True, slots=True)
class DeleteFailed:
    """The object could not be deleted, or the clean-up failed; tried again later."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Containers, sandboxes, folders are gone."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What a container waited for may be there now (a ConfigMap that was missing)."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    PodChanged
    | PodGone
    | Evict
    | VolumesReady
    | SetupFailed
    | SandboxStarted
    | SandboxDied
    | SandboxStopped
    | Started
    | StartFailed
    | Observed
    | Vanished
    | Probed
    | HookFailed
    | Aborted
    | Released
    | Published
    | DeleteFailed
    | Removed
    | Retry
    | Tick
)

# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    """Make folders and volumes. Answer: VolumesReady or SetupFailed."""


@dataclass(frozen=True, slots=True)
class StartSandbox:
    """Make the sandbox. Answer: SandboxStarted or SetupFailed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Stop a sandbox that has died, before a new one. Answer: SandboxStopped."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Image, container, post-start hook. Answer: Started or StartFailed, perhaps HookFailed."""

    name: str
    kind: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Pre-stop hook, SIGTERM, SIGKILL after the grace. Answer: Observed or Vanished."""

    name: str
    container_id: str
    grace_s: float
    message: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Cancel everything that is being started. Answer: Observed for each container, then Aborted."""


@dataclass(frozen=True, slots=True)
class Release:
    """Stop the sandbox, unmount the volumes. Answer: Released or DeleteFailed."""


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete the object with no grace, by its uid. Answer: PodGone (by watch) or DeleteFailed."""


@dataclass(frozen=True, slots=True)
class RemoveAll:
    """Remove containers, sandboxes, folders and logs. Answer: Removed or DeleteFailed."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Record an event about the pod: type, reason, message, and the container that it is about."""

    type: str
    reason: str
    message: str
    container: str = ""


Command = (
    PrepareVolumes
    | StartSandbox
    | StopSandbox
    | StartContainer
    | StopContainer
    | Abort
    | Release
    | DeleteObject
    | RemoveAll
    | Tell
)
