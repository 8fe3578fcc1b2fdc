"""A compiled expression, and the cost that evaluations may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k3s.api.allowance import allowed
from k3s.api.cel.checker import check
from k3s.api.cel.compiler import FIRST, Compiler, Lazy
from k3s.api.cel.environment import Environment
from k3s.api.cel.errors import CompileError, CostExceeded, EvaluationError, exceeded
from k3s.api.cel.literals import check_literals
from k3s.api.cel.overloads import WRONG_VALUES
from k3s.api.cel.parser import parse
from k3s.api.cel.syntax import Ident, Node, walk
from k3s.api.cel.types import Type

# What one evaluation may cost, and all of one object together.
PER_CALL, PER_OBJECT = 1_000_000, 10_000_000


class Budget:
    """The cost that several evaluations may have together."""

    __slots__ = ("left",)

    def __init__(self, left: int = PER_OBJECT) -> None:
        self.left = left


class LazyMap(dict[str, Any]):
    """A map whose values are made when they are asked for, once each: `variables` of admission policies."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, key: str) -> Any:
        if key not in self._makers:
            raise KeyError(key)
        value = self[key] = self._makers[key]()
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._makers


class Program:
    """An expression that compiled: its source, the type of its value, the names it refers to."""

    __slots__ = ("_rest", "_run", "_slots", "names", "source", "tree")

    def __init__(self, source: str, tree: Node, environment: Environment) -> None:
        self.source = source
        self.tree = tree
        self.names = frozenset(part.name.split(".")[0] for part in walk(tree) if isinstance(part, Ident))
        compiler = Compiler(environment, environment.variables)
        self._run = compiler.compile(tree)
        self._slots = tuple(environment.variables)
        self._rest = (None,) * (compiler.width - FIRST - len(self._slots))

    @property
    def type(self) -> Type:
        """The type of the value."""
        return self.tree.type

    def evaluate(self, bindings: Mapping[str, Any], budget: Budget | None = None) -> Any:
        """The value; raises EvaluationError, and TooLong beyond the allowance of who asks.

        What it cost is taken from the budget, also when there is no value."""
        allowance = allowed.get()
        frame: list[Any] = [PER_CALL, 0, *map(bindings.get, self._slots), *self._rest]
        if allowance is not None:
            frame[1] = floor = PER_CALL - allowance.left
        try:
            value = self._run(frame)
        except RecursionError:
            raise CostExceeded from None
        except WRONG_VALUES:
            raise EvaluationError("no such overload") from None
        finally:
            if budget is not None:
                budget.left -= PER_CALL - frame[0]
            if allowance is not None:
                allowance.left -= PER_CALL - frame[0] - floor + frame[1]
        if frame[0] < frame[1]:
            raise exceeded(frame)
        return value if value.__class__ is not Lazy else value.get()


def compile(source: str, environment: Environment, result: Sequence[Type] = ()) -> Program:
    """The program of an expression.

    Raises CompileError when it is none, or when its value has none of the types that are wanted."""
    tree = parse(source)
    check(source, tree, environment)
    check_literals(source, tree)
    if result and tree.type not in result:
        wanted = str(result[0]) if len(result) == 1 else f"one of [{' '.join(map(str, result))}]"
        raise CompileError(f"must evaluate to {wanted} but got {tree.type}")
    return Program(source, tree, environment)
