"""How much an expression may cost at most, from its tree and the sizes that the schema allows.

Source: the reference implementation's estimator, whose figures decide which rules a definition may have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from k3s.api.cel.syntax import Call, Comprehension, Ident, ListNode, Literal, MapNode, Node, Select, Struct
from k3s.api.cel.types import Type, is_optional
from k3s.api.cel.values import UINT_MAX

TRAVERSAL, PATTERN = 0.1, 0.25
_LIST, _MAP, _STRUCT = 10, 30, 40
Path = tuple[str, ...]


def _limit(value: float) -> int:
    return int(value) if value < UINT_MAX else UINT_MAX


class Range(NamedTuple):
    """From the least to the most: of sizes, and of costs."""

    low: int
    high: int

    def plus(self, other: Range) -> Range:
        """The sum."""
        return Range(_limit(self.low + other.low), _limit(self.high + other.high))

    def times(self, other: Range) -> Range:
        """The product."""
        return Range(_limit(self.low * other.low), _limit(self.high * other.high))

    def by(self, factor: float) -> Range:
        """As many units as the factor makes of it, rounded up."""
        return Range(_limit(math.ceil(float(self.low) * factor)), _limit(math.ceil(float(self.high) * factor)))

    def union(self, other: Range) -> Range:
        """What covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


UNKNOWN, ONE, ZERO = Range(0, UINT_MAX), Range(1, 1), Range(0, 0)


class Entries(NamedTuple):
    """The sizes of what is in a list (by place and value) or map (by key and value)."""

    is_list: bool
    key: Range
    value: Range


@dataclass(frozen=True, slots=True)
class Argument:
    """What is known of an argument: its path in the schema, its type, its size, the node itself."""

    path: Path
    type: Type
    size: Range | None
    node: Node | None = None


# The size at the end of a path into the declared types; None for what they do not tell.
Sizes = Callable[[Path], Range | None]
# The cost of a call and the size of its value; None for a function that has no rule of its own.
Calls = Callable[[str, str, Argument | None, list[Argument], Sizes], "tuple[Range, Range | None] | None"]


@dataclass(slots=True)
class _Local:
    path: Path
    size: Range | None
    entries: Entries | None


def estimate(tree: Node, sizes: Sizes, calls: Calls) -> Range:
    """The least and the most that an evaluation can cost."""
    return _Estimator(sizes, calls).cost(tree)


