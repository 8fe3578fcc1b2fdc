"""Telling of pods that fit no node: the condition PodScheduled and the event FailedScheduling.

Each such pod costs two writes that nobody waits for. They begin when a burst of new pods is over, so that the requests
of those who do wait go first, and go out many at a time, so that the datastore commits them together.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from k3s.api import object as objects
from k3s.api import times
from k3s.api.errors import ApiError, Conflict, NotFound, OutcomeUnknown
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.base.aio import Mailbox, Tasks, debounced
from k3s.base.clock import Clock
from k3s.client.client import Client
from k3s.client.informer import Informer
from k3s.client.recorder import Recorder, reference

log = logging.getLogger(__name__)

_POD = builtin("v1", "Pod")
# A pod that comes alone is told of after this; in a burst without an end, the first one after the longer time.
_QUIET_S, _AT_MOST_S = 0.05, 2.0
# Pods told of at the same time.
_TOGETHER = 64


class _Untold(NamedTuple):
    pod: Object
    message: str


class Teller:
    """Tells of failed attempts, soon; of a pod that is tried again before that, the last one."""

    def __init__(self, client: Client, pods: Informer, clock: Clock, recorder: Recorder, tasks: Tasks) -> None:
        self._tasks = tasks
        self._client = client
        self._pods = pods
        self._clock = clock
        self._recorder = recorder
        self._keys: Mailbox[str] = Mailbox()
        self._untold: dict[str, _Untold] = {}

    def put(self, key: str, pod: Object, message: str) -> None:
        """An attempt to place `pod` has failed."""
        self._untold[key] = _Untold(pod, message)
        self._keys.put(key)

    async def run(self) -> None:
        """Tells until cancelled."""
        async for keys in debounced(self._keys, _QUIET_S, _AT_MOST_S):
            for start in range(0, len(keys), _TOGETHER):
                together = keys[start : start + _TOGETHER]
                await asyncio.wait([self._tasks.spawn(self._tell(key), "unschedulable") for key in together])

    async def _tell(self, key: str) -> None:
        untold = self._untold.pop(key, None)
        if untold is None:
            return  # tried again while it waited for its turn, and told of with that
        tried, message = untold
        self._recorder.tell(reference(tried), "Warning", "FailedScheduling", message)
        pod = self._pods.get(key)
        if pod is None or objects.uid(pod) != objects.uid(tried) or pod["spec"].get("nodeName"):
            return  # gone, or placed in the meantime
        conditions = pod.get("status", {}).get("conditions") or ()
        old = next((c for c in conditions if c["type"] == "PodScheduled"), None)
        if old is not None and (old["status"], old.get("message")) == ("False", message):
            return
        since = times.format(self._clock.now())
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == "False" else since,
        }
        await patch_status(self._client, pod, {"conditions": [condition]})


async def patch_status(client: Client, pod: Object, status: Object) -> None:
    """Changes a part of the status of this very pod; one that is gone or was made anew is left alone."""
    patch = {"status": status, "metadata": {"uid": objects.uid(pod)}}
    try:
        await client.patch(
            _POD, objects.namespace(pod), objects.name(pod), patch, type="strategic", subresource="status"
        )
    except (NotFound, Conflict):
        return
    except (ApiError, OutcomeUnknown) as error:
        log.warning("Cannot update pod status: %s", error, extra={"pod": objects.key(pod)})
