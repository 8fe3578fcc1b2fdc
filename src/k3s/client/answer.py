"""What an answer's bytes and code stand for: a value, or the error to raise. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from k3s.api import errors
from k3s.api.errors import ApiError
from k3s.api.object import decode

_BY_CODE: dict[int, type[ApiError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    406: errors.NotAcceptable,
    409: errors.Conflict,
    410: errors.Expired,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.Invalid,
    429: errors.TooManyRequests,
    503: errors.ServiceUnavailable,
    504: errors.Timeout,
}
# Of an answer that is no Status (a proxy's page), so much goes into the message.
_TEXT_LIMIT = 300


def body_of(data: bytes | bytearray, headers: Mapping[str, str]) -> Any:
    """The decoded value of JSON, of anything else the bytes. Raises ApiError for JSON that is none."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return bytes(data)
    try:
        return decode(data)
    except msgspec.DecodeError as error:
        raise ApiError(f"the server answered with broken JSON: {error}") from error


def error_of(status: int, body: Any, headers: Mapping[str, str]) -> ApiError:
    """The error that an answer with code 400 or higher tells of; header names are in lower case."""
    if isinstance(body, dict) and body.get("kind") == "Status":
        error = ApiError.from_status({"code": status, **body})
        if not error.reason and status in _BY_CODE:
            error = _BY_CODE[status](error.message, error.details)
    else:
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        message = text.strip()[:_TEXT_LIMIT] or f"the server answered {status}"
        error = _BY_CODE.get(status, ApiError)(message, code=status)
    seconds = headers.get("retry-after", "")
    if error.retry_after_s is None and seconds.isdigit():
        error.details = {**(error.details or {}), "retryAfterSeconds": int(seconds)}
    return error
