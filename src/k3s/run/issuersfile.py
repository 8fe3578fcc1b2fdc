"""The issuers of a configuration file, followed while the server runs.

Source: "Authenticating", AuthenticationConfiguration in the Kubernetes documentation: what can be used is used, a file
that cannot leaves the former one in use; who is anonymous changes with a restart only. The metrics are upstream's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from k3s.apiserver import tokensources
from k3s.apiserver.encryption.kms import hashed
from k3s.apiserver.oidc import settings as oidc
from k3s.apiserver.oidc.claims import Refused
from k3s.apiserver.oidc.configuration import parse
from k3s.apiserver.oidc.settings import SettingsError, TokenSettings
from k3s.apiserver.tokensources import Sources, SourceSettings
from k3s.base.aio import Mailbox, debounced
from k3s.base.clock import Clock
from k3s.base.inotify import FolderWatch
from k3s.base.metrics import Registry

log = logging.getLogger(__name__)
# A file is read once it has been left alone for so long.
_QUIET_S, _AT_MOST_S = 0.2, 2.0
# How long new issuers may take to tell their keys, and when they are asked again.
_KEYS_S = 60.0
_NAME = "apiserver_authentication_config_controller_"


class IssuersFile:
    """A service that exchanges the issuers of `sources` and tells `use` whenever the file says something new."""

    def __init__(self, given: SourceSettings, sources: Sources, use: Callable[[], None], clock: Clock) -> None:
        self._path = Path(given.issuers_file).absolute()
        self._given = given
        self._tokens = given.tokens
        self._sources = sources
        self._use = use
        self._clock = clock
        self._changed: Mailbox[str] = Mailbox()
        self._again: asyncio.TimerHandle | None = None
        self._told: Callable[[str], None] = lambda status: None
        self._hash = ""

    def measure(self, metrics: Registry, server: str) -> None:
        """Counts from now on; `server` is this API server's name. Raises OSError."""
        id, labels = hashed(server), ["apiserver_id_hash", "status"]
        total = metrics.counter(f"{_NAME}automatic_reloads_total", "Changes of the issuers.", labels)
        last = metrics.gauge(f"{_NAME}automatic_reload_last_timestamp_seconds", "When they changed last.", labels)
        info = metrics.gauge(f"{_NAME}last_config_info", "The configuration in use.", [*labels[:1], "hash"])
        self._hash = hashed(self._path.read_text())
        info.set(1, id, self._hash)

        def told(status: str) -> None:
            info.values = {(id, self._hash): 1}
            total.add(id, status)
            last.set(self._clock.now(), id, status)

        self._told = told

    async def run(self, ready: Callable[[], None]) -> None:
        """Follows the file until cancelled. Raises OSError when it cannot be watched."""
        watch = FolderWatch(self._path.parent, self._changed.put)
        self._changed.put("")  # it may have changed since it was read
        ready()
        try:
            async for _ in debounced(self._changed, _QUIET_S, _AT_MOST_S):
                await self._look()
        finally:
            watch.close()
            if self._again is not None:
                self._again.cancel()

    async def _look(self) -> None:
        """Uses what the file says now, if that can be used."""
        try:
            hash, tokens = self._read()
            if tokens == self._tokens:
                return
            async with asyncio.timeout(_KEYS_S):
                await self._sources.exchange(tokens)
        except SettingsError as error:
            log.error("Cannot use %s: %s; the former configuration stays in use", self._path, error)
            self._told("failure")
        except (Refused, TimeoutError) as error:
            log.error("Cannot use %s yet: %s; the former configuration stays in use", self._path, error)
            self._told("failure")
            self._again = asyncio.get_running_loop().call_later(_KEYS_S, self._changed.put, "")
        else:
            self._tokens, self._hash = tokens, hash
            self._use()
            log.info("The authentication configuration has changed", extra={"file": str(self._path)})
            self._told("success")

    def _read(self) -> tuple[str, TokenSettings]:
        """The hash of the file and what it says. Raises SettingsError."""
        text = oidc.read(oidc.FILE, str(self._path))
        found = parse(text, self._given.disallowed)
        before = self._given.tokens
        if (found.anonymous, found.anonymous_paths) != (before.anonymous, before.anonymous_paths):
            raise SettingsError("anonymous: Forbidden: changed from initial configuration file; restart to use it")
        tokensources.check(found)
        return hashed(text), found
