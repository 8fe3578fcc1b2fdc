"""The expressions of admission policies: that they compile, and that their values have the right type.

Source: the ValidatingAdmissionPolicy and MutatingAdmissionPolicy types; texts as upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from k3s.api import names
from k3s.api.kinds import split_api_version
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    joined,
    one_of,
    required,
    selector,
    too_many,
)

Spec = Mapping[str, Any]
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_RESERVED = frozenset(
    {
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_LONGEST_ANNOTATION = 5 * 1024
_MOST_CONDITIONS = 64
_UNSAID = "expression is not specified"


def param_kind(at: str, kind: Spec) -> Causes:
    """The kind of a policy's parameters."""
    text, name = kind.get("apiVersion", ""), kind.get("kind", "")
    if not text:
        yield required(f"{at}.apiVersion")
    elif text.count("/") > 1:
        yield invalid(f"{at}.apiVersion", text, f"unexpected GroupVersion string: {text}")
    else:
        group, version = split_api_version(text)
        if group:
            yield from joined(f"{at}.apiVersion", group, names.dns_subdomain(group))
        if not version:
            yield invalid(f"{at}.apiVersion", text, "version must be specified")
        else:
            yield from joined(f"{at}.apiVersion", version, names.dns1035_label(version))
    if not name:
        yield required(f"{at}.kind")
    elif problems := names.dns1035_label(name.lower()):
        why = "may have mixed case, but should otherwise match: " + ",".join(problems)
        yield invalid(f"{at}.kind", name, why)


def param_ref(at: str, ref: Spec | None) -> Causes:
    """Where a binding finds parameters."""
    if ref is None:
        return
    name, chosen, both = ref.get("name") or "", ref.get("selector"), "name and selector are mutually exclusive"
    if name:
        yield from each(f"{at}.name", name, names.path_segment(name))
        if chosen is not None:
            yield forbidden(f"{at}.name", both)
    if chosen is not None:
        yield from selector(f"{at}.selector", chosen)
        if name:
            yield forbidden(f"{at}.selector", both)
    elif not name:
        yield required(at, "one of name or selector must be specified")
    absent = ref.get("parameterNotFoundAction")
    if not absent:
        yield required(f"{at}.parameterNotFoundAction")
    else:
        yield from one_of(f"{at}.parameterNotFoundAction", absent, ("Deny", "Allow"))


def actions(at: str, given: list[str]) -> Causes:
    """What a binding does with a validation that does not hold."""
    for number, action in enumerate(given):
        yield from one_of(f"{at}[{number}]", action, ("Audit", "Deny", "Warn"))
        if action in given[:number]:
            yield duplicate(f"{at}[{number}]", action)
    if "Deny" in given and "Warn" in given:
        why = "must not contain both Deny and Warn (repeating the same validation failure information in the API"
        yield invalid(at, given, f"{why} response and headers serves no purpose)")
    if not given:
        yield required(at, "at least one validation action is required")


def conditions(at: str, given: list[Spec], *, policy: bool, params: bool = False) -> Causes:
    """The matchConditions of a webhook or a policy."""
    seen: set[str] = set()
    if len(given) > _MOST_CONDITIONS:
        yield too_many(at, len(given), _MOST_CONDITIONS)
    for number, one in enumerate(given):
        here, name = f"{at}[{number}]", str(one.get("name", ""))
        source = str(one.get("expression", "")).strip()
        if not source:
            yield required(f"{here}.expression")
        else:
            yield from _compiled(f"{here}.expression", source, _condition(policy, params))
        if not name:
            yield required(f"{here}.name")
        else:
            yield from each(f"{here}.name", name, names.qualified_name(name))
            if name in seen:
                yield duplicate(f"{here}.name", name)
            seen.add(name)


def _condition(policy: bool, params: bool) -> Any:
    from k3s.api.cel import admission

    return lambda source: admission.condition(source, params=params, namespace=policy)


def _compiled(field: str, source: str, compiling: Any) -> Causes:
    from k3s.api.cel import CompileError

    try:
        compiling(source)
    except CompileError as error:
        yield invalid(field, source, str(error))


def _variables(spec: Spec) -> tuple[Any, Causes]:
    """The compiled variables, and what is wrong with them."""
    from k3s.api.cel import admission

    given = spec.get("variables") or ()
    made = admission.Variables(given, admission.environment(params=spec.get("paramKind") is not None))

    def causes() -> Causes:
        for number, variable in enumerate(given):
            at, name, source = f"spec.variables[{number}]", variable.get("name", ""), variable.get("expression", "")
            if not name:
                yield required(f"{at}.name", "name is not specified")
            elif not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
                yield invalid(f"{at}.name", name, "must be a valid CEL identifier")
            if not source.strip():
                yield required(f"{at}.expression", _UNSAID)
            elif number in made.faults:
                yield invalid(f"{at}.expression", source, made.faults[number])

    return made, causes()


