"""Having the image of a container: pull policy, shared pulls, import of archives, garbage collection."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from k3s.api.object import Object
from k3s.base.aio import Tasks
from k3s.kubelet import pause
from k3s.kubelet.runtime.interface import Image, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

# Those that k3s takes, in any case of letters.
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz", ".tar.lz4")
# ctr reads plain archives only.
_UNPACK = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".zst": "zstd",
    ".tzst": "zstd",
    ".bz2": "bzip2",
    ".tbz": "bzip2",
    ".lz4": "lz4",
}
# What ctr says of an image that it imports.
_IMPORTED = re.compile(r"^unpacking (\S+) \(sha256:", re.MULTILINE)
# The runtime tells by this label which images are to be kept.
_PIN = "io.cri-containerd.pinned=pinned"
_PARALLEL_PULLS = 3
_DEFAULT_REGISTRY = "docker.io"


class ImageFailure(Exception):
    """The image is not there: reason for the container's status, message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def full_name(image: str) -> str:
    """The reference with registry and tag spelled out. Raises ImageFailure (InvalidImageName)."""
    if not image or image != image.strip() or any(c.isspace() for c in image):
        raise ImageFailure("InvalidImageName", f'Failed to apply default image tag "{image}": invalid reference format')
    name, at, digest = image.partition("@")
    first, slash, rest = name.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, rest) if has_registry else (_DEFAULT_REGISTRY, name)
    if path != path.lower() and ":" not in path:
        raise ImageFailure(
            "InvalidImageName", f'couldn\'t parse image name "{image}": repository name must be lowercase'
        )
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if not digest and ":" not in path.rpartition("/")[2]:
        path += ":latest"
    return f"{registry}/{path}{at}{digest}"


def pull_policy(container: Object) -> str:
    """Always, IfNotPresent or Never; defaulting has set it, else the tag decides."""
    chosen = container.get("imagePullPolicy")
    if chosen:
        return str(chosen)
    image = str(container.get("image", ""))
    tagged = ":" in image.rpartition("/")[2] and not image.endswith(":latest")
    return "IfNotPresent" if tagged or "@" in image else "Always"


def credentials(image: str, secrets: Iterable[Object]) -> dict[str, str] | None:
    """AuthConfig for the registry of `image` from pull secrets (dockerconfigjson and dockercfg), or None."""
    registry = full_name(image).partition("/")[0]
    for secret in secrets:
        data = secret.get("data") or {}
        try:
            found = _registry_auth(data, registry)
        except (ValueError, TypeError, AttributeError, binascii.Error, msgspec.DecodeError):
            # What is wrong with it is not said: it would show some of it.
            log.warning("Pull secret is not readable", extra={"secret": secret["metadata"]["name"]})
            continue
        if found is not None:
            return found
    return None


def _registry_auth(data: Mapping[str, str], registry: str) -> dict[str, str] | None:
    """What a pull secret has for one registry. Raises what reading something else than a configuration raises."""
    if raw := data.get(".dockerconfigjson"):
        auths = msgspec.json.decode(base64.b64decode(raw)).get("auths") or {}
    else:
        auths = msgspec.json.decode(base64.b64decode(data.get(".dockercfg", "e30=")))
    for server, entry in auths.items():
        host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if host in (registry, f"index.{registry}"):
            return _auth(entry, server)
    return None


def _auth(entry: Mapping[str, Any], server: str) -> dict[str, str]:
    user, password = entry.get("username", ""), entry.get("password", "")
    if not user and entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    made = {"username": user, "password": password, "identity_token": entry.get("identitytoken", "")}
    return {**{k: v for k, v in made.items() if v}, "server_address": server}


Tell = Callable[[str, str, str], None]


class Images:
    """The images of one node. Several pods that want the same image share one pull."""

    def __init__(self, runtime: Runtime, tasks: Tasks) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._pulls: dict[str, asyncio.Task[RuntimeFailure | None]] = {}
        self._slots = asyncio.Semaphore(_PARALLEL_PULLS)

    async def ensure(self, container: Object, secrets: Sequence[Object], sandbox_config: Any, tell: Tell) -> Image:
        """The image of a container, pulled by its policy. `tell(type, reason, message)` records events.

        Raises ImageFailure with the reason that the container's status shows.
        """
        wanted = str(container.get("image", ""))
        name = full_name(wanted)
        policy = pull_policy(container)
        try:
            found = await self._runtime.image_status(name)
        except RuntimeFailure as failure:
            raise ImageFailure("ImageInspectError", f'Failed to inspect image "{wanted}": {failure.message}') from None
        if found is not None and policy != "Always":
            tell(
                "Normal",
                "Pulled",
                f'Container image "{wanted}" already present on machine and can be accessed by the pod',
            )
            return found
        if policy == "Never":
            text = f'Container image "{wanted}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", text)
            raise ImageFailure("ErrImageNeverPull", text)
        tell("Normal", "Pulling", f'Pulling image "{wanted}"')
        started = asyncio.get_running_loop().time()
        try:
            await self._pull(name, credentials(wanted, secrets), sandbox_config)
        except RuntimeFailure as failure:
            text = f'Failed to pull image "{wanted}": {failure.message}'
            tell("Warning", "Failed", text)
            tell("Warning", "Failed", "Error: ErrImagePull")
            raise ImageFailure("ErrImagePull", text) from None
        found = await self._runtime.image_status(name)
        if found is None:
            raise ImageFailure("ImageInspectError", f'image "{wanted}" is missing right after its pull')
        took = asyncio.get_running_loop().time() - started
        tell(
            "Normal", "Pulled", f'Successfully pulled image "{wanted}" in {took:.3f}s. Image size: {found.size} bytes.'
        )
        return found

    async def _pull(self, name: str, auth: dict[str, str] | None, sandbox_config: Any) -> None:
        key = name if auth is None else f"{name} {sorted(auth.items())}"
        task = self._pulls.get(key)
        if task is None:
            task = self._tasks.spawn(self._pull_once(key, name, auth, sandbox_config), f"pull {name}")
            self._pulls[key] = task
        # A pod that goes away gives up waiting; the pull goes on for the others.
        failure = await asyncio.shield(task)
        if failure is not None:
            raise failure

    async def _pull_once(
        self, key: str, name: str, auth: dict[str, str] | None, sandbox_config: Any
    ) -> RuntimeFailure | None:
        try:
            async with self._slots:
                await self._runtime.pull_image(name, auth, sandbox_config)
            return None
        except RuntimeFailure as failure:
            return failure
        finally:
            del self._pulls[key]


