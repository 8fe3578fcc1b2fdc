"""Logging: a constant message with fields, as text for people or JSON for machines; secrets print as stars."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class Secret(Generic[T]):
    """A value that must not be printed: `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value itself; never pass it to a log, an error or an object."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {k: v for k, v in record.__dict__.items() if k not in _STANDARD and not k.startswith("_")}


class TextFormatter(logging.Formatter):
    """`2026-01-31T10:00:00.123Z INFO  kubelet: Pod started pod=default/web`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"
        text = f"{stamp} {record.levelname:<7} {_component(record)}: {record.getMessage()}"
        for name, value in _fields(record).items():
            text += f" {name}={json.dumps(value) if isinstance(value, str) and ' ' in value else value}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, component, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "component": _component(record),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _component(record: logging.LogRecord) -> str:
    parts = record.name.split(".")
    return parts[1] if parts[0] == "k3s" and len(parts) > 1 else record.name


def setup(level: int = logging.INFO, form: str = "text") -> None:
    """Sends the process's log to standard error; `form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These libraries tell every frame and every certificate: only what goes wrong is of interest.
    for name in ("hpack", "h2", "grpclib", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
