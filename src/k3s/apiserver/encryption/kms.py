"""Plugins of the KMS API v2: programs at unix sockets that keep the keys with which our seeds are encrypted.

Source: "Using a KMS provider for data encryption", Kubernetes documentation, and KEP-3299. A new seed is made when
the plugin's key changes. Upstream asks for the plugin's status each minute. Here nobody asks while nothing is written:
a write whose last answer is a minute old asks first, and all writes wait for that one answer. What is promised stays
the same: no value is sealed by a key that the plugin has left for more than three minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from k3s.apiserver.encryption import envelope
from k3s.apiserver.encryption.ciphers import Fresh
from k3s.apiserver.encryption.config import KMS, Key, Rules
from k3s.apiserver.encryption.envelope import Source
from k3s.apiserver.encryption.keyring import Locked, Unreachable
from k3s.base.aio import Tasks
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.base.protobuf import Codec

if TYPE_CHECKING:
    from k3s.apiserver.encryption.measures import Measures
    from k3s.base.grpc import Connection

log = logging.getLogger(__name__)

_MESSAGES: dict[str, dict[str, list[Any]]] = {
    "StatusRequest": {},
    "StatusResponse": {"version": [1, "string"], "healthz": [2, "string"], "key_id": [3, "string"]},
    "DecryptRequest": {
        "ciphertext": [1, "bytes"],
        "uid": [2, "string"],
        "key_id": [3, "string"],
        "annotations": [4, "map<string,bytes>"],
    },
    "DecryptResponse": {"plaintext": [1, "bytes"]},
    "EncryptRequest": {"plaintext": [1, "bytes"], "uid": [2, "string"]},
    "EncryptResponse": {"ciphertext": [1, "bytes"], "key_id": [2, "string"], "annotations": [3, "map<string,bytes>"]},
}
CODEC = Codec(_MESSAGES, {})
SERVICE = "/v2.KeyManagementService/"
_VERSIONS = ("v2", "v2beta1")
# How long an answer counts: for writes, for the health check, and for how long at the most a key is used unasked.
_LOOK_EVERY_S, _LOOK_AGAIN_S, _COAST_S = 60.0, 10.0, 180.0
_WELL_S, _UNWELL_S = 20.0, 3.0
# Seeds that were decrypted: a day, so that a plugin can take a key back; and not without end.
_SEED_S, _SEEDS = 86400.0, 1000
_FIRST_PAUSE_S = 0.1


class Plugin:
    """One plugin as a cipher: what it does not know yet it asks for (`keyring.Locked`)."""

    def __init__(self, key: Key, clock: Clock, entropy: Entropy) -> None:
        self.key = key
        #: Why it is not well, empty when it is.
        self.problem = "it was not asked yet"
        self.measures: Measures | None = None
        self._clock = clock
        self._fresh: Fresh = entropy.secret
        self._uid = entropy.uid
        self._there: Connection | None = None
        self._tasks = Tasks(f"kms {key.name}")
        self._own: tuple[Source, bytes] | None = None
        self._seeds: OrderedDict[Source, tuple[bytes, float]] = OrderedDict()
        self._version = ""
        self._asked_at = self._good_until = self._look_at = float("-inf")
        self._under_way: dict[Source | None, asyncio.Task[str]] = {}

    # --- as a cipher

    def seal(self, value: bytes, place: bytes) -> bytes:
        """See `ciphers.Cipher`. Raises Locked when the plugin has to be asked first."""
        source, seed = self._writing()
        if self.measures is not None:
            self.measures.used("to_storage", self.key.name, source.key_id)
        return envelope.packed(source, envelope.seal(seed, self._fresh, value, place))

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        """See `ciphers.Cipher`. Raises Tampered, and Locked for a seed that is not known yet."""
        source, data = envelope.unpacked(sealed)
        found = self._seeds.get(source)
        if found is None or self._clock.monotonic() >= found[1]:
            raise Locked(lambda: self._unlock(source))
        self._seeds.move_to_end(source)
        if self.measures is not None:
            self.measures.used("from_storage", self.key.name, source.key_id)
        return envelope.unseal(source, found[0], data, place)

    def is_current(self, sealed: bytes) -> bool:
        """Whether the key that the plugin uses today sealed a value. Raises Locked."""
        source, _ = envelope.unpacked(sealed)
        own, _ = self._writing()
        return (source.key_id, source.kind) == (own.key_id, own.kind)

    def _writing(self) -> tuple[Source, bytes]:
        now = self._clock.monotonic()
        if self._own is None or now >= min(self._look_at, self._good_until):
            raise Locked(self._look_to_write)
        return self._own

    # --- asking

    async def _look_to_write(self) -> None:
        problem = await self.look()
        if self._own is None or self._clock.monotonic() >= self._good_until:
            raise Unreachable(problem or "its last answer came too late")

    async def health(self) -> str:
        """Why the plugin is not well, empty when it is; asks when its last answer is not of just now."""
        if self._clock.monotonic() >= self._asked_at + (_UNWELL_S if self.problem else _WELL_S):
            await self.look()
        return self.problem

    async def look(self) -> str:
        """Asks for the plugin's status, and has a new seed encrypted when its key is another; what is wrong, if any."""
        return await self._once(None)

    async def _unlock(self, source: Source) -> None:
        if why := await self._once(source):
            raise Unreachable(why)

    async def _once(self, source: Source | None) -> str:
        """One question at a time for all who want the same answer; what went wrong, empty when nothing did."""
        task = self._under_way.get(source)
        if task is None:
            work = self._status() if source is None else self._decrypt(source)
            task = self._under_way[source] = self._tasks.spawn(work, "status" if source is None else "decrypt")
            task.add_done_callback(lambda done: self._under_way.pop(source, None))
        await asyncio.wait([task])
        return f"the KMS plugin {self.key.name} is not used any more" if task.cancelled() else task.result()

    async def _status(self) -> str:
        begun = self._clock.monotonic()
        try:
            await self._looked(begun)
        except Unreachable as error:
            problem = str(error)
            if problem != self.problem:
                log.warning("KMS plugin %s: %s", self.key.name, problem)
        else:
            problem = ""
        self.problem, self._asked_at = problem, self._clock.monotonic()
        self._look_at = self._asked_at + (_LOOK_AGAIN_S if problem else _LOOK_EVERY_S)
        return problem

    async def _looked(self, begun: float) -> None:
        name = self.key.name
        try:
            found = await self._call("Status", {})
        except Unreachable as error:
            raise Unreachable(
                f"failed to perform status section of the healthz check for KMS Provider {name}, error: {error}"
            ) from None
        wrong = []
        if found["healthz"] != "ok":
            wrong.append(f"got unexpected healthz status: {found['healthz']}")
        if found["version"] not in _VERSIONS:
            wrong.append(f"expected KMSv2 API version v2, got {found['version']}")
        elif self._version not in ("", found["version"]):
            wrong.append(
                "KMSv2 API version should not change after the initial status response version "
                f"{self._version}, got {found['version']}"
            )
        else:
            self._version = found["version"]
        wrong += [text for text in [await self._follow(found["key_id"], begun)] if text]
        if wrong:
            texts = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
            raise Unreachable(f"kmsv2 Provider {name} is not healthy, error: {texts}")

    async def _follow(self, key_id: str, begun: float) -> str:
        """Uses the key that the plugin says it uses; what went wrong, empty when nothing did."""
        if why := envelope.wrong_key_id(key_id):
            if self.measures is not None:
                self.measures.invalid(self.key.name, "too_long" if key_id else "empty")
            return f'got invalid KMSv2 KeyID hash "{hashed(key_id)}": {why}'
        if self.measures is not None:
            self.measures.status(self.key.name, key_id)
        if self._own is None or self._own[0].key_id != key_id:
            seed = self._fresh(envelope.SEED_BYTES)
            try:
                made = await self._call("Encrypt", {"plaintext": seed, "uid": self._uid()})
                source = envelope.source(made["key_id"], made["ciphertext"], made["annotations"])
            except (Unreachable, envelope.Unfit) as error:
                return f"failed to rotate DEK: failed to encrypt DEK, error: {error}"
            if source.key_id != key_id:
                told, used = hashed(key_id), hashed(source.key_id)
                return f'failed to rotate DEK: statusKeyIDHash="{told}", encryptKeyIDHash="{used}"'
            self._own = source, seed
        self._keep(*self._own)
        self._good_until = begun + _COAST_S
        return ""

    async def _decrypt(self, source: Source) -> str:
        asked = {
            "ciphertext": source.sealed,
            "uid": self._uid(),
            "key_id": source.key_id,
            "annotations": dict(source.annotations),
        }
        try:
            self._keep(source, (await self._call("Decrypt", asked))["plaintext"])
        except Unreachable as error:
            return f"failed to decrypt DEK, error: {error}"
        return ""

    def _keep(self, source: Source, seed: bytes) -> None:
        self._seeds[source] = seed, self._clock.monotonic() + _SEED_S
        self._seeds.move_to_end(source)
        while len(self._seeds) > _SEEDS:
            self._seeds.popitem(last=False)
        if self.measures is not None:
            self.measures.seeds(self.key.name, len(self._seeds))

    async def _call(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Unreachable."""
        from k3s.base.grpc import CallFailed, Connection

        if self._there is None:
            self._there = Connection(self.key.socket, f"the KMS plugin {self.key.name}")
        begun, code = self._clock.monotonic(), "OK"
        try:
            types = (CODEC, f"{method}Request"), (CODEC, f"{method}Response")
            return await self._there.call(SERVICE + method, types, request, self.key.timeout_s)
        except CallFailed as failure:
            code = failure.code
            raise Unreachable(failure.message) from None
        finally:
            if self.measures is not None:
                self.measures.call(self.key.name, SERVICE + method, code, self._clock.monotonic() - begun)

    async def close(self) -> None:
        """Ends the connection; nothing is left under way."""
        await self._tasks.close()
        if self._there is not None:
            self._there.close()


class Plugins:
    """The plugins of a configuration. One that the next configuration has unchanged goes on with its seeds."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._plugins: dict[Key, Plugin] = {}
        self._measures: Measures | None = None

    def cipher(self, key: Key) -> Plugin:
        """The plugin of a key."""
        if key not in self._plugins:
            made = self._plugins[key] = Plugin(key, self._clock, self._entropy)
            made.measures = self._measures
        return self._plugins[key]

    def measure(self, measures: Measures) -> None:
        """Counts from now on."""
        self._measures = measures
        for plugin in self._plugins.values():
            plugin.measures = measures

    async def keep(self, rules: Rules) -> None:
        """Closes the plugins that a configuration does not have."""
        wanted = _keys(rules)
        for key in [key for key in self._plugins if key not in wanted]:
            await self._plugins.pop(key).close()

    async def ready(self, rules: Rules) -> None:
        """Waits until all plugins of a configuration have answered that they are well."""
        for plugin in [self.cipher(key) for key in _keys(rules)]:
            pause = _FIRST_PAUSE_S
            while await plugin.look():
                if pause == _FIRST_PAUSE_S:
                    log.warning("KMS plugin %s: nothing is read without it, so it is waited for", plugin.key.name)
                await asyncio.sleep(pause)
                pause = min(3 * pause, _LOOK_AGAIN_S)

    async def health(self) -> str | None:
        """What the health check kms-providers tells."""
        wrong = [why for plugin in list(self._plugins.values()) if (why := await plugin.health())]
        return ", ".join(wrong) or None

    async def close(self) -> None:
        """Ends all connections."""
        await self.keep({})


def _keys(rules: Rules) -> dict[Key, None]:
    return dict.fromkeys(key for keys in rules.values() for key in keys if key.provider == KMS)


def hashed(text: str) -> str:
    """How ids of keys and servers are told where they must not be read."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else ""
