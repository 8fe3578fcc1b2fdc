"""A pod's files on this node: its volumes, its hosts file, its termination messages, its tokens, its log links."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k3s.api import times
from k3s.api.kinds import builtin
from k3s.api.object import Object, name, namespace, uid
from k3s.client.client import Client
from k3s.kubelet import launch, mounts, volumes
from k3s.kubelet.environment import VariableError, expand
from k3s.kubelet.launch import Mount, NodeFacts
from k3s.kubelet.runtime import interface as cri
from k3s.kubelet.runtime.interface import Container
from k3s.kubelet.sources import Sources
from k3s.kubelet.volumes import Token, VolumeError

log = logging.getLogger(__name__)

# A token is renewed when this part of its life is over, and at the latest after a day (the projected token's contract).
_TOKEN_REFRESH = 0.8
_TOKEN_MAX_S = 86_400.0
_MESSAGE_LIMIT = 4096
_LOG_LIMIT, _LOG_LINES = 2048, 80
_LINK_LIMIT = 255
_PROPAGATION = {
    "HostToContainer": "PROPAGATION_HOST_TO_CONTAINER",
    "Bidirectional": "PROPAGATION_BIDIRECTIONAL",
}


@dataclass
class _Known:
    text: str
    refresh_at: float


@dataclass
class PodFiles:
    """The files of one pod. `root` is the kubelet's folder, `logs` where container logs are."""

    client: Client
    sources: Sources
    root: Path
    logs: Path
    links: Path
    tokens: dict[tuple[str, str], _Known] = field(default_factory=dict)

    def folder(self, pod: Object) -> Path:
        """Everything of the pod but its logs."""
        return Path(volumes.pod_folder(str(self.root), pod))

    async def prepare(self, pod: Object, facts: NodeFacts, node: Mapping[str, str], now: float) -> None:
        """Makes all volumes and their first content. Raises VolumeError with the volume's name, ApiError for tokens."""
        folder = self.folder(pod)
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for plan in volumes.plans(pod, str(self.root)):
            try:
                mounts.prepare(plan)
            except (OSError, VolumeError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{plan.name}" : {error}') from None
        await self.refresh(pod, facts, node, now)

    async def refresh(self, pod: Object, facts: NodeFacts, node: Mapping[str, str], now: float) -> float | None:
        """Writes what changed into the volumes; answers when a token is due next. Raises VolumeError, ApiError."""
        for plan in volumes.plans(pod, str(self.root)):
            if not plan.payload:
                continue
            for wanted in volumes.tokens(plan.spec):
                await self._token(pod, wanted, now)
            try:
                content = volumes.payload(
                    plan.spec,
                    pod,
                    config_map=self.sources.config_map,
                    secret=self.sources.secret,
                    token=lambda wanted: self.tokens[(wanted.audience, wanted.path)].text,
                    node=node,
                    allocatable=facts.allocatable,
                )
                self.write(plan, content, pod)
            except (OSError, VolumeError, VariableError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{plan.name}" : {error}') from None
        return min((known.refresh_at for known in self.tokens.values()), default=None)

    def write(self, plan: volumes.Plan, content: Mapping[str, volumes.File], pod: Object) -> None:
        """Makes a volume show exactly these files. Raises VolumeError, OSError."""
        mounts.write_files(plan.path, content, group=plan.group, owner=volumes.owner(pod))

    async def _token(self, pod: Object, wanted: Token, now: float) -> None:
        key = (wanted.audience, wanted.path)
        known = self.tokens.get(key)
        if known is not None and now < known.refresh_at:
            return
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": pod["spec"].get("serviceAccountName") or "default", "namespace": namespace(pod)},
            "spec": {
                "audiences": [wanted.audience] if wanted.audience else [],
                "expirationSeconds": wanted.expiration_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name(pod), "uid": uid(pod)},
            },
        }
        answer = await self.client.create(builtin("v1", "ServiceAccount"), request, subresource="token")
        life = times.parse(answer["status"]["expirationTimestamp"]) - now
        refresh = now + min(life * _TOKEN_REFRESH, _TOKEN_MAX_S)
        self.tokens[key] = _Known(answer["status"]["token"], refresh)

    def mounts(
        self,
        pod: Object,
        container: Object,
        variables: Mapping[str, str],
        addresses: tuple[str, ...],
        facts: NodeFacts,
    ) -> list[Mount]:
        """The mounts of a container: its volumes, /etc/hosts and the termination message. Raises VolumeError."""
        plans = {plan.name: plan for plan in volumes.plans(pod, str(self.root))}
        made: list[Mount] = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            plan = plans.get(mount["name"])
            if plan is None:
                raise VolumeError(f'container "{container["name"]}" mounts the unknown volume "{mount["name"]}"')
            source = plan.path
            sub = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
            if sub:
                target = self.folder(pod) / "volume-subpaths" / plan.name / container["name"] / str(index)
                source = mounts.bind_subpath(plan.path, sub, str(target))
            # What we write ourselves stays ours.
            readonly = bool(mount.get("readOnly")) or plan.payload
            propagation = _PROPAGATION.get(mount.get("mountPropagation") or "", "PROPAGATION_PRIVATE")
            made.append(Mount(mount["mountPath"], source, readonly, propagation))
        taken = {mount.container_path for mount in made}
        if "/etc/hosts" not in taken:
            made.append(Mount("/etc/hosts", self._hosts(pod, addresses, facts)))
        return made

    def _hosts(self, pod: Object, addresses: tuple[str, ...], facts: NodeFacts) -> str:
        node_hosts = Path("/etc/hosts").read_text() if pod["spec"].get("hostNetwork") else ""
        path = self.folder(pod) / "etc-hosts"
        path.write_text(launch.hosts_file(pod, addresses, facts, node_hosts))
        os.chmod(path, 0o644)
        return str(path)

    def message_mount(self, pod: Object, container: Object, attempt: int) -> Mount:
        """The file that becomes the container's termination message, made empty and writable for any user."""
        path = self._message_path(pod, container["name"], attempt)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        path.write_bytes(b"")
        os.chmod(path, 0o666)
        return Mount(container.get("terminationMessagePath") or launch.TERMINATION_LOG, str(path))

    def _message_path(self, pod: Object, container: str, attempt: int) -> Path:
        return self.folder(pod) / "containers" / container / f"{attempt:08x}"

    def termination_message(self, pod: Object, ended: Container) -> str:
        """What the container left as its last words, or the end of its log when the policy says so."""
        with contextlib.suppress(OSError):
            data = _end_of(self._message_path(pod, ended.name, ended.attempt), _MESSAGE_LIMIT)
            if data:
                return data.decode(errors="replace")
        policy = ended.annotations.get(cri.MESSAGE_POLICY)
        if policy != "FallbackToLogsOnError" or ended.exit_code == 0:
            return ""
        with contextlib.suppress(OSError):
            return _log_tail(Path(self.log_path(pod, ended.name, ended.attempt)))
        return ""

    def log_path(self, pod: Object, container: str, attempt: int) -> str:
        """The log file of one run of a container."""
        return f"{launch.log_directory(pod, str(self.logs))}/{launch.log_path(container, attempt)}"

    def make_log_folder(self, pod: Object, container: str) -> None:
        """Makes the folder into which the runtime writes a container's logs."""
        (Path(launch.log_directory(pod, str(self.logs))) / container).mkdir(parents=True, exist_ok=True, mode=0o755)

    def link_log(self, pod: Object, started: Container) -> None:
        """Links the log where collectors of logs look for it (/var/log/containers)."""
        self.links.mkdir(parents=True, exist_ok=True, mode=0o755)
        stem = f"{name(pod)}_{namespace(pod)}_{started.name}-{started.id}"
        link = self.links / f"{stem[: _LINK_LIMIT - 4]}.log"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(self.log_path(pod, started.name, started.attempt))

    def unmount(self, pod: Object) -> None:
        """Unmounts everything of the pod. Raises OSError."""
        mounts.unmount_below(str(self.folder(pod)))

    def remove(self, pod: Object, ended: list[Container]) -> None:
        """Removes the pod's folder, logs and links. Raises OSError while something is still mounted."""
        mounts.remove_folder(str(self.folder(pod)))
        mounts.remove_folder(launch.log_directory(pod, str(self.logs)))
        for container in ended:
            stem = f"{name(pod)}_{namespace(pod)}_{container.name}-{container.id}"
            with contextlib.suppress(FileNotFoundError):
                (self.links / f"{stem[: _LINK_LIMIT - 4]}.log").unlink()


def _end_of(path: Path, limit: int) -> bytes:
    """The last bytes of a file, which a container may have made as large as it liked."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - limit))
        return file.read(limit)


def _log_tail(path: Path) -> str:
    lines = _end_of(path, 4 * _LOG_LIMIT).decode(errors="replace").splitlines()[-_LOG_LINES:]
    # A line is time, stream, tags and text.
    texts = [line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3]
    return "\n".join(texts)[-_LOG_LIMIT:]
