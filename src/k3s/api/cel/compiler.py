"""From a checked tree to closures.

A closure takes the frame, a list: place 0 is the cost that is left, place 1 what it may not fall below, then the
variables, then those of loops and bindings. The cost of what has no loop is paid in one piece and looked at where loops
and libraries pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from k3s.api.cel import charges, loops
from k3s.api.cel.environment import Environment
from k3s.api.cel.errors import Fault, exceeded
from k3s.api.cel.library.optional import select as optional_select
from k3s.api.cel.library.standard import index_list, index_map, shown
from k3s.api.cel.overloads import Overload, dispatcher
from k3s.api.cel.syntax import Call, Comprehension, Ident, ListNode, Literal, MapNode, Node, Select, Struct
from k3s.api.cel.values import NOTHING, Object, Optional, equal, size, to_key

Frame = list[Any]
Run = Callable[[Frame], Any]

#: The place of the first variable in a frame.
FIRST = 2
_LIST_COST, _MAP_COST, _STRUCT_COST = 10, 30, 40


class Compiler:
    """Makes closures for one expression; `width` is how long the frame has to be."""

    def __init__(self, environment: Environment, variables: Iterable[str]) -> None:
        self.environment = environment
        self.slots = {name: i for i, name in enumerate(variables, FIRST)}
        self.scopes: list[dict[str, int]] = []
        self.next = len(self.slots) + FIRST
        self.width = self.next

    def compile(self, node: Node) -> Run:
        """The closure of a node."""
        if isinstance(node, Literal):
            value = node.value
            return lambda f: value
        if isinstance(node, Ident):
            return self.path(node, ())
        if isinstance(node, Select):
            return self.select(node)
        if isinstance(node, Call):
            return self.call(node)
        if isinstance(node, ListNode):
            return self.list(node)
        if isinstance(node, MapNode):
            return self.map(node)
        if isinstance(node, Struct):
            return self.struct(node)
        assert isinstance(node, Comprehension)
        return self.bind(node) if node.macro == "bind" else self.loop(node)

    def slot(self, name: str) -> int:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.slots[name]

    def new_slot(self) -> int:
        self.next += 1
        self.width = max(self.width, self.next)
        return self.next - 1

    def select(self, node: Select) -> Run:
        """A path of fields; one that begins with a variable is walked in one closure."""
        names: list[str] = []
        inner: Node = node
        while isinstance(inner, Select) and inner.ident is None and not (inner.test and inner is not node):
            names.append(inner.field)
            inner = inner.operand
        if isinstance(inner, Select):
            assert inner.ident is not None
            inner = inner.ident
        path = tuple(reversed(names))
        if node.test:
            return self.test(inner, path)
        if isinstance(inner, Ident):
            return self.path(inner, path)
        return _walk(self.compile(inner), path, len(path))

    def test(self, inner: Node, path: tuple[str, ...]) -> Run:
        """`has()`: costs what the way to the field costs."""
        *before, last = path
        if isinstance(inner, Ident):
            run = self.path(inner, tuple(before))
        else:
            run = _walk(self.compile(inner), tuple(before), len(before)) if before else self.compile(inner)

        def has(f: Frame) -> bool:
            value = run(f)
            if value.__class__ is dict:
                return last in value
            return _has(value, last)

        return has

    def path(self, node: Ident, path: tuple[str, ...]) -> Run:
        if node.constant is not None:
            value = node.constant
            return lambda f: value
        slot, cost = self.slot(node.name), 1 + len(path)
        if not path:

            def variable(f: Frame) -> Any:
                f[0] -= 1
                value = f[slot]
                return value if value.__class__ is not Lazy else value.get()

            return variable
        if len(path) == 1:
            (first,) = path

            def one(f: Frame) -> Any:
                f[0] -= 2
                try:
                    return f[slot][first]
                except (KeyError, TypeError):
                    return walk(f[slot], path)

            return one
        if len(path) == 2:
            first, second = path

            def two(f: Frame) -> Any:
                f[0] -= 3
                try:
                    return f[slot][first][second]
                except (KeyError, TypeError):
                    return walk(f[slot], path)

            return two

        def many(f: Frame) -> Any:
            f[0] -= cost
            value = f[slot]
            try:
                for name in path:
                    value = value[name]
                return value
            except (KeyError, TypeError):
                return walk(f[slot], path)

        return many

    def call(self, node: Call) -> Run:
        name = node.function
        if name in ("_&&_", "_||_"):
            return self.logical(node, name == "_||_")
        if name == "_?_:_":
            return self.conditional(node)
        if name == "cel.@mapInsert":
            raise AssertionError("part of a loop")
        args = [node.target, *node.args] if node.target is not None else list(node.args)
        runs = [self.compile(arg) for arg in args]
        if name in ("or", "orValue") and node.target is not None:
            return _or_else(runs[0], runs[1], unwrap=name == "orValue")
        if name in ("_==_", "_!=_"):
            return _equality(runs[0], runs[1], name == "_==_")
        if name == "_[_]" and node.overloads and node.overloads[0].id in ("index_list", "index_map"):
            return _index(runs[0], runs[1])
        return self.function(node, args, runs)

    def function(self, node: Call, args: list[Node], runs: list[Run]) -> Run:
        """A call of a library: the overload itself when the types decide it, else the choice at run time."""
        overloads: list[Overload] = node.overloads
        decided = len(overloads) == 1 and all(
            want.kind in ("dyn", "param") or arg.type.kind == "scalar"
            for want, arg in zip(overloads[0].args, args, strict=True)
        )
        name = node.function
        run = overloads[0].run if decided else dispatcher(name, overloads)
        charge = charges.of(name, overloads)
        if charge is None:
            return _fixed(run, runs)

        def charged(f: Frame) -> Any:
            values = [inner(f) for inner in runs]
            result = run(*values)
            f[0] -= charge(values, result)
            if f[0] < f[1]:
                raise exceeded(f)
            return result

        def asked(f: Frame) -> Any:
            """Costs much for others' sake and takes no time here: the floor sinks with what is left."""
            values = [inner(f) for inner in runs]
            result = run(*values)
            cost = charge(values, result)
            f[0] -= cost
            f[1] = max(0, f[1] - cost)
            if f[0] < f[1]:
                raise exceeded(f)
            return result

        return asked if name == "check" else charged

    def conditional(self, node: Call) -> Run:
        condition, one, other = (self.compile(arg) for arg in node.args)

        def choose(f: Frame) -> Any:
            value = condition(f)
            if value is True:
                return one(f)
            if value is False:
                return other(f)
            raise Fault("no such overload")

        return choose

    def logical(self, node: Call, decides: bool) -> Run:
        """`&&` and `||`: an error is forgotten when the other side decides."""
        left, right = self.compile(node.args[0]), self.compile(node.args[1])

        def run(f: Frame) -> Any:
            problem = None
            try:
                one = left(f)
                if one is decides:
                    return decides
            except Fault as fault:
                one, problem = None, fault
            other = right(f)
            if other is decides:
                return decides
            if problem is not None:
                raise problem
            if one.__class__ is not bool or other.__class__ is not bool:
                raise Fault("no such overload")
            return not decides

        return run

    def list(self, node: ListNode) -> Run:
        runs, optional = [self.compile(part) for part in node.elements], node.optional
        if not optional:

            def make(f: Frame) -> Any:
                f[0] -= _LIST_COST
                return [run(f) for run in runs]

            return make

        def make_some(f: Frame) -> Any:
            f[0] -= _LIST_COST
            made = []
            for i, run in enumerate(runs):
                value = run(f)
                if i in optional:
                    value = _present(value)
                    if value is NOTHING:
                        continue
                made.append(value)
            return made

        return make_some

    def map(self, node: MapNode) -> Run:
        rows = [(self.compile(entry.key), self.compile(entry.value), entry.optional) for entry in node.entries]

        def make(f: Frame) -> Any:
            f[0] -= _MAP_COST
            made = {}
            for key, value, optional in rows:
                place, found = to_key(key(f)), value(f)
                if optional:
                    found = _present(found)
                    if found is NOTHING:
                        continue
                made[place] = found
            return made

        return make

    def struct(self, node: Struct) -> Run:
        rows = [(entry.key, self.compile(entry.value), entry.optional) for entry in node.entries]
        kind = node.type

        def make(f: Frame) -> Any:
            f[0] -= _STRUCT_COST
            made = {}
            for name, value, optional in rows:
                found = value(f)
                if optional:
                    found = _present(found)
                    if found is NOTHING:
                        continue
                made[name] = found
            return Object(kind, made)

        return make

    def bind(self, node: Comprehension) -> Run:
        """`cel.bind`: the value is made when it is first asked for."""
        init = self.compile(node.init)
        slot = self.new_slot()
        self.scopes.append({node.accu: slot})
        result = self.compile(node.result)
        self.scopes.pop()

        def run(f: Frame) -> Any:
            f[0] -= _LIST_COST
            f[slot] = init(f)
            return result(f)

        return run

    def loop(self, node: Comprehension) -> Run:
        """A macro over a list or map."""
        items = self.compile(node.range)
        first = self.new_slot()
        second = self.new_slot() if node.var2 else 0
        self.scopes.append({node.var: first, node.var2: second} if node.var2 else {node.var: first})
        parts = [self.compile(part) if part is not None else None for part in node.parts]
        self.scopes.pop()
        return loops.make(node.macro, items, first, second, parts)


