"""Go's text templates over the value of a JSON document, as far as `-o go-template` needs them. Pure.

Fields, variables, pipelines in parentheses, `if`, `range`, `with`, `else`, trimming and comments; the functions of
`_FUNCTIONS`. A key that is not there is an error, as in upstream's client. Source: the documentation of text/template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ACTION = re.compile(r"\{\{(?:(-)\s)?(.*?)(?:\s(-))?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<assign>:=|=)|(?P<mark>[|(),])"""
    r"""|(?P<path>\$\w*(?:\.\w+)*|(?:\.\w+)+|\.)|(?P<word>\w+))""",
    re.DOTALL,
)
_FORMAT = re.compile(r"%([-+0 #]*\d*(?:\.\d+)?)([vsdqtxfg%])")


class TemplateError(Exception):
    """A template that cannot be read, or that asks for what is not there."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Print:
    tokens: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Block:
    """if, range or with: `then` and `otherwise` are what is between the actions."""

    kind: str
    tokens: tuple[tuple[str, str], ...]
    then: Sequence[_Node]
    otherwise: Sequence[_Node]


_Node = _Text | _Print | _Block


def render(template: str, value: Any) -> str:
    """The text of a template for a value. Raises TemplateError."""
    parts = _parts(template)
    nodes, ended = _nodes(parts)
    if ended:
        raise TemplateError(f"unexpected {{{{{ended[0][1]}}}}}")
    return "".join(_render(nodes, value, {"$": value}))


def _parts(template: str) -> Iterator[str | tuple[tuple[str, str], ...]]:
    """The texts and the tokens of the actions in turn."""
    at, trim = 0, False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if trim else text
        yield text.rstrip() if match.group(1) else text
        at, trim = match.end(), bool(match.group(3))
        if not match.group(2).strip().startswith("/*"):
            yield _tokens(match.group(2))
    text = template[at:]
    yield text.lstrip() if trim else text
    if "{{" in text:
        raise TemplateError("unclosed action")


def _tokens(action: str) -> tuple[tuple[str, str], ...]:
    found, at = [], 0
    action = action.strip()
    while at < len(action):
        match = _TOKEN.match(action, at)
        if match is None or match.lastgroup is None:
            raise TemplateError(f"unexpected {action[at:].strip()[:20]!r} in {{{{{action}}}}}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    if not found:
        raise TemplateError("missing value for command")
    return tuple(found)


def _nodes(parts: Iterator[Any]) -> tuple[list[_Node], tuple[tuple[str, str], ...]]:
    """The nodes up to an `else` or `end`, and that action's tokens."""
    nodes: list[_Node] = []
    for part in parts:
        if isinstance(part, str):
            nodes.append(_Text(part))
        elif part[0] in (("word", "end"), ("word", "else")):
            return nodes, part
        elif part[0][0] == "word" and part[0][1] in ("if", "range", "with"):
            nodes.append(_block(part, parts))
        else:
            nodes.append(_Print(part))
    return nodes, ()


def _block(head: tuple[tuple[str, str], ...], parts: Iterator[Any]) -> _Block:
    then, ended = _nodes(parts)
    otherwise: list[_Node] = []
    if len(ended) > 1:  # else if, else with
        return _Block(head[0][1], head[1:], then, [_block(ended[1:], parts)])
    if ended == (("word", "else"),):
        otherwise, ended = _nodes(parts)
    if ended != (("word", "end"),):
        raise TemplateError(f"{{{{{head[0][1]}}}}} without {{{{end}}}}")
    return _Block(head[0][1], head[1:], then, otherwise)


def _render(nodes: Sequence[_Node], dot: Any, names: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _Text):
            yield node.text
        elif isinstance(node, _Print):
            assigned, tokens = _assigned(node.tokens)
            value = _Pipeline(tokens, dot, names).value()
            if assigned:
                names[assigned[-1]] = value
            else:
                yield shown(value)
        elif node.kind == "range":
            yield from _render_range(node, dot, names)
        else:
            assigned, tokens = _assigned(node.tokens)
            value = _Pipeline(tokens, dot, names).value()
            inner = names | dict.fromkeys(assigned, value)
            chosen = node.then if value else node.otherwise
            yield from _render(chosen, value if node.kind == "with" and value else dot, inner)