@dataclass(frozen=True, slots=True)
class Importer:
    """Loads image archives into containerd with its own client `ctr`, and pins what was in them: on a host that reaches
    no registry an image that was collected would never come back."""

    socket: Path
    ctr: str = "ctr"

    async def load(self, path: Path) -> None:
        """Imports one archive, all platforms, and pins its images. Raises RuntimeError with what ctr said, or which
        program is missing."""
        for name in await self._load(path):
            await self.pin(name)

    async def _load(self, path: Path) -> list[str]:
        unpack = _UNPACK.get(path.suffix.lower())
        if unpack is None:
            return await self._import(str(path))
        if shutil.which(unpack) is None:
            raise RuntimeError(f"Cannot import image archive {path}: {unpack} is not installed; install {unpack}")
        reading, writing = os.pipe()
        try:
            unpacking = await asyncio.create_subprocess_exec(unpack, "-dc", str(path), stdout=writing)
            os.close(writing)
            writing = -1
            names = await self._import("-", reading)
            if await unpacking.wait() != 0:
                raise RuntimeError(f"Cannot import image archive {path}: {unpack} cannot read it")
            return names
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    async def load_bytes(self, archive: bytes) -> None:
        """Imports an archive from memory, which is made again when it is gone: not pinned."""
        await self._import("-", subprocess.PIPE, archive)

    async def pin(self, name: str) -> None:
        """Keeps an image from being collected. Raises RuntimeError with what ctr said."""
        await self._run(f"Cannot pin image {name}", ("label", name, _PIN))

    async def _import(self, source: str, given: int = subprocess.DEVNULL, data: bytes | None = None) -> list[str]:
        command = ["import", "--all-platforms", source]
        # Since 2.0 it only tells names in full when it does the work itself.
        if "--local" in await self._run("Cannot ask ctr for its options", ("import", "--help")):
            command.insert(1, "--local")
        return imported(await self._run(f"Cannot import image archive {source}", command, given, data))

    async def _run(
        self, failing: str, words: Sequence[str], given: int = subprocess.DEVNULL, data: bytes | None = None
    ) -> str:
        process = await asyncio.create_subprocess_exec(
            *(self.ctr, "--address", str(self.socket), "--namespace", "k8s.io", "images", *words),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, errors = await process.communicate(data)
        if process.returncode != 0:
            raise RuntimeError(f"{failing}: {errors.decode(errors='replace').strip()}")
        return out.decode(errors="replace")


def imported(told: str) -> list[str]:
    """The names of images in what `ctr images import` says, each once."""
    return list(dict.fromkeys(_IMPORTED.findall(told)))


def archives(folder: Path) -> list[Path]:
    """The image archives of a folder, in order of names; hidden files are none."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in found if path.name.lower().endswith(_ARCHIVES))


def listed_images(folder: Path) -> list[str]:
    """The images that the folder's .txt files name, one a line, to be pulled."""
    names: list[str] = []
    found = (path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else ()
    for path in sorted(path for path in found if path.name.lower().endswith(".txt")):
        names += [line.strip() for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
    return names


async def ensure_pause(runtime: Runtime, importer: Importer, name: str) -> None:
    """Makes and imports the pause image when it is not there. Raises RuntimeError when no program for it is there."""
    if await runtime.image_status(name) is None:
        await importer.load_bytes(pause.image(name))


def to_collect(
    images: Sequence[Image],
    in_use: set[str],
    first_seen: Mapping[str, float],
    last_used: Mapping[str, float],
    bytes_to_free: int,
    now: float,
    *,
    minimum_age_s: float = 120.0,
) -> list[Image]:
    """Which images to remove to free that many bytes: unused ones, the longest unused first; pinned ones stay.

    `in_use` has ids and names; the times are by image id. Source: the kubelet's image garbage collection.
    """
    free = [
        image
        for image in images
        if not image.pinned
        and not ({image.id, *image.tags, *image.digests} & in_use)
        and now - first_seen.get(image.id, now) >= minimum_age_s
    ]
    free.sort(key=lambda image: (last_used.get(image.id, 0.0), first_seen.get(image.id, 0.0)))
    chosen: list[Image] = []
    for image in free:
        if bytes_to_free <= 0:
            break
        chosen.append(image)
        bytes_to_free -= image.size
    return chosen


def bytes_over(capacity: int, used: int, high_percent: int = 85, low_percent: int = 80) -> int:
    """How many bytes to free: above the high threshold, down to the low one; else 0."""
    if capacity <= 0 or used * 100 < high_percent * capacity:
        return 0
    return used - capacity * low_percent // 100
