"""Expressions of CEL, the Common Expression Language, as Kubernetes 1.36 has it. Import this lazily.

    environment = Environment({"object": DYN, "oldObject": DYN, "request": REQUEST})
    program = compile("object.spec.replicas <= 5", environment, result=(BOOL,))   # raises CompileError
    value = program.evaluate({"object": {...}}, budget)                           # raises EvaluationError

- Types come from `k3s.api.cel.types`: `DYN`, `BOOL`, `STRING`, `list_of`, `map_of`, `object_type(name, fields)`; those
  of an OpenAPI schema from `k3s.api.cel.schema`. An object type in `Environment.objects` can be built by
  its name, `Object{...}`; what is built is an `Object` (a dict), which `to_json` turns into JSON values.
- `Environment.libraries` says which functions there are; the default is what the API server has everywhere, add
  `"jsonpatch"` for mutating policies.
- Values are those of JSON. Bindings are never changed. A variable that is not bound reads as null; one that costs work
  can be bound to `Lazy(make)`; a map of such variables (`variables.x`) is a `LazyMap`.
- `Budget` counts the cost over several evaluations: each one has the limit of a call, all have what is left.
- `authorizer` is bound to `library.authorizer.Authorizer(check)`.
"""

from __future__ import annotations

from k3s.api.cel.compiler import Lazy
from k3s.api.cel.environment import KUBERNETES, Environment
from k3s.api.cel.errors import CompileError, CostExceeded, EvaluationError, Fault
from k3s.api.cel.json import to_json
from k3s.api.cel.program import Budget, LazyMap, Program, compile

__all__ = [
    "KUBERNETES",
    "Budget",
    "CompileError",
    "CostExceeded",
    "Environment",
    "EvaluationError",
    "Fault",
    "Lazy",
    "LazyMap",
    "Program",
    "compile",
    "to_json",
]
