"""AdmissionReview: the question that a webhook gets, and what its answer means. Pure.

Source: the AdmissionReview type of admission.k8s.io; texts as upstream's.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from k3s.api.errors import ApiError
from k3s.api.kinds import Kind
from k3s.api.object import Object, decode
from k3s.apiserver.admits import AdmissionRequest

VERSIONS = ("v1", "v1beta1")
_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadReview(Exception):
    """An answer that is none; the text says why."""


@dataclass(slots=True)
class Verdict:
    """What a webhook answered."""

    allowed: bool
    status: Object = field(default_factory=dict)
    patch: list[Any] | None = None
    patch_type: str = ""
    warnings: list[str] = field(default_factory=list)
    audit: dict[str, str] = field(default_factory=dict)


def question(
    request: AdmissionRequest, kind: Kind, uid: str, version: str, obj: Object | None, old: Object | None
) -> Object:
    """The review of a write, as `kind` has its objects."""
    asked = {"uid": uid, **attributes(request, kind), "object": obj, "oldObject": old}
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": asked}


def attributes(request: AdmissionRequest, kind: Kind) -> Object:
    """What a review, or an expression, says of a write besides its objects."""
    user = request.user
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    asked: Object = {
        "kind": kind_of(kind, request.subresource),
        "resource": {"group": kind.group, "version": kind.version, "resource": kind.plural},
        "requestKind": kind_of(request.kind, request.subresource),
        "requestResource": {
            "group": request.kind.group,
            "version": request.kind.version,
            "resource": request.kind.plural,
        },
        "name": request.name,
        "namespace": request.name if kind.qualified == "namespaces" else request.namespace,
        "operation": request.operation,
        "userInfo": info,
        "dryRun": request.dry_run,
        "options": options(request),
    }
    if request.subresource:
        asked["subResource"] = asked["requestSubResource"] = request.subresource
    return {key: value for key, value in asked.items() if value != ""}


def kind_of(kind: Kind, subresource: str) -> Object:
    """Group, version and kind of the objects of a path."""
    part = kind.subresources.get(subresource)
    if part is not None and part.kind:
        group, version = (part.group, part.version) if part.version else (kind.group, kind.version)
        return {"group": group, "version": version, "kind": part.kind}
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def options(request: AdmissionRequest) -> Object | None:
    """The options of a write as an object."""
    kind = _OPTIONS.get(request.operation)
    if kind is None:
        return None
    given = request.options
    if request.operation == "UPDATE" and given.get("patch"):
        kind = "PatchOptions"
    found: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if request.dry_run:
        found["dryRun"] = ["All"]
    for name in ("fieldManager", "fieldValidation"):
        if given.get(name) and kind != "DeleteOptions":
            found[name] = given[name]
    return found


def verdict(answer: Any, uid: str, version: str, *, mutating: bool) -> Verdict:
    """What an answer says. Raises BadReview."""
    if not isinstance(answer, dict):
        raise BadReview("the body is no object")
    wanted = f"admission.k8s.io/{version}"
    kind, api_version = answer.get("kind", ""), answer.get("apiVersion", "")
    if (kind, api_version) != ("AdmissionReview", wanted):
        raise BadReview(f"expected webhook response of {wanted}, Kind=AdmissionReview, got {api_version}, Kind={kind}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadReview("webhook response was absent")
    if version == "v1" and response.get("uid", "") != uid:
        raise BadReview(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    patch, patch_type = response.get("patch"), response.get("patchType") or ""
    if version == "v1":
        _check_patch(bool(patch), bool(patch_type), mutating)
    warnings, status = response.get("warnings"), response.get("status")
    notes = response.get("auditAnnotations")
    return Verdict(
        response.get("allowed") is True,
        status if isinstance(status, dict) else {},
        _operations(patch) if patch and mutating else None,
        patch_type or "JSONPatch",
        [str(text) for text in warnings] if isinstance(warnings, list) else [],
        {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {},
    )


def _check_patch(patch: bool, patch_type: bool, mutating: bool) -> None:
    if not mutating:
        if patch:
            raise BadReview("validating webhook may not return response.patch")
        if patch_type:
            raise BadReview("validating webhook may not return response.patchType")
    elif patch and not patch_type:
        raise BadReview("webhook returned response.patch but not response.patchType")
    elif patch_type and not patch:
        raise BadReview("webhook returned response.patchType but not response.patch")


def _operations(patch: Any) -> list[Any]:
    try:
        found = decode(base64.b64decode(patch, validate=True))
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadReview(f"the patch cannot be read: {error}") from error
    if not isinstance(found, list):
        raise BadReview("the patch is no list of operations")
    return found


def denial(name: str, status: Object) -> ApiError:
    """The error that a webhook's refusal becomes: always a failure, with a code of at least 400."""
    start = f'admission webhook "{name}" denied the request'
    message, reason = str(status.get("message") or ""), str(status.get("reason") or "")
    code = status.get("code")
    if not isinstance(code, int) or code < 400:
        code = 400
    text = f"{start}: {message or reason}" if message or reason else f"{start} without explanation"
    details = status.get("details")
    return ApiError(text, details if isinstance(details, dict) else None, code=code, reason=reason)
