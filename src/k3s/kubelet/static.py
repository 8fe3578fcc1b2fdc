"""Static pods: manifests in a folder of the node, run without the API server and shown there as mirror pods."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import yaml

from k3s.api import schema, times
from k3s.api.errors import AlreadyExists, ApiError, BadRequest, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object, encode, key, namespace, uid
from k3s.base.aio import Mailbox, Tasks
from k3s.base.clock import Clock
from k3s.base.inotify import FolderWatch
from k3s.client.client import Client

log = logging.getLogger(__name__)

MIRROR, HASH = "kubernetes.io/config.mirror", "kubernetes.io/config.hash"
SOURCE, SEEN = "kubernetes.io/config.source", "kubernetes.io/config.seen"
_ENDINGS = (".yaml", ".yml", ".json")
_RETRY_S = 2.0

Changed = Callable[[str, "Object | None", str], None]


def is_mirror(pod: Object) -> bool:
    """Whether an object is the image of a static pod, which nobody runs."""
    return MIRROR in (pod["metadata"].get("annotations") or {})


def from_manifest(text: str, node: str, path: str, now: float) -> Object:
    """The static pod of a manifest: named for its node, with a uid that is made from its content.

    Raises ValueError that names the file.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"Cannot run the static pod of {path}: {error}") from None
    if not isinstance(found, dict) or found.get("kind") != "Pod" or not isinstance(found.get("spec"), dict):
        raise ValueError(f"Cannot run the static pod of {path}: it holds no Pod")
    digest = hashlib.md5(encode([node, path, found]), usedforsecurity=False).hexdigest()
    try:
        found, _unknown = schema.prune(builtin("v1", "Pod"), {**found, "apiVersion": "v1"})
    except BadRequest as error:
        raise ValueError(f"Cannot run the static pod of {path}: {error}") from None
    meta = dict(found.get("metadata") or {})
    if not meta.get("name") or not found.get("spec", {}).get("containers"):
        raise ValueError(f"Cannot run the static pod of {path}: it needs metadata.name and spec.containers")
    annotations = {**(meta.get("annotations") or {}), HASH: digest, SOURCE: "file", SEEN: times.format(now)}
    tolerations = [*(found["spec"].get("tolerations") or ()), {"operator": "Exists", "effect": "NoExecute"}]
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **meta,
            "name": f"{meta['name']}-{node}",
            "namespace": meta.get("namespace") or "default",
            "uid": digest,
            "annotations": annotations,
            "creationTimestamp": times.format(now),
        },
        "spec": {**found["spec"], "nodeName": node, "tolerations": tolerations},
        "status": {"phase": "Pending"},
    }
    pod = schema.defaults(builtin("v1", "Pod"), made)
    _check(pod, path)
    return pod


def _check(pod: Object, path: str) -> None:
    """Refuses what the API server would refuse: nobody else looks at a manifest before it is run."""
    from k3s.api.validation import validate_create

    causes = validate_create(builtin("v1", "Pod"), pod)
    if causes:
        text = "; ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
        raise ValueError(f"Cannot run the static pod of {path}: {text}")


def mirror_of(pod: Object, node_uid: str) -> Object:
    """The object that shows a static pod in the API."""
    meta = pod["metadata"]
    annotations = {**meta["annotations"], MIRROR: meta["annotations"][HASH]}
    shown = {k: v for k, v in meta.items() if k in ("name", "namespace", "labels")} | {"annotations": annotations}
    if node_uid:
        reference = {"apiVersion": "v1", "kind": "Node", "name": pod["spec"]["nodeName"], "uid": node_uid}
        shown["ownerReferences"] = [{**reference, "controller": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": shown, "spec": pod["spec"]}


class StaticPods:
    """Follows a folder of manifests and keeps the mirrors in the API."""

    def __init__(self, folder: Path, node: str, client: Client, clock: Clock) -> None:
        self._folder, self._node, self._client, self._clock = folder, node, client, clock
        self._pods: dict[str, Object] = {}
        self._by_path: dict[str, str] = {}
        self._mirrors: Mailbox[str] = Mailbox()
        self._changed: Changed = lambda _where, _new, _gone: None

    def pods(self) -> list[Object]:
        """The static pods now."""
        return list(self._pods.values())

    async def start(self, tasks: Tasks, changed: Changed) -> None:
        """Reads the folder, then follows it; `changed(key, pod, uid of what was before)` for later changes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scan()
        self._changed = changed
        tasks.spawn(self._follow(), "static pods")
        tasks.spawn(self._keep_mirrors(), "mirror pods")

    async def _follow(self) -> None:
        wake = asyncio.Event()
        watch = FolderWatch(self._folder, lambda _name: wake.set())
        try:
            while True:
                self._scan()
                await wake.wait()
                wake.clear()
        finally:
            watch.close()

    def _scan(self) -> None:
        found: dict[str, Object] = {}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(".") or not path.name.endswith(_ENDINGS):
                continue
            try:
                pod = from_manifest(path.read_text(), self._node, str(path), self._clock.now())
            except (OSError, ValueError) as error:
                log.error("Static pod is not run", extra={"path": str(path), "reason": str(error)})
                continue
            found[key(pod)] = pod
        for where, old in list(self._pods.items()):
            if where not in found:
                del self._pods[where]
                self._changed(where, None, uid(old))
                self._mirrors.put(where)
        for where, new in found.items():
            before = self._pods.get(where)
            if before is not None and uid(before) == uid(new):
                continue
            self._pods[where] = new
            self._changed(where, new, uid(before) if before else "")
            self._mirrors.put(where)

    def mirror_seen(self, mirror: Object) -> None:
        """The API holds this mirror: it goes when its pod is another or none, and comes again when it is deleted."""
        pod = self._pods.get(key(mirror))
        stale = pod is None or mirror["metadata"]["annotations"][MIRROR] != pod["metadata"]["annotations"][HASH]
        if stale or "deletionTimestamp" in mirror["metadata"]:
            self._mirrors.put(key(mirror))

    def mirror_gone(self, where: str) -> None:
        """A mirror was deleted: it is made again while its pod is there."""
        if where in self._pods:
            self._mirrors.put(where)

    async def _keep_mirrors(self) -> None:
        while True:
            where = await self._mirrors.take()
            try:
                await self._mirror(where)
            except (ApiError, OutcomeUnknown) as error:
                log.warning("Mirror pod is not up to date", extra={"pod": where, "reason": str(error)})
                self._mirrors.put(where)
                await asyncio.sleep(_RETRY_S)

    async def _mirror(self, where: str) -> None:
        kind = builtin("v1", "Pod")
        space, _, name = where.partition("/")
        pod = self._pods.get(where)
        try:
            there = await self._client.get(kind, space, name)
        except NotFound:
            there = None
        if there is not None and is_mirror(there):
            wanted = pod["metadata"]["annotations"][HASH] if pod else ""
            if there["metadata"]["annotations"][MIRROR] == wanted and "deletionTimestamp" not in there["metadata"]:
                return
            await self._client.delete(kind, namespace(there), name, grace_s=0, uid=uid(there))
        if pod is None:
            return
        node = await self._client.get(builtin("v1", "Node"), "", self._node)
        try:
            await self._client.create(kind, mirror_of(pod, uid(node)))
        except AlreadyExists:
            self._mirrors.put(where)
