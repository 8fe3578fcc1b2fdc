"""Who gets a seat and who waits, without a server and without a clock."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from k3s.apiserver.seats import CONCURRENCY_LIMIT, QUEUE_FULL, Plan, Seating, Ticket, deal, plan

ONE = Plan("one", False, 1, 0, 0, 8, 1, 50)


def seating(total: int, *plans: Plan) -> Seating:
    made = Seating(total)
    made.configure(plans, 0.0)
    return made


class Queued:
    """Requests that ask a level of one seat each, and the order in which they began."""

    def __init__(self, seats: Seating, level: str = "one") -> None:
        self.seats, self.level = seats, level
        self.begun: list[str] = []

    def ask(self, flow: str, width: int = 1, now: float = 0.0) -> Ticket | str:
        level = self.seats.levels[self.level]
        ticket = Ticket(level.tally("schema"), width, flow, now, lambda: self.begun.append(flow), None)
        return level.enqueue(ticket) or ticket

    def tickets(self, flow: str, count: int) -> list[Ticket]:
        return [each for each in (self.ask(flow) for _ in range(count)) if isinstance(each, Ticket)]


def level(name: str, **limited: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}


def test_objects_become_plans() -> None:
    exempt = {"metadata": {"name": "e"}, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 2}}}
    assert plan(exempt) == Plan("e", True, 2, 0, None, 0, 0, 0)
    queuing = {"queues": 4, "handSize": 2, "queueLengthLimit": 3}
    limited = level("l", lendablePercent=50, limitResponse={"type": "Queue", "queuing": queuing})
    assert plan(limited) == Plan("l", False, 30, 50, None, 4, 2, 3)
    rejecting = level("r", nominalConcurrencyShares=0, borrowingLimitPercent=10, limitResponse={"type": "Reject"})
    assert plan(rejecting) == Plan("r", False, 0, 0, 10, 0, 0, 0)


def test_seats_are_shared_by_shares_and_rounded_up() -> None:
    seats = seating(10, ONE, Plan("two", False, 2, 50, None, 8, 1, 50))
    assert [each.nominal for each in seats.levels.values()] == [4, 7]
    assert (seats.levels["two"].lower, seats.levels["two"].upper) == (3, 17)


def test_an_exempt_level_is_never_full() -> None:
    tally = seating(1, Plan("e", True, 0, 0, 0, 0, 0, 0), ONE).levels["e"].tally("s")
    assert all(tally.enter(0.0) for _ in range(100)) and tally.running == 100


def test_no_total_is_no_limit() -> None:
    tally = seating(0, ONE).levels["one"].tally("s")
    assert all(tally.enter(0.0) for _ in range(100))


LENDER, FREE = Plan("lender", False, 1, 50, 0, 8, 1, 50), Plan("free", False, 1, 0, None, 8, 1, 50)


def test_a_level_borrows_what_others_do_not_ask_for_from_the_next_period_on() -> None:
    """Four seats each; two may be lent. Who asks again has them again ten seconds later."""
    seats = seating(8, LENDER, FREE)
    free, lending = seats.levels["free"].tally("s"), seats.levels["lender"].tally("s")
    assert [free.enter(1.0) for _ in range(7)] == [True] * 5 + [False] * 2
    queued = Queued(seats, "free")
    queued.tickets("waits", 3)
    assert (queued.begun, free.level.current, lending.level.current) == ([], 5, 3)
    seats.adjust(10.0)
    assert (free.level.current, lending.level.current) == (6, 2) and queued.begun == ["waits"]
    assert [lending.enter(11.0) for _ in range(3)] == [True, True, False]
    owning = Queued(seats, "lender")
    owning.tickets("own", 2)
    seats.adjust(20.0)
    assert (free.level.current, lending.level.current) == (4, 4) and owning.begun == ["own"] * 2


def test_nobody_borrows_beyond_its_limit() -> None:
    seats = seating(8, LENDER, FREE._replace(borrowing=25))
    free = seats.levels["free"].tally("s")
    for period in (1, 2, 3):
        while free.enter(period * 10.0):
            pass
    assert free.level.used == free.level.current == 5


def test_periods_that_went_by_are_made_up_for() -> None:
    """An hour of quiet, made up for at once, leaves the same figures as its 360 periods one by one."""
    made = []
    for steps in ([3600.0], [period * 10.0 for period in range(1, 361)]):
        seats = seating(8, LENDER, FREE)
        tally = seats.levels["free"].tally("s")
        assert tally.enter(1.0) and tally.enter(2.0)
        tally.leave(4.0)
        for now in steps:
            seats.adjust(now)
        made.append([level.limits() for level in seats.levels.values()])
        assert seats.due == 3610.0
        tally.leave(3605.0)
        seats.adjust(3610.0)
        made[-1].append(tally.level.limits())
    for once, each in zip(*made, strict=True):
        assert once == pytest.approx(each)
    assert made[0][2]["demand_seats_average"] == pytest.approx(0.5)


def test_a_request_that_is_wider_than_its_level_runs_alone() -> None:
    seats = seating(2, ONE)
    tally = seats.levels["one"].tally("s")
    assert tally.enter(0.0, 5) and not tally.enter(0.0)
    tally.release(5, 1.0)
    assert tally.enter(1.0) and not tally.enter(1.0, 5)
    jail = seating(2, ONE, ONE._replace(name="jail", shares=0)).levels["jail"].tally("s")
    assert not jail.enter(0.0)


def test_who_lent_all_its_seats_is_still_served_one_at_a_time_until_they_are_shared_out_again() -> None:
    seats = seating(8, LENDER._replace(lendable=100), FREE)
    free, lending = seats.levels["free"].tally("s"), seats.levels["lender"].tally("s")
    assert all(free.enter(1.0) for _ in range(8)) and lending.level.current == 0
    assert lending.enter(2.0) and not lending.enter(2.0)
    queued = Queued(seats, "lender")
    queued.tickets("own", 2)
    lending.leave(3.0)
    assert queued.begun == ["own"]
    seats.adjust(10.0)
    assert queued.begun == ["own"] * 2


def test_exempt_levels_have_what_they_need_and_the_others_give_way() -> None:
    """Three of eight seats are left: two are never lent, the third is for both by what they used of what they lend."""
    plans = [Plan("exempt", True, 0, 0, 0, 0, 0, 0), Plan("a", False, 1, 50, 0, 8, 1, 50)]
    seats = seating(8, *plans, Plan("b", False, 1, 100, 0, 8, 1, 50))
    for name, count in (("exempt", 5), ("a", 4), ("b", 4)):
        assert [seats.levels[name].tally("s").enter(1.0) for _ in range(count)].count(True) >= 3
    Queued(seats, "a").tickets("w", 4)
    Queued(seats, "b").tickets("w", 4)
    seats.adjust(10.0)
    assert [level.current for level in seats.levels.values()] == [5, 2, 1] and seats.fair == 0.0


def test_a_quiet_user_does_not_wait_for_a_noisy_one() -> None:
    """The quiet one, who comes last, is served next but one though a hundred are before it."""
    seats = seating(1, ONE._replace(length=1000))
    tally = seats.levels["one"].tally("schema")
    assert tally.enter(0.0)
    queued = Queued(seats)
    quiet = next(name for name in map(str, range(99)) if deal(f"schema\0{name}", 8, 1) != deal("schema\0noisy", 8, 1))
    running = queued.tickets("noisy", 100)
    running.extend(queued.tickets(quiet, 3))
    tally.leave(0.0)
    for turn in range(1, 8):
        assert seats.levels["one"].used == 1
        next(each for each in running if each.began == turn - 1).leave(float(turn))
    assert queued.begun[:6].count(quiet) == 3


def test_wide_and_long_requests_count_for_what_they_took() -> None:
    """One of four seats, then the narrow ones of another flow until they took as much."""
    seats = seating(4, ONE)
    tally = seats.levels["one"].tally("schema")
    assert tally.enter(0.0, 4)
    queued = Queued(seats)
    other = next(name for name in map(str, range(99)) if deal(f"schema\0{name}", 8, 1) != deal("schema\0wide", 8, 1))
    wide = queued.ask("wide", 4)
    queued.ask("wide", 4)
    queued.tickets(other, 4)
    tally.release(4, 0.0)
    assert queued.begun == ["wide"] and isinstance(wide, Ticket)
    wide.leave(1.0)
    assert queued.begun == ["wide", *[other] * 4]


def test_a_full_queue_and_a_level_without_queues_send_away() -> None:
    seats = seating(1, ONE._replace(length=2, queues=1), ONE._replace(name="none", queues=0))
    queued = Queued(seats)
    assert seats.levels["one"].tally("schema").enter(0.0)
    assert [isinstance(queued.ask("a"), Ticket) for _ in range(2)] == [True, True]
    assert queued.ask("a") == QUEUE_FULL
    assert Queued(seats, "none").ask("a") == CONCURRENCY_LIMIT
    assert seats.levels["one"].tally("schema").rejected == {QUEUE_FULL: 1}
    assert seats.levels["none"].tally("schema").rejected == {CONCURRENCY_LIMIT: 1}


def test_who_gives_up_makes_way_and_who_has_begun_cannot() -> None:
    """A wide one that waits holds up the narrow one after it only until it goes."""
    seats = seating(2, ONE._replace(queues=1))
    tally = seats.levels["one"].tally("schema")
    assert tally.enter(0.0)
    queued = Queued(seats)
    wide, narrow = queued.ask("wide", 2), queued.ask("narrow")
    assert not tally.enter(0.0)
    assert isinstance(wide, Ticket) and wide.give_up(1.0)
    assert queued.begun == ["narrow"] and isinstance(narrow, Ticket)
    assert not narrow.give_up(2.0)
    narrow.leave(3.0)
    assert (seats.levels["one"].used, seats.waiting) == (1, 0)


def test_changes_count_at_once_and_what_is_gone_is_answered_first() -> None:
    seats = seating(1, ONE)
    one = seats.levels["one"]
    tally = one.tally("schema")
    assert tally.enter(0.0)
    queued = Queued(seats)
    queued.tickets("a", 3)
    seats.configure([ONE._replace(queues=2, hand=2)], 1.0)
    assert (one.waiting, len(one.queues), queued.begun) == (3, 2, [])
    seats.configure([Plan("new", False, 1, 0, 0, 0, 0, 0)], 2.0)
    assert one.quiescing and one.waiting == 3
    tally.leave(3.0)
    assert queued.begun == ["a"]
    seats.configure([ONE._replace(queues=0), Plan("exempt", True, 0, 0, 0, 0, 0, 0)], 4.0)
    assert not one.quiescing and queued.ask("a") == CONCURRENCY_LIMIT and one.waiting == 2


def test_an_idle_level_that_is_gone_is_forgotten() -> None:
    seats = seating(2, ONE, ONE._replace(name="two"))
    late = seats.levels["two"].tally("schema")
    seats.configure([ONE], 0.0)
    assert list(seats.levels) == ["one"] and seats.levels["one"].nominal == 2
    assert late.enter(0.0) and late.level.used == 1
    late.leave(0.0)
    assert late.level.used == 0


@pytest.mark.parametrize(("queues", "hand"), [(128, 6), (4, 8), (1, 1)])
def test_a_hand_is_of_different_queues_and_always_the_same(queues: int, hand: int) -> None:
    dealt = deal("flow", queues, hand)
    assert dealt == deal("flow", queues, hand)
    assert len(set(dealt)) == min(hand, queues) and all(0 <= each < queues for each in dealt)


@pytest.mark.parametrize("seed", range(20))
def test_seats_are_never_taken_twice_and_never_lost(seed: int) -> None:
    """Whatever comes, goes, gives up or is configured: at most all seats are used, and in the end none."""
    random = Random(seed)
    names = ("a", "b", "c")
    seats = seating(12, *(_any(random, name) for name in names))
    running: list[tuple[Any, int]] = []
    waiting: list[Ticket] = []
    for step in range(400):
        now, width = float(step), random.choice((1, 1, 1, 2))
        level = seats.levels[random.choice(names)]
        tally = level.tally("s")
        what = random.random()
        if what < 0.5:
            ticket = Ticket(tally, width, random.choice("xyz"), now, lambda: None, None)
            if tally.enter(now, width):
                ticket.began = now
                running.append((ticket, width))
            elif level.enqueue(ticket) is None:
                waiting.append(ticket)
                level.dispatch(now)
        elif what < 0.9 and running:
            running.pop(random.randrange(len(running)))[0].leave(now)
        elif what < 0.97 and waiting:
            waiting[-1].give_up(now)
            if waiting[-1].began is None:
                waiting.pop()
        else:
            seats.configure([_any(random, name) for name in names], now)
        running += [(ticket, ticket.width) for ticket in waiting if ticket.began is not None]
        waiting = [ticket for ticket in waiting if ticket.began is None]
        levels = seats.levels.values()
        assert sum(each.used for each in levels) == sum(width for _, width in running)
        assert all(each.demand.seats == each.used + each.wanted("s") for each in levels)
        assert sum(each.current for each in levels) <= sum(each.nominal for each in levels) + len(levels)
        assert seats.waiting == sum(each.waiting for each in levels) == len(waiting)
    while running:
        running.pop()[0].leave(1000.0)
        running += [(ticket, ticket.width) for ticket in waiting if ticket.began is not None]
        waiting = [ticket for ticket in waiting if ticket.began is None]
    assert all((each.used, each.demand.seats) == (0, 0) for each in seats.levels.values())
    assert all(each.tally("s").running == 0 for each in seats.levels.values())


def _any(random: Random, name: str) -> Plan:
    queues = random.choice((0, 1, 4))
    borrowing = random.choice((None, 0, 50))
    return Plan(name, False, random.randint(1, 4), random.choice((0, 50, 100)), borrowing, queues, min(2, queues), 5)
