"""One request on its way through the steps."""

from __future__ import annotations

from typing import Any

from k3s.api.kinds import Kind
from k3s.apiserver.identity import User
from k3s.apiserver.media import Media
from k3s.apiserver.request import Target
from k3s.base.message import Request


class Call:
    """What is known once the sender may go on."""

    __slots__ = ("kind", "media", "namespace", "notes", "request", "target", "user", "warnings")

    def __init__(self, request: Request, target: Target, user: User, kind: Kind, media: Media) -> None:
        self.request = request
        self.target = target
        self.user = user
        self.kind = kind
        self.media = media
        #: Empty for a kind without namespaces: a namespace's own path names it as both.
        self.namespace = target.info.namespace if kind.namespaced else ""
        self.warnings: list[str] = list(request.warnings)
        #: What admission wants the audit log to say.
        self.notes: dict[str, str] = request.record.notes if request.record is not None else {}

    def sent(self, body: Any) -> None:
        """What the client sent, understood: an object, options or a patch; for the audit log."""
        if self.request.record is not None:
            self.request.record.sent = body
