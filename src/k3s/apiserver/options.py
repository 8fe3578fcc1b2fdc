"""The options of a write in its query, and all that is wrong with them. Wording as upstream's."""

from __future__ import annotations

from collections.abc import Iterator

from k3s.api.errors import invalid
from k3s.api.object import encode
from k3s.api.owners import MANAGER_LIMIT, strange_character
from k3s.apiserver.request import Target

_KINDS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
_VALIDATIONS = ("Ignore", "Strict", "Warn")
Cause = dict[str, str]


def check(target: Target, patch: str = "") -> None:
    """Raises Invalid; `patch` is the type of a patch."""
    causes = list(_causes(target, patch))
    if causes:
        raise invalid("meta.k8s.io", _KINDS.get(target.info.verb, "DeleteOptions"), "", causes)


def _causes(target: Target, patch: str) -> Iterator[Cause]:
    query = target.query
    manager = query.get("fieldManager", "")
    if patch == "apply" and not manager:
        yield _cause("FieldValueRequired", "fieldManager", "Required value: is required for apply patch")
    elif patch and patch != "apply" and "force" in query:
        yield _cause("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch")
    if len(manager.encode()) > MANAGER_LIMIT:
        yield _cause("FieldValueTooLong", "fieldManager", f"Too long: may not be more than {MANAGER_LIMIT} bytes")
    strange = strange_character(manager)
    if strange:
        text = f"Invalid value: {encode(manager).decode()}: {strange}"
        yield _cause("FieldValueInvalid", "fieldManager", text)
    runs = [value for key, value in target.pairs if key == "dryRun"]
    if any(value != "All" for value in runs):
        text = f'Unsupported value: {encode(runs).decode()}: supported values: "All"'
        yield _cause("FieldValueNotSupported", "dryRun", text)
    validation = query.get("fieldValidation")
    if validation and validation not in _VALIDATIONS:
        listed = ", ".join(f'"{value}"' for value in ("", *_VALIDATIONS))
        text = f'Unsupported value: "{validation}": supported values: {listed}'
        yield _cause("FieldValueNotSupported", "fieldValidation", text)


def _cause(reason: str, field: str, message: str) -> Cause:
    return {"reason": reason, "message": message, "field": field}
