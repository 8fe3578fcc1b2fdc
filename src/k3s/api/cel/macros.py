"""The macros: calls that are loops, tests and bindings.

Each becomes the fold of the reference implementation, whose shape the cost estimate is made from, and keeps what the
author wrote, from which the compiler makes a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable

from k3s.api.cel.syntax import Call, Comprehension, Entry, Ident, ListNode, Literal, MapNode, Node, Select

Problem = Callable[[int, str], None]
RESULT = "@result"
UNUSED = "#unused"


def expand(call: Call, problem: Problem) -> Node:
    """What a call means: the macro of that name and form, else the call itself."""
    if call.target is None:
        if call.function == "has" and len(call.args) == 1:
            return _has(call, problem)
        return call
    dotted = call.target.name if isinstance(call.target, Ident) else ""
    if dotted == "cel" and call.function == "bind" and len(call.args) == 3:
        return _bind(call, problem)
    make = _MACROS.get((call.function, len(call.args)))
    return call if make is None else make(call, problem)


def _has(call: Call, problem: Problem) -> Node:
    arg = call.args[0]
    if isinstance(arg, Select) and not arg.test:
        return Select(call.offset, arg.operand, arg.field, True)
    problem(arg.offset, "invalid argument to has() macro")
    return call


def _name(node: Node, problem: Problem, text: str = "argument must be a simple name") -> str:
    if isinstance(node, Ident) and not node.name.startswith("."):
        if node.name in ("__result__", RESULT):
            problem(node.offset, "iteration variable overwrites accumulator variable")
        return node.name
    problem(node.offset, text)
    return "?"


def _bind(call: Call, problem: Problem) -> Node:
    at = call.offset
    name = _name(call.args[0], problem, "cel.bind() variable names must be simple identifiers")
    return Comprehension(
        at,
        "bind",
        ListNode(at, []),
        UNUSED,
        "",
        name,
        call.args[1],
        Literal(at, False),
        Ident(at, name),
        call.args[2],
        (call.args[1], call.args[2]),
    )


def _fold(
    call: Call, macro: str, names: list[str], parts: list[Node | None], shape: tuple[Node, Node, Node, Node]
) -> Node:
    assert call.target is not None
    init, condition, step, result = shape
    second = names[1] if len(names) > 1 else ""
    return Comprehension(
        call.offset, macro, call.target, names[0], second, RESULT, init, condition, step, result, tuple(parts)
    )


def _names(call: Call, count: int, problem: Problem) -> list[str]:
    names = [_name(arg, problem) for arg in call.args[:count]]
    if count == 2 and names[0] == names[1] != "?":
        problem(call.args[1].offset, f"duplicate variable name: {names[0]}")
    return names


def _quantifier(macro: str, variables: int) -> Callable[[Call, Problem], Node]:
    def make(call: Call, problem: Problem) -> Node:
        at = call.offset
        names, predicate = _names(call, variables, problem), call.args[variables]
        if macro == "exists_one":
            counted = Call(at, "_+_", [Ident(at, RESULT), Literal(at, 1)])
            step: Node = Call(at, "_?_:_", [predicate, counted, Ident(at, RESULT)])
            is_one = Call(at, "_==_", [Ident(at, RESULT), Literal(at, 1)])
            return _fold(call, macro, names, [predicate], (Literal(at, 0), Literal(at, True), step, is_one))
        operator = "_&&_" if macro == "all" else "_||_"
        state: Node = Ident(at, RESULT)
        if macro == "exists":
            state = Call(at, "!_", [state])
        condition = Call(at, "@not_strictly_false", [state])
        step = Call(at, operator, [Ident(at, RESULT), predicate])
        return _fold(call, macro, names, [predicate], (Literal(at, macro == "all"), condition, step, Ident(at, RESULT)))

    return make


def _list(macro: str, variables: int, filtered: bool) -> Callable[[Call, Problem], Node]:
    """`map`, `filter` and `transformList`."""

    def make(call: Call, problem: Problem) -> Node:
        at = call.offset
        names, rest = _names(call, variables, problem), call.args[variables:]
        predicate = rest[0] if filtered else None
        value: Node = rest[-1] if macro != "filter" else call.args[0]
        step: Node = Call(at, "_+_", [Ident(at, RESULT), ListNode(at, [value])])
        if predicate is not None:
            step = Call(at, "_?_:_", [predicate, step, Ident(at, RESULT)])
        shape = (ListNode(at, []), Literal(at, True), step, Ident(at, RESULT))
        return _fold(call, "list", names, [predicate, value], shape)

    return make


def _map(entry: bool, filtered: bool) -> Callable[[Call, Problem], Node]:
    """`transformMap` and `transformMapEntry`."""

    def make(call: Call, problem: Problem) -> Node:
        at = call.offset
        names, rest = _names(call, 2, problem), call.args[2:]
        predicate = rest[0] if filtered else None
        value = rest[-1]
        if entry:
            step: Node = Call(at, "cel.@mapInsert", [Ident(at, RESULT), value])
        else:
            step = Call(at, "cel.@mapInsert", [Ident(at, RESULT), Ident(at, names[0]), value])
        if predicate is not None:
            step = Call(at, "_?_:_", [predicate, step, Ident(at, RESULT)])
        shape = (MapNode(at, list[Entry]()), Literal(at, True), step, Ident(at, RESULT))
        return _fold(call, "entries" if entry else "map", names, [predicate, value], shape)

    return make


def _optional_map(flat: bool) -> Callable[[Call, Problem], Node]:
    """`optMap` and `optFlatMap`: the value, when there is one, bound to a name."""

    def make(call: Call, problem: Problem) -> Node:
        at, target = call.offset, call.target
        assert target is not None
        name = _name(call.args[0], problem, f"{call.function}() variable name must be a simple identifier")
        bound = Comprehension(
            at,
            "bind",
            ListNode(at, []),
            UNUSED,
            "",
            name,
            Call(at, "value", [], target),
            Literal(at, False),
            Ident(at, name),
            call.args[1],
        )
        bound.parts = (bound.init, bound.result)
        found: Node = bound if flat else Call(at, "optional.of", [bound])
        return Call(at, "_?_:_", [Call(at, "hasValue", [], target), found, Call(at, "optional.none", [])])

    return make


_MACROS: dict[tuple[str, int], Callable[[Call, Problem], Node]] = {
    ("all", 2): _quantifier("all", 1),
    ("exists", 2): _quantifier("exists", 1),
    ("exists_one", 2): _quantifier("exists_one", 1),
    ("existsOne", 2): _quantifier("exists_one", 1),
    ("map", 2): _list("map", 1, False),
    ("map", 3): _list("map", 1, True),
    ("filter", 2): _list("filter", 1, True),
    ("all", 3): _quantifier("all", 2),
    ("exists", 3): _quantifier("exists", 2),
    ("existsOne", 3): _quantifier("exists_one", 2),
    ("exists_one", 3): _quantifier("exists_one", 2),
    ("transformList", 3): _list("transformList", 2, False),
    ("transformList", 4): _list("transformList", 2, True),
    ("transformMap", 3): _map(False, False),
    ("transformMap", 4): _map(False, True),
    ("transformMapEntry", 3): _map(True, False),
    ("transformMapEntry", 4): _map(True, True),
    ("optMap", 2): _optional_map(False),
    ("optFlatMap", 2): _optional_map(True),
}
