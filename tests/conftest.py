"""What every test may use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs one coroutine on a fresh event loop to its end."""
    return asyncio.run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End-to-end tests come last: their one cluster holds the machine, on which only one node can run, to the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)
