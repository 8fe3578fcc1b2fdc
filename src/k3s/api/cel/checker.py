"""The static check: gives every node its type and every call the overloads that may be meant.

Source: the type rules of the CEL language definition; order and wording of the complaints as the reference checker.
"""

from __future__ import annotations

from k3s.api.cel import types
from k3s.api.cel.environment import Environment
from k3s.api.cel.errors import CompileError, Issue, report
from k3s.api.cel.syntax import Call, Comprehension, Entry, Ident, ListNode, Literal, MapNode, Node, Select, Struct, walk
from k3s.api.cel.types import BOOL, DYN, ERROR, Bindings, Type, instantiate
from k3s.api.cel.values import Duration, Timestamp, TypeValue, Uint

_LITERALS = {
    bool: BOOL,
    int: types.INT,
    Uint: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    type(None): types.NULL,
    Timestamp: types.TIMESTAMP,
    Duration: types.DURATION,
}


def check(source: str, node: Node, environment: Environment) -> None:
    """Writes the types into the tree; raises CompileError."""
    checker = _Checker(environment)
    try:
        checker.check(node)
    except RecursionError:
        raise CompileError(report(source, [Issue(-1, "expression recursion limit exceeded: 250")])) from None
    if checker.issues:
        raise CompileError(report(source, checker.issues))
    for part in walk(node):
        part.type = checker.bindings.resolve(part.type, close=True)


