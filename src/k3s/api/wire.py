"""The protobuf form of objects, which clients made with Go send and prefer: JSON form in, JSON form out.

    k8s\\0 | Unknown{ typeMeta{apiVersion, kind}, raw = the message of that kind }

Source: the protobuf serializer of the API machinery and the .proto files of the API.
"""

from __future__ import annotations

import struct

import msgspec

from k3s.api.errors import BadRequest, NotAcceptable
from k3s.api.object import Object
from k3s.api.wireread import Malformed, read_envelope
from k3s.api.wiretables import message_of
from k3s.api.wirewrite import write_envelope, write_frame

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
WATCH_CONTENT_TYPE = "application/vnd.kubernetes.protobuf;stream=watch"


def supports(api_version: str, kind: str) -> bool:
    """Whether objects of a kind have a protobuf form; custom kinds and Table have none."""
    return message_of(api_version, kind) is not None


def decode(data: bytes, api_version: str = "", kind: str = "") -> Object:
    """The JSON form of a protobuf body; the type is taken from the arguments when the body names none.

    Quantities and times come as they were sent. Raises BadRequest for bytes that are no such body.
    """
    try:
        return read_envelope(data, api_version, kind, 0)
    except (Malformed, UnicodeDecodeError, struct.error, msgspec.DecodeError, ValueError, OverflowError) as error:
        raise BadRequest(f"cannot decode the protobuf body: {error}") from error


def encode(obj: Object) -> bytes:
    """The protobuf body of an object or list; raises NotAcceptable for a kind that has no protobuf form."""
    return write_envelope(obj, _message_of(obj))


def watch_event(event_type: str, obj: Object) -> bytes:
    """One frame of a watch stream: length, then the event with the object in it; raises like `encode`."""
    return write_frame(event_type, encode(obj))


def _message_of(obj: Object) -> str:
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    message = message_of(api_version, kind)
    if message is None:
        raise NotAcceptable(f"cannot show {kind} of {api_version} as protobuf: it has no message; ask for JSON")
    return message
