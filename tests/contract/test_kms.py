"""Values sealed through a KMS v2 plugin that answers at a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.kms import KmsPlugin

from k3s.apiserver.encryption import envelope
from k3s.apiserver.encryption.config import Key, Rules
from k3s.apiserver.encryption.keyring import Keyring
from k3s.apiserver.encryption.kms import Plugins, hashed
from k3s.apiserver.encryption.measures import Measures
from k3s.apiserver.encryption.sealed import Sealed
from k3s.base.entropy import SystemEntropy
from k3s.base.metrics import Registry
from k3s.store.interface import Compacted, Event, Unavailable
from k3s.store.memory import MemoryStore

A, B = "/registry/core/secrets/default/a", "/registry/core/secrets/default/b"
PREFIX = b"k8s:enc:kms:v2:vault:"


class Hands:
    """A clock that is set by hand."""

    time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Place:
    """A store that a plugin's keys seal, as one server has it."""

    def __init__(self, store: MemoryStore, socket: Path, clock: Hands, timeout_s: float = 3.0) -> None:
        key = Key("kms", "vault", socket=str(socket), timeout_s=timeout_s)
        self.rules: Rules = {"secrets": (key, Key("identity"))}
        self.plugins = Plugins(clock, SystemEntropy())
        self.keys = Keyring(self.rules, SystemEntropy().secret, self.plugins.cipher)
        self.store = Sealed(store, self.keys)
        self.below = store
        self.metrics = Registry()
        self.plugins.measure(Measures(self.metrics, "me", clock.now))

    async def stored(self, key: str) -> bytes:
        entry = await self.below.get(key)
        assert entry is not None
        return entry.value

    async def key_id(self, key: str) -> str:
        return envelope.unpacked((await self.stored(key)).removeprefix(PREFIX))[0].key_id


@contextlib.asynccontextmanager
async def places(folder: Path, count: int = 1, timeout_s: float = 3.0) -> AsyncIterator[tuple[Any, ...]]:
    """A plugin, a clock, and so many servers on one store."""
    plugin, clock, store = KmsPlugin(), Hands(), MemoryStore()
    await store.open()
    await plugin.start(str(folder / "kms.sock"))
    made = [Place(store, folder / "kms.sock", clock, timeout_s) for _ in range(count)]
    try:
        yield (plugin, clock, *made)
    finally:
        for place in made:
            await place.plugins.close()
            await place.store.close()
        await plugin.stop()


def test_there_and_back(run: Any, tmp_path: Path) -> None:
    """The datastore gets upstream's form; the plugin is asked once for many values, and once by the next server."""

    async def body() -> None:
        async with places(tmp_path) as (plugin, clock, place):
            await asyncio.gather(*(place.store.put(f"{A}{i}", b"hidden %d" % i, 0) for i in range(20)))
            assert plugin.asked == ["Status", "Encrypt"]
            stored = await place.stored(f"{A}0")
            assert stored.startswith(PREFIX) and b"hidden" not in stored
            source, _ = envelope.unpacked(stored.removeprefix(PREFIX))
            assert (source.key_id, source.kind, dict(source.annotations)) == ("key-1", 1, plugin.annotations)
            _, entries = await place.store.list("/registry/core/secrets/")
            assert sorted(entry.value for entry in entries) == sorted(b"hidden %d" % i for i in range(20))
            assert plugin.asked == ["Status", "Encrypt"]
            other = Place(place.below, tmp_path / "kms.sock", clock)
            _, entries = await other.store.list("/registry/core/secrets/")
            assert len(entries) == 20 and plugin.asked[2:] == ["Decrypt"]
            await other.plugins.close()
            text = place.metrics.text()
            labels = f'apiserver_id_hash="{hashed("me")}",key_id_hash="{hashed("key-1")}",provider_name="vault"'
            kinds = (("to_storage", 20), ("from_storage", 20))
            for way, count in kinds:
                line = (
                    f'apiserver_envelope_encryption_key_id_hash_total{{{labels},transformation_type="{way}"}} {count}'
                )
                assert line in text
            assert 'grpc_status_code="OK",method_name="/v2.KeyManagementService/Encrypt",provider_name="vault"' in text
            assert "key-1" not in text

    run(body())


