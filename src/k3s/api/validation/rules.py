"""What makes the rules in the schema of a custom kind (`x-kubernetes-validations`) wrong.

    words(at, schema) -> causes     what they say beside their expressions, one schema
    check(at, schema) -> causes     that the expressions of a whole sound schema compile, and what they may cost

Source: the CustomResourceDefinition documentation on validation rules; order and wording as upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from k3s.api.schema import has_rules
from k3s.api.validation.causes import Causes, forbidden, invalid, one_of, required

Raw = Mapping[str, Any]
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_PER_RULE, _PER_DEFINITION = 10_000_000, 100_000_000
_MOST_COST = (1 << 64) - 1
_MOST_NAMED = 4
_ADVICE = (
    "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared"
)
_BREAKS = re.compile(r"[\n\r]")


def words(at: str, schema: Raw) -> Causes:
    """Messages, reasons and paths of the rules at one schema."""
    for i, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        here = f"{at}.x-kubernetes-validations[{i}]"
        yield from _texts(here, rule)
        reason, path = rule.get("reason"), rule.get("fieldPath", "")
        if reason is not None:
            yield from one_of(f"{here}.reason", reason, _REASONS)
        if path and not path.strip():
            yield invalid(f"{here}.fieldPath", path, "must be non-empty if specified")
        if _BREAKS.search(path):
            yield invalid(f"{here}.fieldPath", path, "must not contain line breaks")
        if path:
            from k3s.api.cel import fieldpath

            try:
                fieldpath.normalized(path, schema)
            except ValueError:
                yield invalid(f"{here}.fieldPath", path, "must be a valid path")


def _texts(here: str, rule: Raw) -> Causes:
    text, message, expression = (rule.get(word, "") for word in ("rule", "message", "messageExpression"))
    if not text.strip():
        yield required(f"{here}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid(f"{here}.message", message, "must be non-empty if specified")
    elif _BREAKS.search(message.strip()):
        yield invalid(f"{here}.message", message, "must not contain line breaks")
    elif _BREAKS.search(text.strip()) and not message.strip():
        yield required(f"{here}.message", "must be specified if rule contains line breaks")
    if expression and not expression.strip():
        yield required(f"{here}.messageExpression", "must be non-empty if specified")


def check(at: str, schema: Raw) -> Causes:
    """The expressions of a whole schema."""
    if not has_rules(schema):
        return
    checker = _Checker()
    yield from checker.schema(at, schema, root=True, count=1, uncorrelated="")
    if checker.total > _PER_DEFINITION:
        for place, _ in sorted(checker.costs, key=lambda cost: -cost[1])[:_MOST_NAMED]:
            text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            yield forbidden(place, text)
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden(at, _too_much(what, checker.total, _PER_DEFINITION))


def _too_much(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {shown} ({_ADVICE})"


class _Checker:
    def __init__(self) -> None:
        self.costs: list[tuple[str, int]] = []

    @property
    def total(self) -> int:
        return min(sum(cost for _, cost in self.costs), _MOST_COST)

    def schema(self, at: str, schema: Raw, *, root: bool, count: int | None, uncorrelated: str) -> Causes:
        """One schema: first what is in it. `count` is how often it can be there, None for no limit; `uncorrelated` is
        the outermost schema inside which old and new parts cannot be told to be the same."""
        more, items = schema.get("additionalProperties"), schema.get("items")
        if isinstance(more, Mapping):
            inner = _times(count, schema.get("maxProperties"))
            yield from self.inside(f"{at}.additionalProperties", more, inner, uncorrelated)
        for name, part in (schema.get("properties") or {}).items():
            yield from self.inside(f"{at}.properties[{name}]", part, count, uncorrelated)
        if isinstance(items, Mapping):
            keyed = schema.get("x-kubernetes-list-type") == "map"
            inner = _times(count, schema.get("maxItems"))
            yield from self.inside(f"{at}.items", items, inner, uncorrelated or ("" if keyed else at))
        if schema.get("x-kubernetes-validations"):
            yield from self.rules(at, schema, root=root, count=count, uncorrelated=uncorrelated)

    def inside(self, at: str, schema: Raw, count: int | None, uncorrelated: str) -> Causes:
        embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        yield from self.schema(at, schema, root=embedded, count=count, uncorrelated=uncorrelated)

    def rules(self, at: str, schema: Raw, *, root: bool, count: int | None, uncorrelated: str) -> Causes:
        from k3s.api.cel import rules
        from k3s.api.cel.schema import REQUEST_BYTES, declared

        kind = declared(schema, "selfType", root=root)
        if kind is None:
            why = "internal error: failed to retrieve type information for x-kubernetes-validations"
            where = f"{at}.x-kubernetes-validations"
            yield {"reason": "InternalError", "message": f"Internal error: {why}", "field": where}
            return
        often = count if count is not None else REQUEST_BYTES // (kind.least_bytes + 1)
        for i, rule in enumerate(rules.compiled(schema, kind)):
            here, shown = f"{at}.x-kubernetes-validations[{i}]", _shown(rule.raw)
            if rule.program is not None:
                cost = min(rules.worst_cost(rule.program, kind) * often, _MOST_COST)
                yield from self.costly(f"{here}.rule", "estimated rule cost", cost)
            if rule.problem:
                yield invalid(f"{here}.rule", shown, rule.problem)
            if rule.message_problem:
                yield invalid(f"{here}.messageExpression", shown, rule.message_problem)
            elif rule.message is not None:
                cost = rules.worst_cost(rule.message, kind)
                yield from self.costly(f"{here}.messageExpression", "estimated messageExpression cost", cost)
            if rule.uses_old:
                if uncorrelated:
                    why = "oldSelf cannot be used on the uncorrelatable portion of the schema within"
                    yield invalid(f"{here}.rule", rule.raw.get("rule", ""), f"{why} {uncorrelated}")
            elif rule.raw.get("optionalOldSelf") is not None:
                why = "may not be set if oldSelf is not used in rule"
                yield invalid(f"{here}.optionalOldSelf", rule.raw["optionalOldSelf"], why)

    def costly(self, at: str, what: str, cost: int) -> Causes:
        if cost > _PER_RULE:
            yield forbidden(at, _too_much(what, cost, _PER_RULE))
        self.costs.append((at, cost))


def _times(count: int | None, most: Any) -> int | None:
    return None if count is None or most is None else min(count * max(0, int(most)), _MOST_COST)


def _shown(rule: Raw) -> Raw:
    """A rule as the reference server's memory has it."""
    texts = {"Rule": "rule", "Message": "message", "MessageExpression": "messageExpression"}
    return {
        **{name: rule.get(word, "") for name, word in texts.items()},
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
