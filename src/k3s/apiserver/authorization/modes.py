"""Authorizers in the order that a configuration says, each of which allows, denies, or leaves it to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

from k3s.apiserver.authorization.meters import Meters
from k3s.apiserver.authorization.settings import (
    ALWAYS_ALLOW,
    NODE,
    RBAC,
    WEBHOOK,
    AuthorizationSettings,
    AuthorizerSettings,
    SettingsError,
    parse,
    read,
)
from k3s.apiserver.authorization.webhook import Webhook
from k3s.apiserver.authz import NO_NODE_RULES, Attributes, Authorizer, Authorizes, Decision, Rules, aggregate
from k3s.apiserver.identity import MASTERS, User, node_of
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.clock import Clock
from k3s.base.inotify import FolderWatch
from k3s.client.https import HttpsTransport, from_kubeconfig
from k3s.client.kubeconfig import load

log = logging.getLogger(__name__)

_NO_WEBHOOK_RULES = "webhook authorizer does not support user rule resolution"
_ALL = {"verbs": ["*"]}
_EVERYTHING = [{**_ALL, "apiGroups": ["*"], "resources": ["*"]}, {**_ALL, "nonResourceURLs": ["*"]}]


class _Always:
    """Says the same of everything."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def authorize(self, attributes: Attributes) -> Decision:
        """See `Authorizes`."""
        return self._decision


class _Part(NamedTuple):
    given: AuthorizerSettings
    authorizer: Authorizes


class Modes(Authorizer):
    """system:masters, then each authorizer in turn; the configuration's file is read again when it changes."""

    asks: ClassVar[bool] = True

    def __init__(
        self, rbac: Rbac, node: NodeAuthorizer, given: AuthorizationSettings, clock: Clock, meters: Meters
    ) -> None:
        super().__init__(rbac)
        self._roles = Authorizer(rbac)
        self._nodes = node
        self._clock = clock
        self._meters = meters
        self._file = Path(given.file) if given.file else None
        self._read = self._file.read_bytes() if self._file else b""
        self._parts: tuple[_Part, ...] = tuple(map(self._part, given.authorizers))

    def authorize(self, attributes: Attributes) -> Decision:
        """Whether the request may go on, and why or why not. Raises Pending."""
        if MASTERS in attributes.user.groups:
            return Decision(True)
        reasons: list[str] = []
        errors: list[str] = []
        for given, authorizer in self._parts:
            decision = authorizer.authorize(attributes)
            if decision.allowed or decision.denied:
                self._meters.decided(given.type, given.name, "allowed" if decision.allowed else "denied")
                return decision
            reasons += [decision.reason] if decision.reason else []
            errors += [decision.error] if decision.error else []
        return Decision(False, "\n".join(reasons), error=aggregate(errors) if errors else "")

    def rules_for(self, user: User, namespace: str) -> Rules:
        """The user's rules in a namespace, as far as authorizers tell theirs."""
        found = Rules([], [])
        for given, _ in self._parts:
            if given.type == RBAC:
                rules, errors = self.rbac.rules_for(user, namespace)
                found = found._replace(rules=found.rules + rules, errors=found.errors + errors)
            elif given.type == ALWAYS_ALLOW:
                found = found._replace(rules=found.rules + _EVERYTHING)
            elif given.type == WEBHOOK:
                found = Rules(found.rules, [*found.errors, _NO_WEBHOOK_RULES], True)
            elif given.type == NODE and node_of(user):
                found = Rules(found.rules, [*found.errors, NO_NODE_RULES], True)
        return found

    async def run(self, ready: Callable[[], None]) -> None:
        """Reads the file again when it changes, until cancelled. Raises OSError when it cannot be watched."""
        changed = asyncio.Event()
        watches = [FolderWatch(folder, lambda name: changed.set()) for folder in _folders(self._file)]
        if self._file is not None:
            self._meters.uses(self._read)
            if self._differs():
                changed.set()
        ready()
        try:
            while True:
                await changed.wait()
                changed.clear()
                await self._reload()
        finally:
            for watch in watches:
                watch.close()
            for webhook in self._webhooks():
                await webhook.retire()

    def _differs(self) -> bool:
        """Whether the file was changed before it was watched."""
        assert self._file is not None
        try:
            return self._file.read_bytes() != self._read
        except OSError:
            return True

    async def _reload(self) -> None:
        """Takes what the file says now; what cannot be used is told, and the former stays."""
        assert self._file is not None
        try:
            text = read(str(self._file))
            if text == self._read:
                return
            self._read = text
            parts = tuple(map(self._part, parse(text)))
        except (SettingsError, OSError, ValueError) as error:
            log.error("Cannot use the changed authorization configuration %s, the former stays: %s", self._file, error)
            self._meters.reloaded("failure", self._clock.now())
            return
        before, self._parts = set(self._webhooks()), parts
        log.info("The authorization configuration %s is read again", self._file)
        self._meters.reloaded("success", self._clock.now())
        self._meters.uses(text)
        for webhook in before - set(self._webhooks()):
            await webhook.retire()

    def _webhooks(self) -> list[Webhook]:
        return [part.authorizer for part in self._parts if isinstance(part.authorizer, Webhook)]

    def _part(self, given: AuthorizerSettings) -> _Part:
        """Raises OSError, ValueError for a webhook's kubeconfig."""
        if given.type == NODE:
            return _Part(given, self._nodes)
        if given.type == RBAC:
            return _Part(given, self._roles)
        if given.webhook is None:
            always = Decision(True) if given.type == ALWAYS_ALLOW else Decision(False, "Everything is forbidden.")
            return _Part(given, _Always(always))
        return _Part(
            given, Webhook(given.name, given.webhook, _transport(given.webhook.file), self._clock, self._meters)
        )


def _transport(file: str) -> HttpsTransport:
    path = Path(file)
    return from_kubeconfig(load(path.read_text(), path.parent))


def _folders(file: Path | None) -> Iterable[Path]:
    """Where changes of the file are seen: beside it, and beside what it is a link to (as mounted ConfigMaps are)."""
    return [] if file is None else {file.parent, file.resolve().parent}
