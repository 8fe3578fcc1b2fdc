"""The waiting pods: order, back-off, and being tried again when something changed."""

from __future__ import annotations

from k3s.scheduler.queue import Queue


def test_priority_then_age() -> None:
    """The most important first, then the one that waited longest."""
    queue = Queue()
    for key, priority in (("a", 0), ("b", 5), ("c", 0)):
        queue.add(key, priority)
    assert [queue.pop(0) for _ in range(4)] == ["b", "a", "c", None]


def test_adding_twice_is_trying_once() -> None:
    """A key that waits already is not tried a second time."""
    queue = Queue()
    queue.add("a", 0)
    queue.add("a", 0)
    assert (queue.pop(0), queue.pop(0)) == ("a", None)


def test_parked_until_the_cluster_changes() -> None:
    """An unschedulable pod waits for a change, then for its back-off, which doubles to ten seconds."""
    queue = Queue()
    queue.add("a", 0)
    backoffs, now = [], 0.0
    for _ in range(6):
        assert queue.pop(now) == "a"
        queue.park("a", now, queue.moves)
        assert queue.pop(now + 100) is None
        queue.move_all()
        due = queue.next_due(now)
        assert due is not None
        backoffs.append(due)
        assert queue.pop(now + due - 0.01) is None
        now += due
    assert backoffs == [1, 2, 4, 8, 10, 10]


def test_a_node_does_not_wait_for_the_back_off() -> None:
    """A change of a node brings unschedulable pods back at once, but not those whose attempt failed."""
    queue = Queue()
    for key in ("a", "b", "c"):
        queue.add(key, 0)
    assert [queue.pop(0) for _ in range(3)] == ["a", "b", "c"]
    queue.park("a", 0, queue.moves)
    queue.park("b", 0, queue.moves - 1)
    queue.retry("c", 0)
    queue.move_all(at_once=True)
    assert [queue.pop(0.1) for _ in range(3)] == ["a", "b", None]
    assert queue.next_due(0.1) == 0.9
    assert queue.pop(1) == "c"


def test_a_change_during_the_attempt_counts() -> None:
    """When the cluster changed while the pod was tried, it is not parked."""
    queue = Queue()
    queue.add("a", 0)
    seen = queue.moves
    queue.pop(0)
    queue.move_all()
    queue.park("a", 0, seen)
    assert queue.pop(1) == "a"


def test_five_minutes_at_the_most() -> None:
    """Without any change a parked pod is tried again after five minutes."""
    queue = Queue()
    queue.add("a", 0)
    queue.pop(0)
    queue.park("a", 0, queue.moves)
    assert queue.next_due(0) == 300
    assert queue.pop(299) is None
    assert queue.pop(300) == "a"


def test_removed_pods_do_not_come_back() -> None:
    """A bound or deleted pod is forgotten, and nothing is due any more."""
    queue = Queue()
    queue.add("a", 0)
    queue.remove("a")
    assert (queue.pop(0), queue.next_due(0), len(queue)) == (None, None, 0)