class Lazy:
    """A variable whose value is made when it is asked for, once."""

    __slots__ = ("_make", "_value")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._value = NOTHING

    def get(self) -> Any:
        """The value; raises what making it raises."""
        if self._value is NOTHING:
            self._value = self._make()
        return self._value


def walk(value: Any, path: Iterable[str]) -> Any:
    """The value at the end of a path; raises Fault where it breaks off. An optional value stays one."""
    if value.__class__ is Lazy:
        value = value.get()
    for name in path:
        if value.__class__ is Optional:
            value = optional_select(value, name)
        elif isinstance(value, dict):
            try:
                value = value[name]
            except KeyError:
                raise Fault(f"no such key: {name}") from None
        elif isinstance(value, list):
            raise Fault("unsupported index type 'string' in list")
        else:
            raise Fault(f"no such key: {name}")
    return value


def _walk(run: Run, path: tuple[str, ...], cost: int) -> Run:
    def many(f: Frame) -> Any:
        f[0] -= cost
        return walk(run(f), path)

    return many


def _has(value: Any, name: str) -> bool:
    if value.__class__ is Lazy:
        value = value.get()
    if value.__class__ is Optional:
        return value.value is not NOTHING and _has(value.value, name)
    if isinstance(value, list):
        raise Fault("unsupported index type 'string' in list")
    return isinstance(value, dict) and name in value


