"""Short forms of what `make torture` does for as long as one likes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.torture import power, storm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_power_failure_at_any_moment_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """Whatever part of the unsynced writes a disk comes back with, the datastore opens and holds every answer."""
    report = power.fail(tmp_path, answers=1500, states=250, seed=1)
    assert report.states > 250
    assert not report.problems, "\n".join(report.problems[:10])


def test_a_datastore_that_does_not_sync_is_found(tmp_path: Path) -> None:
    """The proof that the recorded disk loses what was not synced: SQLite's NORMAL answers before the disk has it."""
    report = power.fail(tmp_path, answers=300, states=100, seed=1, level="NORMAL")
    assert len(report.problems) > 20


def test_clients_of_a_server_that_is_killed_and_whose_disk_fails(tmp_path: Path) -> None:
    """Nothing acknowledged is lost or done twice, answers are linearizable, watches have no gap and no duplicate."""
    report = asyncio.run(storm.storm(tmp_path, kills=5, seed=5))
    assert report.outcomes["ok"] > 200, report
    assert report.resumed > 20, report
    assert not report.problems, f"{report}\n" + "\n".join(report.problems[:10])
