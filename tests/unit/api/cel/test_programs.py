"""Programs: budgets, lazy variables, objects that are built, rights that are asked for."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s.api.allowance import Allowance, TooLong, allowed
from k3s.api.cel import (
    KUBERNETES,
    Budget,
    CompileError,
    CostExceeded,
    Environment,
    EvaluationError,
    Lazy,
    LazyMap,
    compile,
    to_json,
)
from k3s.api.cel.library.authorizer import AUTHORIZER, Answer, Authorizer, Question
from k3s.api.cel.types import BOOL, DYN, STRING, list_of, map_of, object_type
from k3s.api.cel.values import MapList, SetList, equal

DYNAMIC = Environment({"object": DYN, "variables": DYN})


def test_a_result_of_another_type_is_refused() -> None:
    """As upstream says it."""
    with pytest.raises(CompileError, match=r"^must evaluate to bool but got int$"):
        compile("1", DYNAMIC, (BOOL,))
    with pytest.raises(CompileError, match=r"^must evaluate to one of \[bool string\] but got list\(int\)$"):
        compile("[1]", DYNAMIC, (BOOL, STRING))


def test_work_is_bounded() -> None:
    """One evaluation stops at its limit, and what it cost is taken from the budget."""
    loops = "object.all(a, object.all(b, object.all(c, a + b + c >= 0)))"
    budget = Budget(10_000_000)
    with pytest.raises(CostExceeded, match="operation cancelled: actual cost limit exceeded"):
        compile(loops, DYNAMIC).evaluate({"object": list(range(200))}, budget)
    assert 8_900_000 < budget.left < 9_000_001


def test_a_limit_is_not_forgotten() -> None:
    """`||` forgets errors of values, not the end of the budget."""
    loops = "object.all(a, object.all(b, object.all(c, a + b + c >= 0))) || true"
    with pytest.raises(CostExceeded):
        compile(loops, DYNAMIC).evaluate({"object": list(range(200))})


@pytest.mark.parametrize(
    "text",
    [
        "object.replace('', object).replace('', object)",
        "object.split('').join(object)",
        "".join(f"cel.bind(v{i}, v{i - 1} + v{i - 1}, " if i else "cel.bind(v0, [1, 1], " for i in range(30))
        + "v29.size()"
        + ")" * 30,
        "".join(
            f"cel.bind(v{i}, '%s%s'.format([v{i - 1}, v{i - 1}]), " if i else "cel.bind(v0, 'ab', " for i in range(30)
        )
        + "v29.size()"
        + ")" * 30,
    ],
    ids=("replace", "join", "lists", "format"),
)
def test_no_expression_makes_values_without_end(text: str) -> None:
    """What grows faster than it costs stops at a limit."""
    with pytest.raises(CostExceeded):
        compile(text, DYNAMIC).evaluate({"object": "x" * 10_000})


def test_lazy_values_are_made_once_and_only_when_asked_for() -> None:
    """Variables of policies."""
    made: list[str] = []

    def maker(name: str) -> Any:
        def make() -> int:
            made.append(name)
            return 3

        return make

    variables = LazyMap({"a": maker("a"), "b": maker("b")})
    program = compile("variables.a + variables.a == 6 && has(variables.b) && !has(variables.c)", DYNAMIC)
    assert program.evaluate({"variables": variables}) is True
    assert made == ["a"]
    assert compile("object == 3", DYNAMIC).evaluate({"object": Lazy(maker("o"))}) is True


def test_objects_are_built_by_their_type() -> None:
    """What mutating policies return, as JSON."""
    meta = object_type("Object.metadata", {"labels": map_of(STRING, STRING)})
    whole = object_type("Object", {"metadata": meta})
    step = object_type("JSONPatch", {"op": STRING, "path": STRING, "value": DYN})
    objects = {"Object": whole, "Object.metadata": meta, "JSONPatch": step}
    environment = Environment({"object": DYN}, objects, (*KUBERNETES, "jsonpatch"))
    built = compile("Object{metadata: Object.metadata{labels: {'a': 'b'}}}", environment, (whole,))
    assert to_json(built.evaluate({})) == {"metadata": {"labels": {"a": "b"}}}
    steps = compile("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c~'), value: 1}]", environment)
    assert steps.type == list_of(step)
    assert to_json(steps.evaluate({})) == [{"op": "add", "path": "/a/b~1c~0", "value": 1}]
    with pytest.raises(CompileError, match=r"1:9: undefined field 'b'"):
        compile("Object{b: 1}", environment)
    with pytest.raises(CompileError, match=r"expected type of field 'op' is 'string' but provided type is 'int'"):
        compile("JSONPatch{op: 1}", environment)


def test_the_authorizer_asks() -> None:
    """The whole question arrives, and the answer is read."""
    asked: list[Question] = []

    def ask(question: Question) -> Answer:
        asked.append(question)
        return Answer(question.verb == "get", "because")

    environment = Environment({"authorizer": AUTHORIZER})
    text = "authorizer.serviceAccount('n', 's').group('apps').resource('deployments').namespace('x').name('d')"
    program = compile(f"{text}.check('get').allowed() && !{text}.check('list').allowed()", environment)
    assert program.evaluate({"authorizer": Authorizer(ask)}) is True
    assert asked[0] == Question("get", ("n", "s"), "", "apps", "deployments", "", "x", "d")
    program = compile("authorizer.path('/healthz').check('get').reason()", environment)
    assert program.evaluate({"authorizer": Authorizer(ask)}) == "because"


_WORDS = (
    *("object", ".", "?", "[", "]", "{", "}", "(", ")", ",", ":", "1", "2u", "1.5", "'a'", "b'a'", "true", "null", "+"),
    *("-", "*", "/", "%", "<", "==", "!=", "&&", "||", "!", "in", "has", "all", "exists", "map", "filter", "x", "of"),
    *("optional", "none", "orValue", "size", "cel", "bind", "Object", "\\", "`", '"', "\n", "#", "for", "int", "type"),
)
_PIECES = st.sampled_from(_WORDS)


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=14).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_program_or_a_complaint(text: str) -> None:
    """Whatever is written, the parser and checker answer, and a program gives a value or an error."""
    try:
        program = compile(text, DYNAMIC)
    except CompileError:
        return
    try:
        to_json(program.evaluate({"object": {"x": [1, "a", None, {"y": 1.5}]}, "variables": {}}))
    except EvaluationError:
        return


_DEEP = (
    *("(" * 5000, "[" * 249 + "]" * 249, "!" * 90_000 + "true", "-" * 3001 + "1", "a." * 5000, "1+" * 9000 + "1"),
    *(
        "{1:" * 300,
        "true&&" * 9000 + "true",
        "x" * 200_000,
        "'" + "\\" * 9999,
        "[0].all(a, " * 200 + "true" + ")" * 200,
    ),
)


@pytest.mark.parametrize("text", _DEEP, ids=[text[:6] for text in _DEEP])
def test_depth_and_size_are_bounded(text: str) -> None:
    """Deep and long texts end in an answer, not in the depth of Python's stack."""
    with contextlib.suppress(CompileError, EvaluationError):
        compile(text, DYNAMIC).evaluate({})


