"""Virtual time and seeded order."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from k3s.base.aio import blocking
from k3s.base.clock import LoopClock
from k3s.sim.loop import Deadlock, SimLoop, run


def order_of(seed: int) -> list[str]:
    """The order in which tasks with equal and different sleeps were woken."""
    woken: list[str] = []

    async def one(name: str, pause: float) -> None:
        for _ in range(3):
            await asyncio.sleep(pause)
            woken.append(name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abcdef":
                group.create_task(one(name, 0 if name < "d" else 1))

    run(seed, main())
    return woken


def test_a_seed_repeats_itself_and_seeds_differ():
    runs = [order_of(seed) for seed in range(20)]
    assert runs == [order_of(seed) for seed in range(20)]
    assert len({tuple(r) for r in runs}) > 10


def test_hours_pass_at_once():
    async def main() -> float:
        await asyncio.sleep(3600)
        return LoopClock(1000.0).now()

    started = time.monotonic()
    assert run(1, main()) == pytest.approx(4600.0)
    assert time.monotonic() - started < 5


def test_timers_fire_in_order_whatever_the_seed():
    async def main() -> list[int]:
        fired: list[int] = []
        loop = asyncio.get_running_loop()
        for number in (3, 1, 2):
            loop.call_later(number, fired.append, number)
        await asyncio.sleep(5)
        return fired

    assert all(run(seed, main()) == [1, 2, 3] for seed in range(20))


def test_waiting_for_what_never_comes_raises_instead_of_hanging():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="Task-"):
        run(1, main())


def test_blocking_work_runs_in_place():
    async def main() -> str:
        return await blocking(threading.current_thread)

    assert run(1, main()) is threading.main_thread()


def test_timers_of_the_same_moment_fire_in_any_order():
    async def main() -> tuple[int, ...]:
        fired: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(4):
            loop.call_at(1.0, fired.append, number)
        await asyncio.sleep(2)
        return tuple(fired)

    assert len({run(seed, main()) for seed in range(30)}) > 5


def test_a_deadline_works_under_virtual_time():
    async def main() -> float:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return asyncio.get_running_loop().time()

    assert run(1, main()) == pytest.approx(30)


def test_cancellation_cleans_up_at_the_end():
    """Tasks that are left when the main one ends are cancelled, as asyncio.run does."""
    cleaned: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            cleaned.append("yes")

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(background())
        await asyncio.sleep(1)
        assert not task.done()

    run(7, main())
    assert cleaned == ["yes"]


def test_real_sockets_are_refused():
    async def main() -> None:
        await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)

    with pytest.raises(RuntimeError, match="fake"):
        run(1, main())


def test_the_loop_knows_its_seed():
    async def main() -> object:
        return asyncio.get_running_loop()

    loop = run(5, main())
    assert isinstance(loop, SimLoop)
    assert loop.seed == 5
