"""Measures expressions: python bench/cel.py. Prints the time to compile and to evaluate, and what the engine weighs."""

from __future__ import annotations

import resource
import sys
import timeit
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

REPEATS, ROUNDS = 5, 20_000
CONTAINERS = [{"name": f"c{i}", "image": "i", "resources": {"limits": {"cpu": "1"}}} for i in range(3)]
OBJECT: dict[str, Any] = {"spec": {"replicas": 3, "template": {"spec": {"containers": CONTAINERS}}}}
EXPRESSIONS = (
    "object.spec.replicas <= 5 && object.spec.template.spec.containers.all(c, has(c.resources.limits))",
    "object.spec.template.spec.containers.map(c, c.name).exists(n, n.startsWith('c2'))",
    "object.spec.template.spec.containers.all(c, c.image.matches('^[a-z0-9./:-]+$'))",
)


def main() -> None:
    """The command."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = timeit.default_timer()
    from k3s.api.cel import Environment, compile
    from k3s.api.cel.types import DYN

    took = (timeit.default_timer() - start) * 1000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"import {took:.0f} ms, {grown:.1f} MB")
    environment = Environment({"object": DYN})
    for text in EXPRESSIONS:
        program = compile(text, environment)
        assert program.evaluate({"object": OBJECT}) is True
        compiled = min(timeit.repeat(lambda t=text: compile(t, environment), number=100, repeat=REPEATS)) / 100
        evaluated = min(timeit.repeat(lambda p=program: p.evaluate({"object": OBJECT}), number=ROUNDS, repeat=REPEATS))
        print(f"compile {compiled * 1e6:5.0f} µs, evaluate {evaluated / ROUNDS * 1e6:5.1f} µs: {text}")


if __name__ == "__main__":
    main()
