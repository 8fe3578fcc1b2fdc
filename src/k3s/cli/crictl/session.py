"""What a verb of crictl has at hand: the runtime, its options and words; and how it complains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from k3s.base.clock import Clock
from k3s.cli.crictl import output
from k3s.cli.crictl.flags import Options
from k3s.cli.crictl.settings import Settings
from k3s.kubelet.runtime.connection import REQUEST_S, Connection
from k3s.kubelet.runtime.interface import RuntimeFailure

T = TypeVar("T")


class Failed(Exception):
    """A verb that ends with a message and an exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Session:
    """One call of crictl."""

    runtime: Connection
    images: Connection
    options: Options
    words: list[str]
    settings: Settings
    config: Path
    clock: Clock

    async def ask(self, method: str, timeout_s: float | None = REQUEST_S, **request: Any) -> dict[str, Any]:
        """The answer of the runtime; without a limit it may take what it takes. Raises RuntimeFailure."""
        return await self.runtime.call(method, timeout_s, **request)

    async def ask_images(self, method: str, timeout_s: float = REQUEST_S, **request: Any) -> dict[str, Any]:
        """The answer of the image service, which may be another one. Raises RuntimeFailure."""
        return await self.images.call(method, timeout_s, **request)

    def document(self, message: str, value: dict[str, Any]) -> bool:
        """Prints a whole answer when `--output` says so; False for a table. Raises FormatError."""
        format = self.options.text("output") or "table"
        if format != "table":
            print(output.document(output.plain(message, value), format), end="")
        return format != "table"


def reason(failure: RuntimeFailure) -> str:
    """What a runtime's refusal is called by its clients."""
    code = "".join(part.capitalize() for part in failure.code.split("_"))
    return f"rpc error: code = {code} desc = {failure.message}"


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Does the same to all items at once; a failure does not stop the others. Raises Failed with all that failed."""
    outcomes = await asyncio.gather(*(work(item) for item in items), return_exceptions=True)
    told: dict[str, None] = {}
    for outcome in outcomes:
        if isinstance(outcome, RuntimeFailure):
            told[reason(outcome)] = None
        elif isinstance(outcome, Failed):
            told[str(outcome)] = None
        elif isinstance(outcome, BaseException):
            raise outcome
    if told:
        raise Failed(next(iter(told)) if len(told) == 1 else f"[{', '.join(told)}]")
