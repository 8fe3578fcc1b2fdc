"""The errors that the API speaks of: raised by the server, sent as a Status, raised again by the client.

    ApiError(code, reason, message, details)
    ├ BadRequest Unauthorized Forbidden NotFound MethodNotAllowed NotAcceptable UnsupportedMediaType TooLarge
    ├ AlreadyExists Conflict Gone Expired Invalid
    └ TooManyRequests Timeout InternalError ServiceUnavailable
    OutcomeUnknown      the connection broke after the request was sent: it may have taken effect

`to_status` and `from_status` are each other's inverse. Source of codes and reasons: the Status type of meta/v1.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """An answer that is not a success; `details` is the details field of the Status."""

    code: int = 500
    reason: str = ""

    def __init__(
        self,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        code: int | None = None,
        reason: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason
        if retry_after_s is not None:
            self.details = {**(details or {}), "retryAfterSeconds": retry_after_s}

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which the client may try again, when the server named them."""
        return (self.details or {}).get("retryAfterSeconds")

    def to_status(self) -> dict[str, Any]:
        """The Status object of this error."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    _by_reason: ClassVar[dict[str, type[ApiError]]] = {}

    def __init_subclass__(cls) -> None:
        ApiError._by_reason.setdefault(cls.reason, cls)

    @staticmethod
    def from_status(status: dict[str, Any]) -> ApiError:
        """The error that a Status object tells of."""
        reason = status.get("reason", "")
        cls = ApiError._by_reason.get(reason, ApiError)
        return cls(
            status.get("message", ""),
            status.get("details"),
            code=int(status.get("code") or cls.code),
            reason=reason,
        )


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Gone(ApiError):
    code, reason = 410, "Gone"


class Expired(ApiError):
    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


class OutcomeUnknown(Exception):
    """The connection was lost after the request had been sent: look at the server's state before acting again."""


def resource_details(group: str, plural: str, name: str) -> dict[str, Any]:
    """The details of a Status about one object; empty parts are left out."""
    parts = {"name": name, "group": group, "kind": plural}
    return {k: v for k, v in parts.items() if v}


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> NotFound:
    """NotFound as the API server words it."""
    return NotFound(f'{_qualified(group, plural)} "{name}" not found', resource_details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> AlreadyExists:
    """AlreadyExists as the API server words it."""
    return AlreadyExists(f'{_qualified(group, plural)} "{name}" already exists', resource_details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> Conflict:
    """Conflict as the API server words it; `why` is the second half of the sentence."""
    text = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return Conflict(text, resource_details(group, plural, name))


def forbidden(group: str, plural: str, name: str, why: str) -> Forbidden:
    """Forbidden as the API server words it."""
    subject = (
        f'{_qualified(group, plural)} "{name}" is forbidden' if name else f"{_qualified(group, plural)} is forbidden"
    )
    return Forbidden(f"{subject}: {why}", resource_details(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: list[dict[str, str]]) -> Invalid:
    """Invalid as the API server words it.

    Each cause is `{"reason": "FieldValueRequired", "message": "Required value: …", "field": "spec.x"}`.
    """
    texts = list(dict.fromkeys(f"{c['field']}: {c['message']}" for c in causes))
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    subject = f"{kind}.{group}" if group else kind
    details = resource_details(group, kind, name)
    if causes:
        details["causes"] = causes
    return Invalid(f'{subject} "{name}" is invalid: {listed}', details)
