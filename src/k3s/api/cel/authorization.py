"""What the match conditions of an authorization webhook may refer to: `request`, the spec of a SubjectAccessReview.

Source: AuthorizationConfiguration, `matchConditions`, in the Kubernetes documentation.
"""

from __future__ import annotations

from functools import lru_cache

from k3s.api.cel.environment import Environment
from k3s.api.cel.program import Program, compile
from k3s.api.cel.types import BOOL, STRING, list_of, map_of, object_type

_PREFIX = "kubernetes.SubjectAccessReview"
_REQUIREMENT = object_type(f"{_PREFIX}Requirement", {"key": STRING, "operator": STRING, "values": list_of(STRING)})
_SELECTOR = object_type(f"{_PREFIX}Selector", {"rawSelector": STRING, "requirements": list_of(_REQUIREMENT)})
_RESOURCE = object_type(
    f"{_PREFIX}ResourceAttributes",
    {
        **dict.fromkeys(("namespace", "verb", "group", "version", "resource", "subresource", "name"), STRING),
        "fieldSelector": _SELECTOR,
        "labelSelector": _SELECTOR,
    },
)
_PATH = object_type(f"{_PREFIX}NonResourceAttributes", {"path": STRING, "verb": STRING})
REQUEST = object_type(
    f"{_PREFIX}Spec",
    {
        "resourceAttributes": _RESOURCE,
        "nonResourceAttributes": _PATH,
        "user": STRING,
        "groups": list_of(STRING),
        "extra": map_of(STRING, list_of(STRING)),
        "uid": STRING,
    },
)


@lru_cache(maxsize=256)
def condition(source: str) -> Program:
    """A match condition. Raises CompileError."""
    return compile(source, Environment({"request": REQUEST}), (BOOL,))
