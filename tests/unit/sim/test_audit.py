"""The audit of histories: a correct one passes, and every kind of violation that is planted is found."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from k3s.sim.audit import BOOKMARK, audit
from k3s.sim.history import (
    ADDED,
    ANY,
    DELETED,
    FAILED,
    LIST,
    LOST,
    MODIFIED,
    NOTHING,
    OK,
    READ,
    REFUSED,
    REMOVE,
    WRITE,
    History,
    Operation,
    Seen,
    Stretch,
    Told,
    Watch,
)


class World:
    """A correct server, driven by hand; what clients do is recorded."""

    def __init__(self) -> None:
        self.history = History(log_from=0)
        self.revision = 0
        self.now: dict[str, Seen] = {}
        self.follower = Watch("follower", stretches=[Stretch(0, ())])
        self.history.watches.append(self.follower)

    def write(self, key: str, value: str, expected: int = ANY, outcome: str = OK) -> Operation:
        operation = self.history.begin("writer", WRITE, key, value, expected)
        self.apply(key, value)
        if outcome == OK:
            operation.revision = self.revision
        return self.end(operation, outcome)

    def apply(self, key: str, value: str | None) -> None:
        before = self.now.pop(key, None)
        self.revision += 1
        seen = Seen(self.revision, key, value)
        self.history.log.append(seen)
        told = seen if value is not None else Seen(self.revision, key, before.value if before else None)
        kind = DELETED if value is None else MODIFIED if before else ADDED
        self.events.append(Told(kind, told))
        if value is not None:
            self.now[key] = seen

    @property
    def events(self) -> list[Told]:
        return self.follower.stretches[-1].events

    def remove(self, key: str, outcome: str = OK) -> Operation:
        operation = self.history.begin("writer", REMOVE, key, expected=self.now[key].revision)
        self.apply(key, None)
        return self.end(operation, outcome)

    def read(self, key: str) -> Operation:
        operation = self.history.begin("reader", READ, key)
        seen = self.now.get(key)
        operation.value, operation.revision = (seen.value, seen.revision) if seen else (None, 0)
        return self.end(operation, OK)

    def list(self) -> Operation:
        operation = self.history.begin("reader", LIST)
        operation.revision, operation.items = self.revision, tuple(self.now.values())
        return self.end(operation, OK)

    def end(self, operation: Operation, outcome: str) -> Operation:
        operation.outcome, operation.ended = outcome, self.history.moment()
        return operation

    def found(self) -> str:
        return "\n".join(audit(self.history))


def lived() -> World:
    """Writes, removals and reads one after the other, all as they should be."""
    world = World()
    world.write("a", "a1", NOTHING)
    world.write("b", "b1", NOTHING)
    world.write("a", "a2", 1)
    world.read("a")
    world.list()
    world.remove("a")
    world.read("a")
    world.write("a", "a3", NOTHING)
    world.write("b", "b2")
    world.list()
    return world


def test_a_correct_history_passes() -> None:
    world = lived()
    world.follower.upto = world.revision
    assert world.found() == ""


def test_random_correct_histories_pass() -> None:
    """Operations that overlap, each applied at a moment within; refusals, failures, losses that were done or not."""
    chance = random.Random(3)
    for _ in range(30):
        world = World()
        open_: list[tuple[Operation, list[bool]]] = []
        for number in range(120):
            if open_ and chance.random() < 0.5:
                operation, done = open_.pop(chance.randrange(len(open_)))
                if not done:
                    act(world, operation, done, chance)
                world.end(operation, operation.outcome if operation.outcome != LOST else LOST)
            else:
                key = chance.choice("abc")
                what = chance.choice([WRITE, WRITE, WRITE, REMOVE, READ, LIST])
                known = world.now.get(key)
                expected = chance.choice([ANY, NOTHING, known.revision if known else NOTHING]) if what == WRITE else ANY
                if what == REMOVE:
                    if known is None:
                        continue
                    expected = known.revision
                value = f"{key}{number}" if what == WRITE else None
                operation = world.history.begin("x", what, "" if what == LIST else key, value, expected)
                done: list[bool] = []
                open_.append((operation, done))
                if chance.random() < 0.5:
                    act(world, operation, done, chance)
        world.follower.upto = world.revision
        assert world.found() == ""


def act(world: World, operation: Operation, done: list[bool], chance: random.Random) -> None:
    done.append(True)
    now = world.now.get(operation.key)
    at = now.revision if now else NOTHING
    if operation.what == LIST:
        operation.revision, operation.items, operation.outcome = world.revision, tuple(world.now.values()), OK
    elif operation.what == READ:
        operation.value, operation.revision = (now.value, now.revision) if now else (None, 0)
        operation.outcome = OK
    elif operation.expected not in (ANY, at):
        operation.outcome = REFUSED
    elif chance.random() < 0.1:
        operation.outcome = FAILED
    else:
        world.apply(operation.key, operation.value)
        operation.outcome = LOST if chance.random() < 0.2 else OK
        operation.revision = world.revision if operation.outcome == OK and operation.what == WRITE else 0


def stale_read(world: World) -> None:
    old = world.now["b"]
    world.write("b", "b3")
    read = world.read("b")
    read.value, read.revision = old.value, old.revision


def stale_absence(world: World) -> None:
    world.write("c", "c1")
    read = world.read("c")
    read.value, read.revision = None, 0


def stale_list(world: World) -> None:
    listed = world.list()
    world.write("b", "b3")
    again = world.list()
    again.revision, again.items = listed.revision, listed.items


def reads_go_back(world: World) -> None:
    """Two reads during one write: the first one sees it, the second one does not."""
    write = world.history.begin("writer", WRITE, "b", "b3")
    old = world.now["b"]
    world.apply("b", "b3")
    world.read("b")
    second = world.read("b")
    second.value, second.revision = old.value, old.revision
    write.revision = world.revision
    world.end(write, OK)


def read_of_the_future(world: World) -> None:
    read = world.history.begin("reader", READ, "b")
    read.value, read.revision = "b9", world.revision + 1
    world.end(read, OK)
    world.write("b", "b9")


def list_of_two_moments(world: World) -> None:
    old = dict(world.now)
    world.write("a", "a8")
    world.write("b", "b8")
    torn = world.list()
    torn.items = (world.now["b"], old["a"])


def lost_write(world: World) -> None:
    write = world.history.begin("writer", WRITE, "b", "b3")
    write.revision = world.revision + 1
    world.end(write, OK)


def lost_removal(world: World) -> None:
    removal = world.history.begin("writer", REMOVE, "b", expected=world.now["b"].revision)
    world.end(removal, OK)


def write_done_twice(world: World) -> None:
    world.write("b", "b3", outcome=LOST)
    world.apply("b", "b4")
    world.history.begin("other", WRITE, "b", "b4")
    world.apply("b", "b3")


def write_of_nobody(world: World) -> None:
    world.apply("b", "ghost")


def refused_and_done(world: World) -> None:
    world.write("b", "b3", outcome=FAILED)


def refused_without_a_reason(world: World) -> None:
    write = world.history.begin("writer", WRITE, "b", "b3", world.now["b"].revision)
    world.end(write, REFUSED)


def created_over_another(world: World) -> None:
    world.write("b", "b3", NOTHING)


def update_of_what_changed(world: World) -> None:
    seen = world.now["b"].revision
    world.write("b", "b3")
    world.write("b", "b4", seen)


def revision_went_back(world: World) -> None:
    """After a restart a revision that was told is given to another write."""
    write = world.write("b", "b3")
    again = world.history.begin("writer", WRITE, "a", "a4")
    again.revision = write.revision
    world.end(again, OK)


def order_of_writes(world: World) -> None:
    """The second of two writes got the smaller revision."""
    first, second = world.write("b", "b3"), world.write("b", "b4")
    first.began, first.ended, second.began, second.ended = second.began, second.ended, first.began, first.ended


def gap(world: World) -> None:
    del world.events[3]


def missing_end(world: World) -> None:
    world.events.pop()


def duplicate(world: World) -> None:
    world.events.insert(3, world.events[2])


def reordered(world: World) -> None:
    world.events[2], world.events[3] = world.events[3], world.events[2]


def wrong_type(world: World) -> None:
    world.events[2] = Told(ADDED, world.events[2].seen)


def wrong_last_state(world: World) -> None:
    assert world.events[3].type == DELETED
    world.events[3] = Told(DELETED, Seen(4, "a", "a1"))


def wrong_bookmark(world: World) -> None:
    """A bookmark that promises more than was sent."""
    world.events.insert(3, Told(BOOKMARK, Seen(5, "", None)))


def late_bookmark(world: World) -> None:
    world.events.insert(4, Told(BOOKMARK, Seen(2, "", None)))


def resume(world: World, after: int, events: list[Told]) -> None:
    world.follower.stretches.append(Stretch(after, None, events))


def gap_after_resuming(world: World) -> None:
    later = world.events[3:]
    del world.events[3:]
    resume(world, 3, later[1:])


def duplicate_after_resuming(world: World) -> None:
    resume(world, world.revision, [world.events[-1]])


def resumed_elsewhere(world: World) -> None:
    resume(world, world.revision + 3, [])


def old_events_for_a_future_revision(world: World) -> None:
    """A watch after a revision that is not there yet begins with what is older."""
    early = Watch("early", stretches=[Stretch(world.revision, None, list(world.events[2:]))])
    world.history.watches.append(early)


def lost_at_compaction(world: World) -> None:
    """The deletion is missing for who resumes, though the creation after it is there."""
    late = Watch("late", stretches=[Stretch(2, None, [e for e in world.events[2:] if e.type != DELETED])])
    world.history.watches.append(late)


def initial_state_is_older_than_it_says(world: World) -> None:
    items = (Seen(3, "a", "a2"), Seen(2, "b", "b1"))
    world.history.watches.append(Watch("late", stretches=[Stretch(6, items)]))


def event_of_nothing(world: World) -> None:
    """An event at a revision that wrote something else."""
    world.events.insert(6, Told(MODIFIED, Seen(7, "b", "b2")))


def selected(world: World, events: list[Told]) -> None:
    """A watcher that chooses values ending in 1 or 3."""
    choosing = Watch("choosing", lambda seen: (seen.value or "")[-1] in "13", [Stretch(0, (), events)])
    choosing.upto = world.revision
    world.history.watches.append(choosing)


RIGHT = [
    Told(ADDED, Seen(1, "a", "a1")),
    Told(ADDED, Seen(2, "b", "b1")),
    Told(DELETED, Seen(3, "a", "a1")),
    Told(ADDED, Seen(5, "a", "a3")),
    Told(DELETED, Seen(6, "b", "b1")),
]


def test_a_selector_sees_what_enters_and_leaves() -> None:
    world = lived()
    selected(world, list(RIGHT))
    assert world.found() == ""


def left_selector_without_a_word(world: World) -> None:
    selected(world, RIGHT[:2] + RIGHT[3:])


def entered_as_modified(world: World) -> None:
    selected(world, [*RIGHT[:3], Told(MODIFIED, Seen(5, "a", "a3")), RIGHT[4]])


PLANTED: dict[Callable[[World], None], str] = {
    stale_read: "stale",
    stale_absence: "never true",
    stale_list: "stale",
    reads_go_back: "stale",
    read_of_the_future: "before it was asked for",
    list_of_two_moments: "not the state at revision",
    lost_write: "acknowledged write lost",
    lost_removal: "acknowledged deletion lost",
    write_done_twice: "written twice",
    write_of_nobody: "nobody wrote ghost",
    refused_and_done: "refused and done",
    refused_without_a_reason: "never true",
    created_over_another: "compare-and-swap",
    update_of_what_changed: "compare-and-swap",
    revision_went_back: "two truths at revision",
    order_of_writes: "before it was asked for",
    gap: "not told of",
    missing_end: "never told of",
    duplicate: "was told of",
    reordered: "was told of",
    wrong_type: "told ADDED instead of MODIFIED",
    wrong_last_state: "which was a2",
    wrong_bookmark: "was told of",
    late_bookmark: "a bookmark at 2 after 4",
    gap_after_resuming: "not told of DELETED",
    duplicate_after_resuming: "was told of",
    resumed_elsewhere: "resumed after",
    old_events_for_a_future_revision: "was told of",
    lost_at_compaction: "not told of DELETED",
    initial_state_is_older_than_it_says: "not the state at revision",
    event_of_nothing: "written twice",
    left_selector_without_a_word: "not told of DELETED",
    entered_as_modified: "told MODIFIED instead of ADDED",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_violation_is_found(plant: Callable[[World], None]) -> None:
    world = lived()
    world.follower.upto = world.revision
    plant(world)
    world.follower.upto = world.revision
    assert PLANTED[plant] in world.found(), world.found()
