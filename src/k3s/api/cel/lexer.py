"""From text to tokens, and from the text of a literal to its value.

Source: the lexical grammar of the CEL language definition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from k3s.api.cel.errors import Issue

_TOKEN = re.compile(
    r"""(?P<space>[\t\ \r\n\f]+|//[^\n]*)
    |(?P<bytes>[bB][rR](?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|\"[^\"\n\r]*\"|'[^'\n\r]*'))
    |(?P<string>[rR](?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|\"[^\"\n\r]*\"|'[^'\n\r]*'))
    |(?P<quoted>[bB]?(?:\"{3}(?:[^\\]|ESC)*?\"{3}|'{3}(?:[^\\]|ESC)*?'{3}|\"(?:[^\\\"\n\r]|ESC)*\"|'(?:[^\\'\n\r]|ESC)*'))
    |(?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
    |(?P<int>0x[0-9a-fA-F]+|[0-9]+)
    |(?P<ident>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<escaped>`[A-Za-z0-9_.\-/\ ]+`)
    |(?P<operator>==|!=|<=|>=|&&|\|\||[<>\[\]{}().,\-!?:+*/%])
    """.replace("ESC", r"\\(?:[abfnrtv?\"'`\\]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})"),
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.DOTALL)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_WORDS = ("in", "true", "false", "null")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; the kind of an operator or keyword is its text, the last token is `<EOF>`."""

    kind: str
    text: str
    offset: int


def tokens(source: str) -> tuple[list[Token], list[Issue]]:
    """The tokens, and what is no token."""
    found: list[Token] = []
    issues: list[Issue] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            length = _unreadable(source, at)
            issues.append(Issue(at, f"Syntax error: token recognition error at: '{plain(source[at : at + length])}'"))
            at += length
            continue
        kind, text = match.lastgroup or "", match.group()
        if kind != "space":
            if kind == "quoted":
                kind = "bytes" if text[0] in "bB" else "string"
            found.append(Token(text if kind == "operator" or text in _WORDS else kind, text, at))
        at = match.end()
    found.append(Token("<EOF>", "<EOF>", len(source)))
    return found, issues


def _unreadable(source: str, at: int) -> int:
    """How much of the text the reader gives up: a text without end to the end of its line, else one character."""
    char = source[at]
    if char in "\"'":
        match = re.compile(rf"[^\n\r{char}\\]*(?:\\.?)?[^{char}]?").match(source, at + 1)
        return 1 + (len(match.group()) if match else 0)
    if char == "`":
        match = re.compile(r"[A-Za-z0-9_.\-/ ]*").match(source, at + 1)
        return 1 + (len(match.group()) if match else 0)
    # The reader sees that one sign alone is none only at the character behind it, which it gives up, too.
    return len(source[at : at + 2]) if char in "=&|" else 1


def plain(text: str) -> str:
    """A piece of the text as messages quote it."""
    return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def text_value(token: str) -> str:
    """The value of a string literal; raises ValueError for code points that there are not."""
    raw, body = _body(token)
    if raw:
        return body

    def replace(match: re.Match[str]) -> str:
        code = _code(match.group(1))
        if code is None:
            return match.group(1)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError("invalid unicode code point")
        return chr(code)

    return _ESCAPE.sub(replace, body)


def bytes_value(token: str) -> bytes:
    """The value of a bytes literal; raises ValueError for escapes that name no byte."""
    raw, body = _body(token[1:])
    if raw:
        return body.encode()
    out, at = bytearray(), 0
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode()
        if match.group(1)[0] in "uU":
            raise ValueError("unable to unescape string")
        code = _code(match.group(1))
        out += match.group(1).encode() if code is None else bytes([code])
        at = match.end()
    return bytes(out + body[at:].encode())


def _code(escape: str) -> int | None:
    """The code point of an escape; None for a character that stands for itself."""
    first = escape[0]
    if len(escape) == 1:
        return _SIMPLE.get(first)
    return int(escape[1:], 16) if first in "xXuU" else int(escape, 8)


def _body(token: str) -> tuple[bool, str]:
    raw = token[0] in "rR"
    if raw:
        token = token[1:]
    width = 3 if len(token) >= 6 and token[:3] in ('"""', "'''") else 1
    return raw, token[width:-width].replace("\r\n", "\n").replace("\r", "\n")
