"""Events: counted up or told anew, named so that they are found."""

from __future__ import annotations

import asyncio

from k3s.base.clock import LoopClock
from k3s.base.entropy import SeededEntropy
from k3s.client.recorder import KEPT_S, Recorder, Seen, Told, counted, event, identity, reference

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "a", "uid": "u"}}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}


def test_the_same_event_is_counted_for_an_hour() -> None:
    """The second of the same kind grows the first; an hour later it is a new one."""
    seen = Seen("default", "a.x", 1, 1000.0)
    assert counted(seen, 1010.0) == Seen("default", "a.x", 2, 1010.0)
    assert counted(seen, 1000.0 + KEPT_S) is None
    assert counted(None, 0) is None


def test_identity() -> None:
    """Another container, reason or message is another event; another revision of the pod is not."""
    told = Told(reference(POD), "Normal", "Pulled", "here", 0.0)
    newer = {**POD, "metadata": {**POD["metadata"], "resourceVersion": "9"}}  # type: ignore[dict-item]
    assert identity(told) == identity(told._replace(about=reference(newer), at=5.0))
    others = [told._replace(reason="Killing"), told._replace(message="there")]
    others.append(told._replace(about=reference(POD, "spec.containers{c}")))
    assert all(identity(told) != identity(other) for other in others)


def test_events_about_cluster_objects_live_in_default() -> None:
    """A node has no namespace; the event names it without one."""
    made = event(Told(reference(NODE), "Warning", "Gone", "x" * 2000, 0.0), "test", "host", "s")
    assert made["metadata"] == {"name": "n.s", "namespace": "default"}
    assert "namespace" not in made["involvedObject"]
    assert made["source"] == {"component": "test", "host": "host"}
    assert len(made["message"]) == 1024


class _Slow:
    """A client whose answers come when all that was sent together has been seen."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        self.together: list[list[str]] = []
        self.done = asyncio.Event()

    async def _sent(self, what: str) -> None:
        self.under_way.append(what)
        await asyncio.sleep(0)
        if self.under_way:
            self.together.append(self.under_way)
            self.under_way = []
        if sum(map(len, self.together)) == 104:
            self.done.set()

    async def create(self, kind: object, made: dict) -> None:
        await self._sent(made["message"])

    async def patch(self, kind: object, namespace: str, name: str, patch: dict) -> None:
        await self._sent(f"{patch['count']} times")


def test_different_events_go_together_and_the_same_one_after_the_other() -> None:
    """So that the datastore commits many at once, and none is counted before it is there."""

    async def body() -> list[list[str]]:
        client = _Slow()
        recorder = Recorder(client, "test", LoopClock(0.0), SeededEntropy(1))  # type: ignore[arg-type]
        for message in ("a", "b", "a", "c", *map(str, range(100))):
            recorder.tell(reference(POD), "Normal", "Why", message)
        running = asyncio.ensure_future(recorder.run())
        await client.done.wait()
        running.cancel()
        return client.together

    sent = asyncio.run(body())
    assert sent[0] == ["a", "b"]
    assert sent[1][:2] == ["2 times", "c"]
    assert max(map(len, sent)) == 64