class _Estimator:
    def __init__(self, sizes: Sizes, calls: Calls) -> None:
        self.sizes = sizes
        self.calls = calls
        self.paths: dict[Node, Path] = {}
        self.known: dict[Node, Range] = {}
        self.entries: dict[Node, Entries] = {}
        self.locals: dict[str, list[_Local]] = {}

    def cost(self, node: Node) -> Range:
        """The cost of a node with all below it."""
        if isinstance(node, Ident):
            found = self.local(node.name)
            self.paths[node] = found.path if found is not None else (node.name,)
            return ONE
        if isinstance(node, Select):
            return self.select(node)
        if isinstance(node, Call):
            return self.call(node)
        if isinstance(node, ListNode):
            return self.list_of(node)
        if isinstance(node, MapNode):
            return self.map_of(node)
        if isinstance(node, Struct):
            total = Range(_STRUCT, _STRUCT)
            for entry in node.entries:
                total = total.plus(self.cost(entry.value))
            return total
        if isinstance(node, Comprehension):
            return self.bind(node) if node.macro == "bind" else self.loop(node)
        return ZERO

    def local(self, name: str) -> _Local | None:
        stack = self.locals.get(name)
        return stack[-1] if stack else None

    def push(self, name: str, local: _Local) -> None:
        self.locals.setdefault(name, []).append(local)

    def path(self, node: Node) -> Path:
        if isinstance(node, Ident) and (found := self.local(node.name)) is not None:
            return found.path
        return self.paths.get(node, ())

    def select(self, node: Select) -> Range:
        if node.ident is not None:
            return self.cost(node.ident)
        total = self.cost(node.operand)
        if node.test:
            return total
        if node.operand.type.kind in ("map", "object", "param"):
            total = total.plus(ONE)
        self.paths[node] = (*self.path(node.operand), node.field)
        return total

    def list_of(self, node: ListNode) -> Range:
        total = Range(_LIST, _LIST)
        size = Range(UINT_MAX if node.elements else 0, 0)
        for element in node.elements:
            total = total.plus(self.cost(element))
            size = size.union(self.size_or_unknown(element))
        self.entries[node] = Entries(True, ONE, size)
        return total

    def map_of(self, node: MapNode) -> Range:
        total = Range(_MAP, _MAP)
        key = value = Range(UINT_MAX if node.entries else 0, 0)
        for entry in node.entries:
            total = total.plus(self.cost(entry.key)).plus(self.cost(entry.value))
            key = key.union(self.size_or_unknown(entry.key))
            value = value.union(self.size_or_unknown(entry.value))
        self.entries[node] = Entries(False, key, value)
        return total

    def bind(self, node: Comprehension) -> Range:
        total = self.cost(node.range).plus(self.cost(node.init))
        self.push(node.accu, _Local(self.path(node.init), self.size(node.init), self.inside(node.init)))
        total = total.plus(self.cost(node.result))
        self.locals[node.accu].pop()
        self.copy(node, node.result)
        return total

    def loop(self, node: Comprehension) -> Range:
        total = self.cost(node.range).plus(self.cost(node.init))
        self.push(node.accu, _Local(self.path(node.init), self.size(node.init), self.inside(node.init)))
        inside = self.inside(node.range)
        is_list = inside.is_list if inside is not None else node.range.type.kind == "list"
        path = self.path(node.range)
        key = _Local((*path, "@indices" if is_list else "@keys"), inside.key if inside else None, None)
        value = _Local((*path, "@items" if is_list else "@values"), inside.value if inside else None, None)
        if node.var2:
            self.push(node.var, key)
            self.push(node.var2, value)
        else:
            self.push(node.var, value if is_list else key)
        each = self.cost(node.condition).plus(self.cost(node.step))
        self.locals[node.var].pop()
        if node.var2:
            self.locals[node.var2].pop()
        total = total.plus(self.cost(node.result))
        self.locals[node.accu].pop()
        count = self.size_or_unknown(node.range)
        if isinstance(node.init, Literal):
            self.set_size(node, self.size(node.init))
        else:
            self.known[node] = count
            if (made := self.inside(node.step)) is not None:
                self.entries[node] = made
        return total.plus(count.times(each))

    def call(self, node: Call) -> Range:
        if node.function == "dyn":
            total = ONE.plus(self.cost(node.args[0]))
            self.copy(node, node.args[0])
            return total
        costs = [self.cost(arg) for arg in node.args]
        args = [self.argument(arg) for arg in node.args]
        if not node.overloads:
            return ZERO
        total, target = ZERO, None
        if node.target is not None:
            total = self.cost(node.target)
            target = self.argument(node.target)
        outcome: Range | None = None
        size: Range | None = None
        for overload in node.overloads:
            cost, found = self.function(node, overload.id, target, args, costs)
            outcome = cost if outcome is None else outcome.union(cost)
            if found is not None:
                size = found if size is None else size.union(found)
            if overload.id in ("index_list", "index_map"):
                inside = self.inside(node.args[0])
                size = inside.value if inside is not None else None
                step = "@items" if overload.id == "index_list" else "@values"
                self.paths[node] = (*self.path(node.args[0]), step)
            if size is None:
                size = self.size(node)
        self.set_size(node, size)
        assert outcome is not None
        return total.plus(outcome)

    def function(
        self, node: Call, overload: str, target: Argument | None, args: list[Argument], costs: list[Range]
    ) -> tuple[Range, Range | None]:
        together = ZERO
        for cost in costs:
            together = together.plus(cost)
        found = self.calls(node.function, overload, target, args, self.sizes)
        if found is not None:
            return found[0].plus(together), found[1]
        if overload in ("logical_or", "logical_and"):
            return Range(costs[0].low, costs[0].plus(costs[1]).high), None
        if overload == "conditional":
            self.unite(node, node.args[1], node.args[2])
            size = self.argument_size(args[1]).union(self.argument_size(args[2]))
            return costs[0].plus(costs[1].union(costs[2])), size
        if overload in ("add_string", "add_bytes", "add_list"):
            self.unite(node, node.args[0], node.args[1])
            size = self.argument_size(args[0]).plus(self.argument_size(args[1]))
            own = ONE if overload == "add_list" else size.by(TRAVERSAL)
            return own.plus(together), size
        own, made = self.builtin(overload, target, args)
        return own.plus(together), made

    def builtin(self, overload: str, target: Argument | None, args: list[Argument]) -> tuple[Range, Range | None]:
        """What functions of the language cost whose work follows the size of what they are given."""
        if overload in ("string_to_bytes", "bytes_to_string"):
            size = self.argument_size(args[0])
            grows = overload == "string_to_bytes"
            made = Range(size.low, _limit(size.high * 4)) if grows else Range(size.low // 4, size.high)
            return size.by(TRAVERSAL), made
        if overload in ("starts_with_string", "ends_with_string"):
            return self.argument_size(args[0]).by(TRAVERSAL), None
        if overload == "in_list":
            return self.argument_size(args[1]), None
        if overload == "string_format" and target is not None:
            return self.argument_size(target).by(TRAVERSAL), None
        if overload == "matches_string" and target is not None:
            text = self.argument_size(target).plus(ONE).by(TRAVERSAL)
            return text.times(self.argument_size(args[0]).by(PATTERN)), None
        if overload == "contains_string" and target is not None:
            return self.argument_size(target).by(TRAVERSAL).times(self.argument_size(args[0]).by(TRAVERSAL)), None
        if overload in ("equals", "not_equals") or _ordered(overload):
            most = min(self.argument_size(args[0]).high, self.argument_size(args[1]).high)
            return Range(1 if most else 0, most).by(TRAVERSAL), None
        return ONE, None

    def unite(self, node: Node, one: Node, other: Node) -> None:
        a, b = self.inside(one), self.inside(other)
        if a is not None and b is not None:
            self.entries[node] = Entries(a.is_list, a.key.union(b.key), a.value.union(b.value))

    def argument(self, node: Node) -> Argument:
        path = self.path(node)
        return Argument(() if path and path[0] == "@result" else path, node.type, self.size(node), node)

    def argument_size(self, argument: Argument) -> Range:
        return argument.size if argument.size is not None else UNKNOWN

    def set_size(self, node: Node, size: Range | None) -> None:
        if size is not None:
            self.known[node] = size

    def copy(self, node: Node, source: Node) -> None:
        self.set_size(node, self.size(source))
        if (inside := self.inside(source)) is not None:
            self.entries[node] = inside

    def inside(self, node: Node) -> Entries | None:
        found = self.entries.get(node)
        if found is None and isinstance(node, Ident) and (local := self.local(node.name)) is not None:
            return local.entries
        return found

    def size_or_unknown(self, node: Node) -> Range:
        size = self.size(node)
        return UNKNOWN if size is None else size

    def size(self, node: Node) -> Range | None:
        """The size of a value as far as it is known."""
        if node in self.known:
            return self.known[node]
        if isinstance(node, Literal):
            length = len(node.value) if isinstance(node.value, str | bytes) else 1
            return Range(length, length)
        if isinstance(node, ListNode | MapNode):
            length = len(node.elements) if isinstance(node, ListNode) else len(node.entries)
            return Range(length, length)
        path = self.path(node)
        if path and (found := self.sizes(path)) is not None:
            self.known[node] = found
            return found
        if _scalar(node.type):
            return ONE
        if isinstance(node, Ident) and (local := self.local(node.name)) is not None:
            return local.size
        return None


def _ordered(overload: str) -> bool:
    word, _, kind = overload.rpartition("_")
    return kind in ("string", "bytes") and word in ("less", "greater", "less_equals", "greater_equals")


def _scalar(kind: Type) -> bool:
    if is_optional(kind):
        return _scalar(kind.args[0])
    return kind.kind == "scalar" and kind.name not in ("string", "bytes", "any")
