"""The syntax tree of an expression: nodes with their place, and their type once they are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as later
from typing import Any

from k3s.api.cel.types import DYN, Type


@dataclass(slots=True, eq=False)
class Node:
    """A part of an expression; `offset` counts code points from the start."""

    offset: int
    type: Type = later(default=DYN, init=False)


@dataclass(slots=True, eq=False)
class Literal(Node):
    """A constant."""

    value: Any


@dataclass(slots=True, eq=False)
class Ident(Node):
    """A name; the checker writes its full name, or the value of a name that stands for one."""

    name: str
    constant: Any = later(default=None, init=False)


@dataclass(slots=True, eq=False)
class Select(Node):
    """A field of a value, or whether there is one."""

    operand: Node
    field: str
    test: bool = False
    # The checker found that the path as a whole is a name.
    ident: Ident | None = later(default=None, init=False)


@dataclass(slots=True, eq=False)
class Call(Node):
    """A function or operator; the checker writes which overloads may be meant."""

    function: str
    args: list[Node]
    target: Node | None = None
    overloads: list[Any] = later(default_factory=list, init=False)


@dataclass(slots=True, eq=False)
class ListNode(Node):
    """A list; `optional` has the places of elements that may be missing."""

    elements: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Entry:
    """An entry of a map, or a field of an object (with a text as key)."""

    offset: int
    key: Any
    value: Node
    optional: bool = False


@dataclass(slots=True, eq=False)
class MapNode(Node):
    """A map."""

    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Struct(Node):
    """An object of a named type."""

    name: str
    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Comprehension(Node):
    """What the macros over lists and maps become: a loop over `range` that folds into `accu`."""

    macro: str
    range: Node
    var: str
    var2: str
    accu: str
    init: Node
    condition: Node
    step: Node
    result: Node
    # What the author wrote: the predicate, and the value or the key and value that are made.
    parts: tuple[Node | None, ...] = ()


def children(node: Node) -> Iterator[Node]:
    """The parts of a node, from left to right."""
    if isinstance(node, Select):
        yield node.operand
    elif isinstance(node, Call):
        if node.target is not None:
            yield node.target
        yield from node.args
    elif isinstance(node, ListNode):
        yield from node.elements
    elif isinstance(node, MapNode | Struct):
        for entry in node.entries:
            if isinstance(entry.key, Node):
                yield entry.key
            yield entry.value
    elif isinstance(node, Comprehension):
        yield from (node.range, node.init, node.condition, node.step, node.result)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, without recursion."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(children(found))
