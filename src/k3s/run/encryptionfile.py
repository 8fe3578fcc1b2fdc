"""Encryption at rest by a configuration of the user's own, which may change while the server runs.

Source: "Encrypting Confidential Data at Rest", Kubernetes documentation (`--encryption-provider-config`,
`--encryption-provider-config-automatic-reload`); the metrics are upstream's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from k3s.apiserver.encryption.config import KMS, ConfigurationError, Rules, parse
from k3s.apiserver.encryption.keyring import Keyring
from k3s.apiserver.encryption.kms import Plugins, hashed
from k3s.apiserver.encryption.measures import Measures
from k3s.base.aio import Mailbox, Tasks, debounced
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.inotify import FolderWatch
from k3s.base.metrics import Registry
from k3s.run.config import ConfigError

log = logging.getLogger(__name__)
# A file is read once it has been left alone for so long.
_QUIET_S, _AT_MOST_S = 0.2, 2.0
# How long new plugins may take to answer, and when they are asked again.
_PLUGINS_S = 10.0


def rules_of(path: Path) -> Rules:
    """The keys of a configuration file. Raises ConfigError, which names file and field."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Rules, str]:
    from k3s.api import yamltext

    try:
        text = path.read_bytes()
        return parse(yamltext.load(text)), hashed(text.decode())
    except OSError as error:
        raise ConfigError(f"Cannot read the encryption configuration {path}: {error.strerror}") from error
    except ConfigurationError as error:
        raise ConfigError(f"Cannot use the encryption configuration {path}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"Cannot use the encryption configuration {path}: it is no YAML: {error}") from error


class EncryptionFile:
    """The keys of a file; with `follows`, those of its newest version that can be used."""

    def __init__(self, path: Path, clock: Clock, entropy: Entropy, *, follows: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._follows = follows
        self._plugins = Plugins(clock, entropy)
        self._tasks = Tasks("encryption")
        self._changed: Mailbox[str] = Mailbox()
        self._watch: FolderWatch | None = None
        self._again: asyncio.TimerHandle | None = None
        self._reloaded: Callable[[str], None] = lambda status: None
        self._rules, self._hash = _read(path)
        self.keys = Keyring(self._rules, entropy.secret, self._plugins.cipher)

    async def start(self) -> None:
        """Waits until the plugins answer; from then on a change of the file is followed. Raises OSError."""
        if self._follows:
            self._watch = FolderWatch(self._path.parent, self._changed.put)
            self._tasks.spawn(self._follow(), "file")
        await self._plugins.ready(self._rules)

    async def close(self) -> None:
        """Ends the connections of plugins."""
        if self._watch is not None:
            self._watch.close()
        if self._again is not None:
            self._again.cancel()
        await self._tasks.close()
        await self._plugins.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str | None]]]:
        """The health checks that this adds: of the plugins, if there are or may be any."""
        used = self._follows or any(key.provider == KMS for keys in self._rules.values() for key in keys)
        return {"kms-providers": self._plugins.health} if used else {}

    def measure(self, metrics: Registry, server: str) -> None:
        """Counts from now on; `server` is this API server's name."""
        self._plugins.measure(Measures(metrics, server, self._clock.now))
        if not self._follows:
            return
        name, id = "apiserver_encryption_config_controller_", hashed(server)
        labels = ["apiserver_id_hash", "status"]
        total = metrics.counter(f"{name}automatic_reloads_total", "Changes of the encryption configuration.", labels)
        last = metrics.gauge(f"{name}automatic_reload_last_timestamp_seconds", "When it changed last.", labels)
        info = metrics.gauge(f"{name}last_config_info", "The encryption configuration in use.", [*labels[:1], "hash"])
        info.set(1, id, self._hash)

        def reloaded(status: str) -> None:
            total.add(id, status)
            last.set(self._clock.now(), id, status)
            info.values = {(id, self._hash): 1}

        self._reloaded = reloaded

    async def _follow(self) -> None:
        async for _ in debounced(self._changed, _QUIET_S, _AT_MOST_S):
            await self._reload()

    async def _reload(self) -> None:
        """Uses what the file says now, if it can be used."""
        try:
            rules, hash = _read(self._path)
        except ConfigError as error:
            log.error("%s; the former one stays in use", error)
            self._reloaded("failure")
            return
        if hash == self._hash:
            return
        try:
            await asyncio.wait_for(self._plugins.ready(rules), _PLUGINS_S)
        except asyncio.TimeoutError:
            log.error("A KMS plugin of %s does not answer; the former configuration stays in use", self._path)
            self._reloaded("failure")
            self._again = asyncio.get_running_loop().call_later(_PLUGINS_S, self._changed.put, "")
            return
        self._rules, self._hash = rules, hash
        self.keys.replace(rules)
        await self._plugins.keep(rules)
        log.info("The encryption configuration has changed", extra={"file": str(self._path)})
        self._reloaded("success")
