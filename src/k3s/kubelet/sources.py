"""The ConfigMaps and Secrets that pods of this node refer to, each followed by a watch of its own while it is needed.

A node may only read what its pods name (the node authorizer), so there is no list of everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from k3s.api.kinds import builtin
from k3s.api.object import Object, namespace, uid
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.kubelet import environment, volumes

# How long a pod waits for an object's first answer before its start is tried again later.
_FIRST_ANSWER_S = 10.0

Key = tuple[str, str, str]  # kind, namespace, name


@dataclass
class _Followed:
    informer: Informer
    task: asyncio.Task[None]
    ready: asyncio.Event
    users: set[str] = field(default_factory=set)


class Sources:
    """What pods need of the API besides themselves. `changed(pod uid)` is called when something of it changes."""

    def __init__(
        self, client: Client, clock: Clock, entropy: Entropy, tasks: Tasks, changed: Callable[[str], None]
    ) -> None:
        self._client = client
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks
        self._changed = changed
        self._followed: dict[Key, _Followed] = {}

    async def need(self, pod: Object, more: set[tuple[str, str]] | None = None) -> bool:
        """Follows what the pod refers to and waits for the first answers; False when one did not come in time."""
        wanted = environment.references(pod) | volumes.references(pod) | (more or set())
        for reference in pod["spec"].get("imagePullSecrets") or ():
            wanted.add(("Secret", reference["name"]))
        waiting: list[asyncio.Event] = []
        for kind, name in wanted:
            key = (kind, namespace(pod), name)
            found = self._followed.get(key) or self._follow(key)
            found.users.add(uid(pod))
            waiting.append(found.ready)
        try:
            async with asyncio.timeout(_FIRST_ANSWER_S):
                for event in waiting:
                    await event.wait()
        except TimeoutError:
            return False
        return True

    def _follow(self, key: Key) -> _Followed:
        kind, space, name = key
        informer = Informer(
            self._client,
            builtin("v1", kind),
            namespace=space,
            fields=f"metadata.name={name}",
            clock=self._clock,
            entropy=self._entropy,
        )
        ready = asyncio.Event()
        informer.subscribe(lambda _key, _old, _new: self._tell(key))
        task = self._tasks.spawn(informer.run(ready.set), f"follow {kind} {space}/{name}")
        made = self._followed[key] = _Followed(informer, task, ready)
        return made

    def _tell(self, key: Key) -> None:
        followed = self._followed.get(key)
        if followed is not None and followed.ready.is_set():
            for user in list(followed.users):
                self._changed(user)

    def forget(self, pod_uid: str) -> None:
        """Stops following what only this pod needed."""
        for key, followed in list(self._followed.items()):
            followed.users.discard(pod_uid)
            if not followed.users:
                followed.task.cancel()
                del self._followed[key]

    def config_map(self, space: str, name: str) -> Object | None:
        """A ConfigMap that a pod needs, as it was last seen."""
        return self._get("ConfigMap", space, name)

    def secret(self, space: str, name: str) -> Object | None:
        """A Secret that a pod needs, as it was last seen."""
        return self._get("Secret", space, name)

    def _get(self, kind: str, space: str, name: str) -> Object | None:
        followed = self._followed.get((kind, space, name))
        return None if followed is None else followed.informer.get(f"{space}/{name}")