def test_what_is_allowed_at_once_is_less_than_what_is_allowed() -> None:
    """Beyond an allowance an evaluation ends as too long; all of it share one, and it hides no error."""
    program = compile("object.all(a, object.all(b, a + b >= 0))", DYNAMIC)
    few, many = {"object": list(range(20))}, {"object": list(range(100))}
    allowance = Allowance(5_000)
    before = allowed.set(allowance)
    try:
        assert program.evaluate(few) is True
        assert 1_000 < allowance.left < 4_000
        with pytest.raises(TooLong):
            program.evaluate(many)
        with pytest.raises(TooLong):
            program.evaluate(few)
    finally:
        allowed.reset(before)
    assert program.evaluate(many) is True


def test_asking_for_rights_costs_much_and_takes_no_time() -> None:
    """A question is answered at once, whatever it costs; a third one is over the limit, as everywhere."""
    environment = Environment({"authorizer": AUTHORIZER, "object": DYN})
    ask = "authorizer.path('/x').check('get').allowed()"
    before = allowed.set(Allowance())
    try:
        bound = {"authorizer": Authorizer(lambda question: Answer(True)), "object": list(range(200))}
        assert compile(f"{ask} && {ask}", environment).evaluate(bound) is True
        with pytest.raises(CostExceeded):
            compile(f"{ask} && {ask} && {ask}", environment).evaluate(bound)
        with pytest.raises(TooLong):
            compile(f"{ask} && object.all(a, object.all(b, a + b >= 0))", environment).evaluate(bound)
    finally:
        allowed.reset(before)


@pytest.mark.parametrize(
    "text",
    [
        "object.many.all(x, object.deep == object.same)",
        "object.many.all(x, object.deep in [object.same])",
        "object.many.all(x, sets.contains(object.deep, object.same))",
        "object.many.all(x, size(object.many + object.many) > 0)",
    ],
)
def test_comparing_and_copying_cost_what_they_look_at(text: str) -> None:
    """What is inside of lists counts too, so that no number of cheap steps takes minutes."""
    deep = [[list(range(20)) for _ in range(20)]]
    bound = {"object": {"many": list(range(400)), "deep": deep, "same": [[*deep[0]]]}}
    budget = Budget()
    with contextlib.suppress(CostExceeded):
        compile(text, DYNAMIC).evaluate(bound, budget)
    assert budget.left < 10_000_000 - 400 * 8


def test_lists_that_are_sets_and_lists_with_keys_compare_in_any_order() -> None:
    """True is not 1, and 1.0 is; elements with other keys, or other fields, are others."""
    assert equal(SetList([1, "a"]), SetList(["a", 1])) and equal(SetList([1.0]), SetList([1]))
    assert not equal(SetList([1]), SetList([True])) and not equal(SetList(["a", "b"]), SetList(["a", "c"]))
    one = MapList([{"k": 1, "v": [1]}, {"k": 2}], ("k",))
    assert equal(one, [{"k": 2}, {"k": 1, "v": [1]}])
    assert not equal(one, [{"k": 2}, {"k": 1, "v": [2]}]) and not equal(one, [{"k": 2}, {"k": True, "v": [1]}])