def validating(obj: Spec) -> Causes:
    """Conditions, variables, validations and audit annotations of a policy that validates."""
    from k3s.api.cel import admission, compile
    from k3s.api.cel.types import BOOL

    spec = obj.get("spec") or {}
    params = spec.get("paramKind") is not None
    yield from conditions("spec.matchConditions", spec.get("matchConditions") or [], policy=True, params=params)
    made, causes = _variables(spec)
    yield from causes
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        why = "validations or auditAnnotations must contain at least one item"
        yield required("spec.validations", why)
        yield required("spec.auditAnnotations", why)
    quiet = admission.Variables(spec.get("variables") or (), admission.environment(params=params, authorizer=False))
    for number, rule in enumerate(spec.get("validations") or ()):
        at, source = f"spec.validations[{number}]", rule.get("expression", "")
        if not source.strip():
            yield required(f"{at}.expression", _UNSAID)
        else:
            yield from _compiled(f"{at}.expression", source, lambda text: compile(text, made.environment, (BOOL,)))
        message = rule.get("messageExpression") or ""
        if message and not message.strip():
            yield invalid(f"{at}.messageExpression", message, "must be non-empty if specified")
        elif message:
            yield from _compiled(
                f"{at}.messageExpression", message, lambda text: compile(text, quiet.environment, admission.MESSAGES)
            )
        yield from _message(at, rule.get("message") or "")
        if rule.get("reason") is not None:
            yield from one_of(f"{at}.reason", rule["reason"], _REASONS)
    name = (obj.get("metadata") or {}).get("name", "")
    yield from _annotations(name, spec.get("auditAnnotations") or [], made)


def _message(at: str, message: str) -> Causes:
    text = message.strip()
    if message and not text:
        yield invalid(f"{at}.message", message, "message must be non-empty if specified")
    elif "\n" in text or "\r" in text:
        yield invalid(f"{at}.message", message, "message must not contain line breaks")


def _annotations(policy: str, given: list[Spec], made: Any) -> Causes:
    from k3s.api.cel import admission, compile

    seen: set[str] = set()
    for number, note in enumerate(given):
        at, key, source = f"spec.auditAnnotations[{number}]", note.get("key", ""), note.get("valueExpression", "")
        if policy:
            whole = f"{policy}/{key}"
            yield from each(f"{at}.key", whole, names.qualified_name(whole))
        else:
            yield invalid(f"{at}.key", key, "requires metadata.name be non-empty")
        text = source.strip()
        if not text:
            yield required(f"{at}.valueExpression", "valueExpression is not specified")
        elif len(text) > _LONGEST_ANNOTATION:
            yield required(f"{at}.valueExpression", f"must not exceed {_LONGEST_ANNOTATION} bytes in length")
        else:
            yield from _compiled(
                f"{at}.valueExpression",
                source,
                lambda text: compile(text.strip(), made.environment, admission.ANNOTATIONS),
            )
        if key in seen:
            yield duplicate(f"{at}.key", key)
        seen.add(key)


def mutating(obj: Spec) -> Causes:
    """Conditions, variables and mutations of a policy that mutates."""
    spec = obj.get("spec") or {}
    params = spec.get("paramKind") is not None
    yield from conditions("spec.matchConditions", spec.get("matchConditions") or [], policy=True, params=params)
    made, causes = _variables(spec)
    yield from causes
    if not spec.get("mutations"):
        yield required("spec.mutations", "mutations must contain at least one item")
    for number, rule in enumerate(spec.get("mutations") or ()):
        yield from _mutation(f"spec.mutations[{number}]", rule, made)


def _mutation(at: str, rule: Spec, made: Any) -> Causes:
    from k3s.api.cel import admission

    kind = rule.get("patchType", "")
    if not kind:
        yield required(f"{at}.patchType")
        return
    fields = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
    if kind not in fields:
        yield from one_of(f"{at}.patchType", kind, tuple(sorted(fields)))
        return
    for other, field in fields.items():
        if other != kind and rule.get(field) is not None:
            yield invalid(f"{at}.{field}", "", f"must not be specified when patchType is {kind}")
    own = rule.get(fields[kind])
    if own is None:
        yield required(f"{at}.{fields[kind]}", f"must be specified when patchType is {kind}")
        return
    source = own.get("expression", "")
    if not source.strip():
        yield required(f"{at}.{fields[kind]}.expression", _UNSAID)
    else:
        yield from _compiled(
            f"{at}.{fields[kind]}.expression", source, lambda text: admission.mutation(text, kind, made)
        )
