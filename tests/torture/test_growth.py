"""The short form of the growth run, and that its judge sees what grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.torture.growth import Compaction, Plan, Sample, grow, judge

PLAN = Plan(seconds=300.0)
FLAT = Sample(0.0, 10_000, 4.0, 400.0, 500.0, 2.0, 20.0, 40.0, 0.0)
ROUNDS = [Compaction(60.0 * number, 60.0 * number + 20, 100, 20.0) for number in range(5)]


def samples(change: Callable[[float], dict[str, float]] = lambda at: {}) -> list[Sample]:
    return [FLAT._replace(**{"at": 10.0 * n, **change(10.0 * n)}) for n in range(1, 31)]  # type: ignore[arg-type]


def test_what_is_flat_is_well() -> None:
    assert judge(PLAN, samples(), ROUNDS) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda at: {"wal": 5.0 + at / 20}, "the write-ahead log grew to 20.0 MB"),
        (lambda at: {"file": 400 + 2 * at}, "the file grew from 800 to 1000 MB"),
        (lambda at: {"rss": 400 + at}, "the resident memory grew from 600 to 700 MB"),
        (lambda at: {"p99": 10 + at * at / 100}, "p99 of writes grew"),
        (lambda at: {"writes": 9000}, "only 900 writes/s"),
    ],
)
def test_what_grows_is_told(change: Callable[[float], dict[str, float]], word: str) -> None:
    problems = judge(PLAN, samples(change), ROUNDS)
    assert len(problems) == 1
    assert word in problems[0]


def test_a_busy_machine_is_not_blamed_on_the_server() -> None:
    """Times are compared where the server had its processor."""
    assert judge(PLAN, samples(lambda at: {"p99": 10 + at, "waited": 0.5 if at > 100 else 0.0}), ROUNDS) == []


def test_compaction_that_stands_in_the_way_or_does_not_come_is_told() -> None:
    slow = [*ROUNDS, Compaction(350.0, 360.0, 10, 80.0)]
    assert judge(PLAN, samples(), slow) == ["a step of compaction took 80 ms"]
    assert judge(PLAN, samples(), []) == ["0 compactions tell nothing"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_small_server_does_not_grow(tmp_path: Path) -> None:
    """Half a minute with ten compactions and dozens of checkpoints; of times only absurd ones are judged."""
    plan = Plan(3000, 400, 24.0, 1.0, compaction_s=2.0, event_ttl_s=4.0, step_ms=250.0, p99_ms=1000.0)
    report = asyncio.run(grow(tmp_path, plan, 1))
    print(report)
    assert sum(done.steps for done in report.compactions) > 20
    assert not report.problems, f"{report}\n" + "\n".join(report.problems)
