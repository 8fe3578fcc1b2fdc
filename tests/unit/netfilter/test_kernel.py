"""The kernel's packet filter where its tool cannot be run."""

from __future__ import annotations

import asyncio

import pytest

from k3s.netfilter.interface import FilterError
from k3s.netfilter.kernel import Kernel


@pytest.mark.parametrize("command", ["/no/such/program", "/etc"])
def test_a_tool_that_cannot_be_run_is_a_refusal(command: str) -> None:
    """Whatever keeps a process from starting is what those who try again expect, and does not end them."""
    with pytest.raises(FilterError, match="Cannot run"):
        asyncio.run(Kernel((command,)).delete("ip", "k3s"))


def test_a_tool_that_crashes_is_told_with_the_remedy() -> None:
    """An old tool crashes on tables of a newer one, and says nothing itself."""
    with pytest.raises(FilterError, match=r"crashed \(signal 11\).*a newer nft has made tables"):
        asyncio.run(Kernel(("sh", "-c", "kill -SEGV $$", "sh")).delete("ip", "k3s"))
