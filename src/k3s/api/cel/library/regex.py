"""Regular expressions with the syntax and meaning of RE2, on Python's engine.

What RE2 does not have is refused; what Python writes differently is rewritten. The work of one match is bounded by the
length of text and pattern, because Python's engine, unlike RE2, may go back.
"""

from __future__ import annotations

import re
from functools import lru_cache

from k3s.api.cel.errors import Fault
from k3s.api.cel.overloads import declare

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_ESCAPES = {
    "Q": "",
    "C": "(?s:.)",
    "z": r"\Z",
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": r"[0-9A-Za-z_]",
    "W": r"[^0-9A-Za-z_]",
}
_ESCAPES |= {"s": r"[\t\n\f\r ]", "S": r"[^\t\n\f\r ]", "A": r"\A", "b": r"\b", "B": r"\B"}
_IN_CLASS = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
_MOST_REPEATS = 1000


class Refused(ValueError):
    """A pattern that RE2 does not take; the text is RE2's."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern for Python's engine; raises Refused."""
    text = _Translator(pattern).translate()
    try:
        return re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(_explained(str(error), pattern)) from None


def _explained(error: str, pattern: str) -> str:
    for words, text in (
        ("missing )", "missing closing ): `{}`"),
        ("unbalanced parenthesis", "unexpected ): `{}`"),
        ("nothing to repeat", "missing argument to repetition operator: `*`"),
        ("multiple repeat", "invalid nested repetition operator: `**`"),
        ("unterminated character set", "missing closing ]: `{}`"),
    ):
        if words in error:
            return "error parsing regexp: " + text.format(pattern)
    return f"error parsing regexp: invalid or unsupported Perl syntax: `{pattern}`"


class _Translator:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.out: list[str] = []

    def translate(self) -> str:
        pattern = self.pattern
        while self.at < len(pattern):
            char = pattern[self.at]
            if char == "\\":
                self.escape()
            elif char == "[":
                self.set()
            elif char == "(":
                self.group()
            elif char == "{":
                self.repeat()
            elif char == "$":
                # Python's own would also match before a last line break.
                self.out.append(r"(?!\n)$")
                self.at += 1
            elif char in "*+?" and pattern[self.at + 1 : self.at + 2] == "+":
                raise Refused(f"error parsing regexp: invalid nested repetition operator: `{char}+`")
            else:
                self.out.append(char)
                self.at += 1
        return "".join(self.out)

    def escape(self) -> None:
        char = self.pattern[self.at + 1 : self.at + 2]
        if not char:
            raise Refused("error parsing regexp: trailing backslash at end of expression: ``")
        if char == "Q":
            end = self.pattern.find("\\E", self.at)
            quoted = self.pattern[self.at + 2 : end if end >= 0 else None]
            self.out.append(re.escape(quoted))
            self.at = end + 2 if end >= 0 else len(self.pattern)
        elif char in _ESCAPES:
            self.out.append(_ESCAPES[char])
            self.at += 2
        else:
            self.out.append(self.character())

    def character(self) -> str:
        """An escape that names one character."""
        rest = self.pattern[self.at + 1 :]
        match = re.match(
            r"x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]+)\}|(0[0-7]{0,2}|[1-7][0-7]{2})|([aftnrv])|([^0-9A-Za-z])", rest
        )
        if match is None:
            raise Refused(f"error parsing regexp: invalid escape sequence: `\\{rest[0]}`")
        self.at += 1 + match.end()
        if match[4]:
            return "\\" + match[4]
        if match[5]:
            return re.escape(match[5])
        code = int(match[1] or match[2], 16) if match[1] or match[2] else int(match[3], 8)
        if code > 0x10FFFF:
            raise Refused(f"error parsing regexp: invalid escape sequence: `\\{rest[: match.end()]}`")
        return re.escape(chr(code))

    def set(self) -> None:
        start = self.at
        out = ["["]
        self.at += 1
        if self.pattern[self.at : self.at + 1] == "^":
            out.append("^")
            self.at += 1
        first = True
        while True:
            char = self.pattern[self.at : self.at + 1]
            if not char:
                raise Refused(f"error parsing regexp: missing closing ]: `{self.pattern[start:]}`")
            if char == "]" and not first:
                break
            first = False
            out.append(self.member(char))
        self.at += 1
        self.out.append("".join(out) + "]")

    def member(self, char: str) -> str:
        match = re.match(r"\[:(\^?)(\w+):\]", self.pattern[self.at :])
        if match is not None:
            if match[2] not in _CLASSES or match[1]:
                raise Refused(f"error parsing regexp: invalid character class range: `{match[0]}`")
            self.at += match.end()
            return _CLASSES[match[2]]
        if char == "\\":
            following = self.pattern[self.at + 1 : self.at + 2]
            if following in ("d", "w", "s"):
                self.at += 2
                return _IN_CLASS[following]
            if following in ("D", "W", "S"):
                self.at += 2
                return "\\" + following
            return self.character()
        self.at += 1
        return "\\" + char if char in "[]&~|" else char

    def group(self) -> None:
        match = re.match(r"\((\?(?:P?<[A-Za-z_]\w*>|[imsU]*(?:-[imsU]+)?[:)]))?", self.pattern[self.at :])
        assert match is not None
        opening = match[1] or ""
        if not opening and self.pattern[self.at + 1 : self.at + 2] == "?":
            raise Refused(f"error parsing regexp: invalid or unsupported Perl syntax: `{self.pattern[self.at :][:3]}`")
        if "U" in opening:
            raise Refused("error parsing regexp: the flag U is not supported here")
        self.at += match.end()
        if opening.startswith("?<"):
            opening = "?P" + opening[1:]
        if opening.endswith(")") and opening.startswith("?"):
            self.flags(opening[1:-1])
            return
        self.out.append("(" + opening)

    def flags(self, flags: str) -> None:
        """Flags to the end of the group: only at the start, where they are for all of it."""
        if self.out:
            raise Refused("error parsing regexp: flags are supported at the start of a pattern only")
        self.out.append(f"(?{flags})" if flags and "-" not in flags else "")

    def repeat(self) -> None:
        match = re.match(r"\{(\d+)(,(\d*))?\}", self.pattern[self.at :])
        if match is None:
            self.out.append(r"\{")
            self.at += 1
            return
        low, high = int(match[1]), int(match[3]) if match[3] else 0
        if max(low, high) > _MOST_REPEATS or (match[3] and high < low):
            raise Refused(f"error parsing regexp: invalid repeat count: `{match[0]}`")
        self.out.append(match[0])
        self.at += match.end()


def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return compiled(pattern)
    except Refused as error:
        raise Fault(str(error)) from None


def matches(text: str, pattern: str) -> bool:
    """Whether the pattern is found somewhere in the text."""
    return _pattern(pattern).search(text) is not None


def _find(text: str, pattern: str) -> str:
    match = _pattern(pattern).search(text)
    return match[0] if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found: list[str] = []
    if limit == 0:
        return found
    for match in _pattern(pattern).finditer(text):
        found.append(match[0])
        if len(found) == limit:
            break
    return found


OVERLOADS = tuple(
    declare(*row)
    for row in (
        ("find", "string_find_string", ".string string -> string", _find),
        ("findAll", "string_find_all_string", ".string string -> list<string>", _find_all),
        ("findAll", "string_find_all_string_int", ".string string int -> list<string>", _find_all),
    )
)