def _present(value: Any) -> Any:
    if value.__class__ is not Optional:
        raise Fault("no such overload")
    return value.value


def _or_else(target: Run, other: Run, *, unwrap: bool) -> Run:
    def run(f: Frame) -> Any:
        f[0] -= 1
        value = target(f)
        if value.__class__ is not Optional:
            raise Fault("no such overload")
        if value.value is NOTHING:
            return other(f)
        return value.value if unwrap else value

    return run


def _equality(left: Run, right: Run, wanted: bool) -> Run:
    factor = charges.TRAVERSAL

    def run(f: Frame) -> bool:
        a, b = left(f), right(f)
        if a.__class__ is str and b.__class__ is str:
            f[0] -= -(-min(len(a), len(b)) // factor)
            return (a == b) is wanted
        f[0] -= -(-min(size(a), size(b)) // factor)
        return equal(a, b, f) is wanted

    return run


def _index(left: Run, right: Run) -> Run:
    def run(f: Frame) -> Any:
        f[0] -= 1
        value, key = left(f), right(f)
        if isinstance(value, list):
            return index_list(value, key)
        if isinstance(value, dict):
            return index_map(value, key)
        if value.__class__ is Optional:
            return optional_select(value, key)
        raise Fault(f"no such key: {shown(key)}")

    return run


def _fixed(run: Callable[..., Any], runs: list[Run]) -> Run:
    if len(runs) == 2:
        left, right = runs

        def binary(f: Frame) -> Any:
            f[0] -= 1
            return run(left(f), right(f))

        return binary
    if len(runs) == 1:
        (only,) = runs

        def unary(f: Frame) -> Any:
            f[0] -= 1
            return run(only(f))

        return unary

    def any_number(f: Frame) -> Any:
        f[0] -= 1
        return run(*[inner(f) for inner in runs])

    return any_number