class _Checker:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.functions = environment.functions
        self.bindings = Bindings()
        self.issues: list[Issue] = []
        self.scopes: list[dict[str, Type]] = []

    def problem(self, node: Node | Entry, text: str) -> None:
        self.issues.append(Issue(node.offset, text))

    def shown(self, kind: Type) -> str:
        return self.bindings.resolve(kind).shown

    def check(self, node: Node) -> Type:
        """The type of a node, which is also written into it."""
        if isinstance(node, Literal):
            node.type = _LITERALS[node.value.__class__]
        elif isinstance(node, Ident):
            node.type = self.ident(node)
        elif isinstance(node, Select):
            node.type = self.select(node)
        elif isinstance(node, Call):
            node.type = self.call(node)
        elif isinstance(node, ListNode):
            node.type = self.list(node)
        elif isinstance(node, MapNode):
            node.type = self.map(node)
        elif isinstance(node, Struct):
            node.type = self.struct(node)
        elif isinstance(node, Comprehension):
            node.type = self.comprehension(node)
        return node.type

    def lookup(self, node: Ident) -> Type | None:
        """The type of a name; a name of a type becomes its value."""
        name = node.name
        if not name.startswith("."):
            for scope in reversed(self.scopes):
                if name in scope:
                    return scope[name]
        name = name.removeprefix(".")
        known = self.environment.variables.get(name)
        if known is not None:
            node.name = name
            return known
        named = self.environment.type_named(name)
        if named is None:
            return None
        node.constant = TypeValue(named)
        return types.type_of(named)

    def ident(self, node: Ident) -> Type:
        found = self.lookup(node)
        if found is None:
            self.problem(node, f"undeclared reference to '{node.name}' (in container '')")
            return ERROR
        return found

    def select(self, node: Select) -> Type:
        path = _path(node)
        if path and not node.test:
            whole = Ident(node.offset, path)
            if not self.is_local(path) and (found := self.lookup(whole)) is not None:
                node.ident = whole
                return found
        operand = self.check(node.operand)
        found = self.field(node, self.bindings.resolve(operand), node.field)
        return BOOL if node.test else found

    def is_local(self, path: str) -> bool:
        first = path.split(".")[0]
        return any(first in scope for scope in self.scopes)

    def field(self, node: Node, operand: Type, name: str) -> Type:
        """The type of a field of a type."""
        if types.is_optional(operand):
            return types.optional_of(self.field(node, self.bindings.resolve(operand.args[0]), name))
        if operand.kind in ("error", "dyn"):
            return DYN
        if operand.kind == "object":
            assert operand.fields is not None
            found = operand.fields(name)
            if found is None:
                self.problem(node, f"undefined field '{name}'")
                return ERROR
            return found
        if operand.kind == "map":
            return operand.args[1]
        if operand.kind == "param":
            self.bindings.assignable(operand, DYN)
            return DYN
        self.problem(node, f"type '{operand.shown}' does not support field selection")
        return ERROR

    def call(self, node: Call) -> Type:
        if node.function == "_?._":
            return self.optional_field(node)
        for arg in node.args:
            self.check(arg)
        if node.target is None:
            name = node.function.removeprefix(".")
            if name not in self.functions:
                self.problem(node, f"undeclared reference to '{node.function}' (in container '')")
                return ERROR
            node.function = name
            return self.resolve(node, node.args)
        path = _path(node.target)
        if path and f"{path}.{node.function}" in self.functions:
            node.function = f"{path}.{node.function}"
            node.target = None
            return self.resolve(node, node.args)
        self.check(node.target)
        if node.function not in self.functions:
            self.problem(node, f"undeclared reference to '{node.function}' (in container '')")
            return ERROR
        return self.resolve(node, [node.target, *node.args])

    def optional_field(self, node: Call) -> Type:
        operand = self.bindings.resolve(self.check(node.args[0]))
        name = node.args[1]
        self.check(name)
        assert isinstance(name, Literal)
        node.overloads = list(self.functions["_?._"])
        found = self.field(node, operand, name.value)
        return found if types.is_optional(operand) else types.optional_of(found)

    def resolve(self, node: Call, args: list[Node]) -> Type:
        """The result of a call; the overloads that may be meant are written into it."""
        if node.function in ("_&&_", "_||_"):
            return self.logical(node)
        given = [arg.type for arg in args]
        result: Type | None = None
        for overload in self.functions[node.function]:
            if overload.member != (node.target is not None):
                continue
            *wanted, outcome = instantiate((*overload.args, overload.result), self.bindings)
            if not self.bindings.all_assignable(given, wanted):
                continue
            node.overloads.append(overload)
            outcome = self.bindings.resolve(outcome)
            if result is None:
                result = outcome
            elif result.kind != "dyn" and outcome != result:
                result = DYN
        if result is not None:
            return result
        shown = [self.bindings.resolve(kind, close=True).shown for kind in given]
        applied = f"{shown[0]}.({', '.join(shown[1:])})" if node.target is not None else f"({', '.join(shown)})"
        self.problem(node, f"found no matching overload for '{node.function}' applied to '{applied}'")
        return ERROR

    def logical(self, node: Call) -> Type:
        node.overloads = list(self.functions[node.function])
        result = BOOL
        for arg in node.args:
            if not self.bindings.assignable(arg.type, BOOL):
                self.problem(arg, f"expected type 'bool' but found '{self.shown(arg.type)}'")
                result = ERROR
        return result

    def joined(self, node: Node, before: Type | None, now: Type) -> Type:
        if before is None:
            return now
        if self.bindings.assignable(before, now):
            return before if self.bindings.wider(before, now) else now
        self.problem(node, f"expected type '{self.shown(before)}' but found '{self.shown(now)}'")
        return ERROR

    def maybe(self, node: Node, kind: Type, optional: bool) -> Type:
        """The type of an element that may be missing."""
        if not optional:
            return kind
        kind = self.bindings.resolve(kind)
        if types.is_optional(kind):
            return kind.args[0]
        if kind.kind != "dyn":
            self.problem(node, f"expected type '{types.optional_of(kind).shown}' but found '{kind.shown}'")
        return kind

    def list(self, node: ListNode) -> Type:
        element: Type | None = None
        for i, part in enumerate(node.elements):
            kind = self.maybe(part, self.check(part), i in node.optional)
            element = self.joined(part, element, kind)
        return types.list_of(element if element is not None else self.bindings.fresh())

    def map(self, node: MapNode) -> Type:
        key: Type | None = None
        value: Type | None = None
        for entry in node.entries:
            key = self.joined(entry.key, key, self.check(entry.key))
            kind = self.maybe(entry.value, self.check(entry.value), entry.optional)
            value = self.joined(entry.value, value, kind)
        if key is None or value is None:
            key, value = self.bindings.fresh(), self.bindings.fresh()
        return types.map_of(key, value)

    def struct(self, node: Struct) -> Type:
        name = node.name.removeprefix(".")
        named = self.environment.type_named(name)
        result = ERROR
        if named is None:
            self.problem(node, f"undeclared reference to '{node.name}' (in container '')")
            return ERROR
        if named.kind != "object":
            self.problem(node, f"'{name}' is not a message type")
        else:
            result = named
        node.name = name
        for entry in node.entries:
            kind = self.maybe(entry.value, self.check(entry.value), entry.optional)
            found = result.fields(entry.key) if result.fields is not None else ERROR
            if found is None:
                self.problem(entry, f"undefined field '{entry.key}'")
                found = ERROR
            if not self.bindings.assignable(found, kind):
                wanted, given = self.shown(found), self.shown(kind)
                text = f"expected type of field '{entry.key}' is '{wanted}' but provided type is '{given}'"
                self.problem(entry, text)
        return result

    def comprehension(self, node: Comprehension) -> Type:
        self.check(node.range)
        self.check(node.init)
        accu = node.init.type
        key, value = self.elements(node)
        self.scopes.append({node.accu: accu})
        self.scopes.append({node.var: key, node.var2: value} if node.var2 else {node.var: key})
        self.check(node.condition)
        self.demand(node.condition, BOOL)
        self.check(node.step)
        self.demand(node.step, accu)
        self.scopes.pop()
        self.check(node.result)
        self.scopes.pop()
        return self.bindings.resolve(node.result.type)

    def elements(self, node: Comprehension) -> tuple[Type, Type]:
        """The types of the loop's variables."""
        kind = self.bindings.resolve(node.range.type)
        two = bool(node.var2)
        if kind.kind == "list":
            return (types.INT if two else kind.args[0]), kind.args[0]
        if kind.kind == "map":
            return kind.args[0], kind.args[1]
        if kind.kind in ("dyn", "error", "param"):
            if kind.kind == "param":
                self.bindings.assignable(kind, DYN)
            return DYN, DYN
        text = f"expression of type '{kind.shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
        self.problem(node.range, text)
        return ERROR, ERROR

    def demand(self, node: Node, kind: Type) -> None:
        if not self.bindings.assignable(kind, node.type):
            self.problem(node, f"expected type '{self.shown(kind)}' but found '{self.shown(node.type)}'")


def _path(node: Node) -> str:
    """The name that a chain of fields may be; empty when it is none."""
    parts: list[str] = []
    while isinstance(node, Select) and not node.test:
        parts.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(parts)])
