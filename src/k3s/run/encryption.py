"""Encryption of Secrets while the server runs: its two files, the steps of `k3s secrets-encrypt`, writing again.

The configuration is written before anything is encrypted by it, the stage after it; each step finds what an
interrupted one has left. No restart is needed: the keys in memory are replaced.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api.object import Object, decode, encode
from k3s.apiserver.encryption.config import parse
from k3s.apiserver.encryption.keyring import Keyring
from k3s.base import files
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.cluster import encryption as steps
from k3s.run.encryptionfile import rules_of
from k3s.store.interface import Unavailable

if TYPE_CHECKING:
    from k3s.apiserver.encryption.sealed import Sealed

log = logging.getLogger(__name__)
_RETRY_S = 5.0


class Encryption:
    """`folder` is `<data-dir>/server/cred`; `provider` is what new keys are for."""

    def __init__(self, folder: Path, provider: str, clock: Clock, entropy: Entropy) -> None:
        self._config = folder / steps.CONFIG_FILE
        self._state = folder / steps.STATE_FILE
        self._provider = provider
        self._clock = clock
        self._entropy = entropy
        self._tasks = Tasks("encryption")
        self._one_step = asyncio.Lock()
        #: The store that these keys seal; set before `start`.
        self.sealed: Sealed | None = None
        self.keys = Keyring({}, entropy.secret)

    def load(self) -> None:
        """Reads the keys, or makes the first one. Raises ConfigError, OSError."""
        if not self._config.exists():
            files.folder(self._config.parent)
            self._write(steps.initial(self._provider, self._entropy.secret(steps.KEY_BYTES)), steps.START)
        self.keys.replace(rules_of(self._config))

    def start(self) -> None:
        """Goes on with what a stop has interrupted; the store is open."""
        if self._stage() in (steps.REQUESTED, steps.ACTIVE):
            self._tasks.spawn(self._again(), "reencrypt")

    async def close(self) -> None:
        """Stops; the next start goes on."""
        await self._tasks.close()

    def status(self) -> Object:
        """The state as the command shows it."""
        return steps.status(self._document(), self._stage())

    async def change(self, asked: Object) -> Object:
        """One step: `enable` true or false, or `stage`; the state after it. Raises WrongStage."""
        async with self._one_step:
            if asked.get("enable") is not None:
                self._switch(bool(asked["enable"]))
            else:
                self._step(str(asked.get("stage", "")), force=bool(asked.get("force")), skip=bool(asked.get("skip")))
        return self.status()

    def _switch(self, enabled: bool) -> None:
        if self._stage() not in (steps.START, steps.FINISHED):
            raise steps.WrongStage(f"keys are being rotated (stage {self._stage()}): finish that first")
        self._write(steps.switched(self._document(), enabled), steps.START)

    def _step(self, step: str, *, force: bool, skip: bool) -> None:
        stage, document = self._stage(), self._document()
        if step == "rotate_keys":
            steps.check_stage(stage, steps.PREPARE, force=force)
            self._write(steps.rotated(self._with_new_key(document)), steps.REQUESTED)
        else:
            steps.check_stage(stage, step, force=force)
            if step == steps.PREPARE:
                document = self._with_new_key(document)
            elif step == steps.ROTATE:
                document = steps.rotated(document)
            self._write(document, step, keep_keys=skip)
        if self._stage() == steps.REQUESTED:
            self._tasks.spawn(self._again(), "reencrypt")

    def _with_new_key(self, document: Object) -> Object:
        return steps.prepared(document, self._provider, self._entropy.secret(steps.KEY_BYTES), self._clock.now())

    async def _again(self) -> None:
        """Writes everything again by the present key, then forgets the others.

        Before a key goes, so does the history that it has sealed, or that was plain: who asks for it hears that it is
        compacted (410) and reads anew, where otherwise he would hear of a value that nobody can read.
        """
        assert self.sealed is not None
        keep = bool(self._read_state().get("keepKeys"))
        self._write(self._document(), steps.ACTIVE, keep_keys=keep)
        while True:
            try:
                count = await self.sealed.reseal()
                if not keep:
                    await self.sealed.compact(self.sealed.revision())
                break
            except Unavailable as error:
                log.warning("Secrets cannot be encrypted again yet: %s", error)
                await asyncio.sleep(_RETRY_S)
        self._write(self._document() if keep else steps.cleaned(self._document()), steps.FINISHED)
        log.info("Secrets are encrypted by the present key", extra={"written": count})

    # --- the files

    def _document(self) -> Object:
        found: Object = decode(self._config.read_bytes())
        return found

    def _read_state(self) -> Object:
        if not self._state.exists():
            return {}
        found: Object = decode(self._state.read_bytes())
        return found

    def _stage(self) -> str:
        return str(self._read_state().get("stage", steps.START))

    def _write(self, document: Object, stage: str, *, keep_keys: bool = False) -> None:
        rules = parse(document)
        files.write_changed(self._config, encode(document), 0o600)
        files.write_changed(self._state, encode({"stage": stage, "keepKeys": keep_keys}), 0o600)
        self.keys.replace(rules)