def _render_range(node: _Block, dot: Any, names: dict[str, Any]) -> Iterator[str]:
    assigned, tokens = _assigned(node.tokens)
    value = _Pipeline(tokens, dot, names).value()
    items = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value or ()))
    for key, item in items:
        yield from _render(node.then, item, names | dict(zip(reversed(assigned), (item, key), strict=False)))
    if not items:
        yield from _render(node.otherwise, dot, names)


def _assigned(tokens: tuple[tuple[str, str], ...]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """The variables before `:=`, and what is behind it."""
    for at, (kind, _) in enumerate(tokens):
        if kind == "assign":
            return [text for kind, text in tokens[:at] if kind == "path"], tokens[at + 1 :]
    return [], tokens


class _Pipeline:
    """Evaluates the tokens of one pipeline."""

    def __init__(self, tokens: Sequence[tuple[str, str]], dot: Any, names: Mapping[str, Any]) -> None:
        self._tokens = list(tokens)
        self._dot = dot
        self._names = names

    def value(self) -> Any:
        """The value of the whole pipeline."""
        value = self._pipeline()
        if self._tokens:
            raise TemplateError(f"unexpected {self._tokens[0][1]!r}")
        return value

    def _pipeline(self) -> Any:
        value = self._command([])
        while self._tokens and self._tokens[0] == ("mark", "|"):
            del self._tokens[0]
            value = self._command([value])
        return value

    def _command(self, piped: list[Any]) -> Any:
        if not self._tokens:
            raise TemplateError("missing value for command")
        function: Callable[..., Any] | None = None
        if self._tokens[0][0] == "word" and self._tokens[0][1] not in _WORDS:
            name = self._tokens.pop(0)[1]
            function = _FUNCTIONS.get(name)
            if function is None:
                raise TemplateError(f'function "{name}" not defined')
        arguments = []
        while self._tokens and self._tokens[0] not in (("mark", "|"), ("mark", ")")):
            arguments.append(self._operand())
        if function is None:
            if len(arguments) != 1 or piped:
                raise TemplateError("can't give argument to non-function")
            return arguments[0]
        try:
            return function(*arguments, *piped)
        except (TypeError, ValueError, LookupError) as error:
            raise TemplateError(f"error calling {name}: {error}") from None

    def _operand(self) -> Any:
        kind, text = self._tokens.pop(0)
        if kind == "string":
            return text[1:-1] if text[0] == "`" else json.loads(text)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "word" and text in _WORDS:
            return _WORDS[text]
        if (kind, text) == ("mark", "("):
            value = self._pipeline()
            if not self._tokens or self._tokens.pop(0) != ("mark", ")"):
                raise TemplateError("unclosed left paren")
            if self._tokens and self._tokens[0][0] == "path" and self._tokens[0][1][:1] == "." != self._tokens[0][1]:
                value = _field(value, self._tokens.pop(0)[1][1:].split("."))
            return value
        if kind != "path":
            raise TemplateError(f"unexpected {text!r}")
        first, *fields = text.split(".")
        if first and first not in self._names:
            raise TemplateError(f'undefined variable "{first}"')
        return _field(self._names[first] if first else self._dot, [field for field in fields if field])


def _field(value: Any, fields: Sequence[str]) -> Any:
    for field in fields:
        if not isinstance(value, Mapping):
            raise TemplateError(f"can't evaluate field {field} in {shown(value)}")
        if field not in value:
            raise TemplateError(f'map has no entry for key "{field}"')
        value = value[field]
    return value


def shown(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{shown(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(shown(item) for item in value)}]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        # What a map does not have is its zero value, which prints as nothing here.
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _printf(format: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        width, verb = match.groups()
        if verb == "%":
            return "%"
        value = rest.pop(0)
        text: Any = json.dumps(value, ensure_ascii=False) if verb == "q" else value
        if verb in "dxfg":
            return str("%" + width + verb) % (int(text) if verb in "dx" else float(text))
        return str("%" + width + "s") % (shown(text),)

    return _FORMAT.sub(one, format)


def _first(stop: bool) -> Callable[..., Any]:
    """`or` and `and`: the first argument that decides, else the last."""
    return lambda *values: next((value for value in values if bool(value) is stop), values[-1])


_WORDS = {"true": True, "false": False, "nil": None}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n",
    "title": lambda text: re.sub(r"\b\w", lambda match: match.group().upper(), text),
    "lower": str.lower,
    "upper": str.upper,
    "len": len,
    "index": _index,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "and": _first(False),
    "or": _first(True),
    "not": lambda value: not value,
    "print": lambda *values: "".join(map(shown, values)),
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": _printf,
}
