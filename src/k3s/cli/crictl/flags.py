"""What stands on crictl's command line, read by the rows of a verb's flags as upstream's client reads it.

Single letters may stand together (`-it`), a value follows after a space or `=`, one dash is as good as two. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k3s.api import times

SWITCH, TEXT, LIST, NUMBER, DURATION = "switch", "text", "list", "number", "duration"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class UsageError(Exception):
    """The command line is wrong; says what."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `kind` is switch, text, list, number or duration (seconds, or Go's notation); `env` may set it, too."""

    name: str
    help: str
    short: str = ""
    kind: str = TEXT
    default: str = ""
    env: str = ""

    @property
    def shown(self) -> str:
        """How help names it."""
        names = [f"--{self.name}", *([f"-{self.short}"] if self.short else [])]
        return ", ".join(names) + ("" if self.kind == SWITCH else f" {self.kind.upper()}")


@dataclass(frozen=True, slots=True)
class Options:
    """The values that were given, by the flags' names; what was not given has its flag's default."""

    flags: Mapping[str, Flag]
    values: Mapping[str, Sequence[str]]

    def given(self, name: str) -> bool:
        """True when the command line or the environment says it."""
        return name in self.values

    def text(self, name: str) -> str:
        """The last value of a flag."""
        return self.values[name][-1] if name in self.values else self.flags[name].default

    def on(self, name: str) -> bool:
        """Whether a switch is set."""
        return self.text(name) == "true"

    def all(self, name: str) -> Sequence[str]:
        """Every value of a flag that may be given more than once."""
        return self.values.get(name, ())

    def number(self, name: str) -> int:
        """A whole number; 0 without value and default."""
        return int(self.text(name) or "0")

    def seconds(self, name: str) -> float:
        """A length of time; 0 without value and default."""
        return _seconds(self.text(name) or "0")

    def pairs(self, name: str) -> dict[str, str]:
        """The `key=value` words of a flag. Raises UsageError."""
        made = {}
        for word in self.all(name):
            key, found, value = word.partition("=")
            if not found or "=" in value:
                raise UsageError(f"incorrectly specified label: {word}")
            made[key] = value
        return made


def _seconds(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else times.duration(text)


def parse(
    words: Sequence[str], flags: Sequence[Flag], env: Mapping[str, str], *, mixed: bool = True
) -> tuple[Options, list[str]]:
    """The options, and the words that are none. Without `mixed` the first such word ends the options, as where a
    command with flags of its own follows. Raises UsageError."""
    by_name = {name: flag for flag in flags for name in (flag.name, flag.short) if name}
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if word == "--" or (word[:1] != "-" or word == "-"):
            rest += words[at:] if word == "--" else [word]
            if word == "--":
                break
            if not mixed:
                rest += words[at:]
                break
            continue
        for flag, value in _taken_apart(word, by_name):
            if value is None:
                if at >= len(words):
                    raise UsageError(f"flag needs an argument: -{flag.short or flag.name}")
                value, at = words[at], at + 1
            values.setdefault(flag.name, []).append(_checked(flag, value))
    for flag in flags:
        if flag.env and env.get(flag.env) and flag.name not in values:
            values[flag.name] = [_checked(flag, env[flag.env])]
    return Options({flag.name: flag for flag in flags}, values), rest


def _taken_apart(word: str, by_name: Mapping[str, Flag]) -> list[tuple[Flag, str | None]]:
    """The flags of one word with their values; None for a value that is the next word."""
    name, found, value = word.lstrip("-").partition("=")
    if (flag := by_name.get(name)) is not None:
        return [(flag, value if found else "true" if flag.kind == SWITCH else None)]
    if word.startswith("--"):
        raise UsageError(f"flag provided but not defined: -{name}")
    made: list[tuple[Flag, str | None]] = []
    letters = word[1:]
    for index, letter in enumerate(letters):
        flag = by_name.get(letter)
        if flag is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        if flag.kind != SWITCH:
            return [*made, (flag, letters[index + 1 :].removeprefix("=") or None)]
        made.append((flag, "true"))
    return made


def _checked(flag: Flag, value: str) -> str:
    if flag.kind == SWITCH:
        if value not in (*_TRUE, *_FALSE):
            raise UsageError(f'invalid boolean value "{value}" for -{flag.name}')
        return "true" if value in _TRUE else "false"
    try:
        if flag.kind == NUMBER:
            int(value)
        elif flag.kind == DURATION:
            _seconds(value)
    except (ValueError, times.TimeError):
        raise UsageError(f'invalid value "{value}" for flag -{flag.name}: parse error') from None
    return value