def test_idle_asks_nobody_and_a_new_key_is_found_by_the_next_write(run: Any, tmp_path: Path) -> None:
    """Within a minute nobody asks; after it the first write does, and a new key makes a new seed."""

    async def body() -> None:
        async with places(tmp_path) as (plugin, clock, place):
            await place.store.put(A, b"one", 0)
            plugin.key_id = "key-2"
            clock.time += 59
            at = await place.store.put(B, b"two", 0)
            assert await place.key_id(B) == "key-1" and plugin.asked == ["Status", "Encrypt"]
            clock.time += 2
            await asyncio.gather(place.store.put(B, b"three", at), place.store.put(f"{B}2", b"four", 0))
            assert await place.key_id(B) == await place.key_id(f"{B}2") == "key-2"
            assert plugin.asked == ["Status", "Encrypt"] * 2
            assert (await place.store.get(A)).value == b"one" and (await place.store.get(B)).value == b"three"
            assert await place.store.reseal() == 1 and await place.key_id(A) == "key-2"
            assert await place.store.reseal() == 0
            clock.time += 61
            await place.store.put(f"{B}3", b"five", 0)
            assert plugin.asked[4:] == ["Status"]

    run(body())


def test_a_plugin_that_is_gone(run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Reads go on for a day, writes for three minutes; then both say why; all is well again with the plugin."""

    async def body() -> None:
        async with places(tmp_path) as (plugin, clock, place):
            await place.store.put(A, b"one", 0)
            assert await place.plugins.health() is None
            await plugin.stop()
            clock.time += 100
            at = await place.store.put(B, b"two", 0)
            assert "the KMS plugin vault at" in (await place.plugins.health() or "")
            clock.time += 100
            with pytest.raises(Unavailable, match=r"perform status section .* Provider vault.* is not reached"):
                await place.store.put(B, b"three", at)
            assert (await place.store.get(A)).value == b"one"
            clock.time += 86400
            with pytest.raises(Unavailable, match="failed to decrypt DEK, error: Cannot Decrypt: the KMS plugin"):
                await place.store.get(A)
            assert place.store.problem() == ""
            await plugin.start(str(tmp_path / "kms.sock"))
            assert (await place.store.get(A)).value == b"one"
            await place.store.put(B, b"three", at)
            clock.time += 4
            assert await place.plugins.health() is None

    with caplog.at_level(logging.WARNING):
        run(body())
    assert "KMS plugin vault: failed to perform status" in caplog.text


def test_a_plugin_that_does_not_answer(run: Any, tmp_path: Path) -> None:
    """The timeout of its configuration holds, and all that wait share the one question."""

    async def body() -> None:
        async with places(tmp_path, timeout_s=0.05) as (plugin, _clock, place):
            plugin.stuck = asyncio.Event()
            writes = (place.store.put(f"{A}{i}", b"x", 0) for i in range(5))
            for error in await asyncio.gather(*writes, return_exceptions=True):
                assert "the KMS plugin vault did not answer in 0.05 s" in str(error)
            assert plugin.asked == ["Status"]
            plugin.stuck.set()
            await place.store.put(A, b"x", 0)

    run(body())


@pytest.mark.parametrize(
    ("bent", "text"),
    [
        ({"healthz": "sealed"}, "kmsv2 Provider vault is not healthy, error: got unexpected healthz status: sealed"),
        ({"version": "v1beta1"}, "expected KMSv2 API version v2, got v1beta1"),
        ({"version": "v2beta1"}, "should not change after the initial status response version v2, got v2beta1"),
        ({"key_id": ""}, 'got invalid KMSv2 KeyID hash "": keyID is empty'),
        ({"key_id": "k" * 1025}, "keyID is 1025 bytes, which exceeds the max size of 1024"),
        ({"encrypts_with": "key-3", "key_id": "key-2"}, f'encryptKeyIDHash="{hashed("key-3")}"'),
        (
            {"annotations": {"bad": b""}, "key_id": "key-2"},
            "failed to rotate DEK: failed to encrypt DEK, error: ",
        ),
    ],
)
def test_answers_that_are_not_taken(run: Any, tmp_path: Path, bent: dict[str, Any], text: str) -> None:
    """The health check tells them, in upstream's words; the former seed goes on for three minutes."""

    async def body() -> None:
        async with places(tmp_path) as (plugin, clock, place):
            await place.store.put(A, b"one", 0)
            for name, value in bent.items():
                setattr(plugin, name, value)
            clock.time += 61
            await place.store.put(B, b"two", 0)
            assert await place.key_id(B) == "key-1"
            assert text in (await place.plugins.health() or "")
            if "" in bent.values():
                told = 'invalid_key_id_from_status_total{error="empty",provider_name="vault"} '
                assert told in place.metrics.text()
            clock.time += 180
            if "healthz" not in bent and "version" not in bent:
                with pytest.raises(Unavailable):
                    await place.store.put(A, b"three", 1)

    run(body())


def test_what_another_server_seals(run: Any, tmp_path: Path) -> None:
    """Its events come in order, the first of a new seed after the plugin was asked; until then nothing is newer."""

    async def body() -> None:
        async with places(tmp_path, 2) as (plugin, _clock, one, two):
            seen: list[Event] = []
            all_seen = asyncio.Event()

            def subscriber(events: Any) -> None:
                seen.extend(events)
                if len(seen) == 3:
                    all_seen.set()

            one.store.subscribe(subscriber)
            plugin.stuck = asyncio.Event()
            plugin.stuck.set()
            await two.plugins.ready(two.rules)
            plugin.stuck.clear()
            await two.store.put(A, b"theirs", 0)
            await two.store.put("/registry/core/configmaps/default/m", b"plain", 0)
            await two.store.delete(A, 1)
            assert seen == [] and one.store.revision() == 0 and one.below.revision() == 3
            plugin.stuck.set()
            await all_seen.wait()
            assert [event.value for event in seen] == [b"theirs", b"plain", None]
            assert one.store.revision() == 3

    run(body())


def test_changed_values_are_told(run: Any, tmp_path: Path) -> None:
    """Moved to another place, or broken: unreadable, and history of that kind counts as compacted."""

    async def body() -> None:
        async with places(tmp_path) as (_plugin, _clock, place):
            await place.store.put(A, b"one", 0)
            await place.below.put(B, await place.stored(A), 0)
            with pytest.raises(Unavailable, match="b cannot be unsealed with the key vault of kms: it was changed"):
                await place.store.get(B)
            with pytest.raises(Compacted):
                await place.store.list("/registry/core/secrets/", 2)
            await place.below.put(B, PREFIX + b"rubbish", 2)
            with pytest.raises(Unavailable, match="b cannot be unsealed with the key vault of kms"):
                await place.store.get(B)

    run(body())


def test_a_day_and_a_thousand(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decrypted seeds are kept for a day, and only so many of them."""
    from k3s.apiserver.encryption import kms

    monkeypatch.setattr(kms, "_SEEDS", 3)

    async def body() -> None:
        async with places(tmp_path) as (plugin, clock, place):
            for i in range(5):
                plugin.key_id = f"key-{i}"
                await place.store.put(f"{A}{i}", b"value %d" % i, 0)
                clock.time += 61
            assert 'dek_source_cache_size{provider_name="vault"} 3' in place.metrics.text()
            del plugin.asked[:]
            _, entries = await place.store.list("/registry/core/secrets/")
            assert [entry.value for entry in entries] == [b"value %d" % i for i in range(5)]
            assert plugin.asked.count("Decrypt") >= 2

    run(body())
