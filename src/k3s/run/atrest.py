"""What the server encrypts at rest: nothing, Secrets by k3s' own keys, or what a configuration of the user's says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.metrics import Registry
from k3s.cluster.encryption import CONFIG_FILE
from k3s.store.interface import Store

# Who encrypts nothing does without these.
if TYPE_CHECKING:
    from k3s.run.encryption import Encryption
    from k3s.run.encryptionfile import EncryptionFile


class AtRest:
    """`store` is the datastore, sealed where there are keys; `own` are k3s' own ones. Raises ConfigError, OSError.

    `provider` is the cipher of new keys of k3s' own in `folder`, empty for none; `file` is the user's configuration,
    whose changes are followed with `follows`.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        clock: Clock,
        entropy: Entropy,
        *,
        provider: str = "",
        file: str = "",
        follows: bool = False,
    ) -> None:
        self.store = store
        self.own: Encryption | None = None
        self._file: EncryptionFile | None = None
        # What keys have sealed needs them for ever.
        if file:
            self._use_file(Path(file).absolute(), clock, entropy, follows=follows)
        elif provider or (folder / CONFIG_FILE).exists():
            self._use_own(folder, provider or "aescbc", clock, entropy)

    def _use_file(self, file: Path, clock: Clock, entropy: Entropy, *, follows: bool) -> None:
        from k3s.apiserver.encryption.sealed import Sealed
        from k3s.run.encryptionfile import EncryptionFile

        self._file = EncryptionFile(file, clock, entropy, follows=follows)
        self.store = Sealed(self.store, self._file.keys)

    def _use_own(self, folder: Path, provider: str, clock: Clock, entropy: Entropy) -> None:
        from k3s.apiserver.encryption.sealed import Sealed
        from k3s.run.encryption import Encryption

        self.own = Encryption(folder, provider, clock, entropy)
        self.own.load()
        self.store = self.own.sealed = Sealed(self.store, self.own.keys)

    async def open(self) -> None:
        """Opens the store; waits for plugins; goes on with what a stop has interrupted. Raises Unavailable, OSError."""
        await self.store.open()
        if self._file is not None:
            await self._file.start()
        if self.own is not None:
            self.own.start()

    async def close(self) -> None:
        """Closes the store at last."""
        if self._file is not None:
            await self._file.close()
        if self.own is not None:
            await self.own.close()
        await self.store.close()

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str | None]]]:
        """The health checks that this adds."""
        return self._file.checks() if self._file is not None else {}

    def measure(self, metrics: Registry, server: str) -> None:
        """Counts from now on; `server` is this API server's name."""
        if self._file is not None:
            self._file.measure(metrics, server)
