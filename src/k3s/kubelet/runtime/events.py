"""containerd's own event stream, as messages: what it sends when a task starts, ends or runs out of memory.

Pure: the table of messages and how an envelope becomes a RuntimeEvent. Source: containerd's events API, version 1
(the same on the wire in containerd 1.4 to 2.x).
"""

from __future__ import annotations

from typing import Any

from k3s.base.protobuf import Codec
from k3s.kubelet.runtime.interface import RuntimeEvent

SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"

_MESSAGES: dict[str, dict[str, list[Any]]] = {
    "SubscribeRequest": {"filters": [1, "string", "repeated"]},
    "Any": {"type_url": [1, "string"], "value": [2, "bytes"]},
    "Envelope": {"namespace": [2, "string"], "topic": [3, "string"], "event": [4, "Any"]},
    # All task events begin with the container's id; `id` names the process (an exec has its own).
    "TaskExit": {"container_id": [1, "string"], "id": [2, "string"], "exit_status": [4, "uint32"]},
    "Task": {"container_id": [1, "string"]},
    "Container": {"id": [1, "string"]},
}

codec = Codec(_MESSAGES, {})

_TOPICS = {
    "/tasks/exit": "exit",
    "/tasks/oom": "oom",
    "/tasks/start": "start",
    "/containers/delete": "delete",
}


def filters(namespace: str) -> list[str]:
    """The filters to subscribe with: one for each topic that matters, in containerd's filter language."""
    return [f'namespace=="{namespace}",topic=="{topic}"' for topic in _TOPICS]


def from_envelope(envelope: dict[str, Any]) -> RuntimeEvent | None:
    """What an envelope tells, or None when it is nothing that changes a pod (the end of an exec)."""
    kind = _TOPICS.get(envelope["topic"])
    event = envelope["event"]
    if kind is None or event is None:
        return None
    data = event["value"]
    if kind == "delete":
        return RuntimeEvent(kind, codec.decode("Container", data)["id"])
    if kind == "exit":
        exited = codec.decode("TaskExit", data)
        if exited["id"] != exited["container_id"]:
            return None
        return RuntimeEvent(kind, exited["container_id"])
    return RuntimeEvent(kind, codec.decode("Task", data)["container_id"])
