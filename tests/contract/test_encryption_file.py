"""Encryption by a file of the user's: it is followed while the server runs, and what cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.kms import KmsPlugin
from tests.fakes.server import build

from k3s.api.kinds import builtin
from k3s.apiserver.encryption.kms import hashed
from k3s.apiserver.encryption.sealed import Sealed
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.base.metrics import Registry
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.run import encryptionfile
from k3s.run.config import ConfigError
from k3s.run.encryptionfile import EncryptionFile
from k3s.store.interface import Unavailable
from k3s.store.memory import MemoryStore

KEY = "/registry/core/secrets/default/a"
IDENTITY: dict[str, Any] = {"identity": {}}


def cipher(name: str, provider: str = "secretbox") -> dict[str, Any]:
    return {provider: {"keys": [{"name": name, "secret": "A" * 43 + "="}]}}


def text(*providers: dict[str, Any]) -> str:
    resources = [{"resources": ["secrets"], "providers": list(providers)}]
    return json.dumps(
        {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}
    )


class Followed:
    """A file that is followed, and a store that it seals."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = EncryptionFile(path, SystemClock(), SystemEntropy(), follows=True)
        self.metrics = Registry()
        self.file.measure(self.metrics, "me")
        self.below = MemoryStore()
        self.store = Sealed(self.below, self.file.keys)
        self._statuses: asyncio.Queue[str] = asyncio.Queue()
        counted = self.file._reloaded

        def reloaded(status: str) -> None:
            counted(status)
            self._statuses.put_nowait(status)

        self.file._reloaded = reloaded

    async def write(self, text: str) -> str:
        """Puts a new file in the place of the old one, as editors and config management do; what came of it."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)
        return await self.next()

    async def next(self) -> str:
        """What came of the next change."""
        return await asyncio.wait_for(self._statuses.get(), 20)

    async def prefix(self) -> bytes:
        """With what a value is sealed that is written now."""
        entry = await self.below.get(KEY)
        await self.store.put(KEY, b"value", entry.revision if entry is not None else 0)
        entry = await self.below.get(KEY)
        assert entry is not None
        return entry.value[:28]


@contextlib.asynccontextmanager
async def followed(path: Path) -> AsyncIterator[Followed]:
    made = Followed(path)
    await made.store.open()
    await made.file.start()
    try:
        yield made
    finally:
        await made.file.close()
        await made.store.close()


def test_a_change_is_followed(run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new key seals from then on, what the old one sealed is read; a broken file changes nothing and is told."""
    path = tmp_path / "config.yaml"
    path.write_text(text(cipher("one"), IDENTITY))

    async def body() -> None:
        async with followed(path) as server:
            assert (await server.prefix()).startswith(b"k8s:enc:secretbox:v1:one:")
            assert await server.write(text(cipher("two"), cipher("one"))) == "success"
            assert (await server.store.get(KEY)).value == b"value"
            assert (await server.prefix()).startswith(b"k8s:enc:secretbox:v1:two:")
            assert await server.write("resources: [") == "failure"
            assert await server.write(text({"rot13": {}})) == "failure"
            path.unlink()
            assert await server.next() == "failure"
            assert (await server.prefix()).startswith(b"k8s:enc:secretbox:v1:two:")
            assert await server.write(text(IDENTITY, cipher("two"))) == "success"
            assert await server.prefix() == b"value"
            told = server.metrics.text()
            name, id = "apiserver_encryption_config_controller_", f'apiserver_id_hash="{hashed("me")}"'
            assert f'{name}automatic_reloads_total{{{id},status="success"}} 2\n' in told
            assert f'{name}automatic_reload_last_timestamp_seconds{{{id},status="failure"}} 1' in told
            assert f'{name}last_config_info{{{id},hash="{hashed(path.read_text())}"}} 1\n' in told
            assert told.count(f"{name}last_config_info{{") == 1

    with caplog.at_level(logging.INFO):
        run(body())
    assert (
        "rot13: there is no such provider; use one of" in caplog.text and "the former one stays in use" in caplog.text
    )
    assert "A" * 43 not in caplog.text


def test_plugins_come_and_go(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that does not answer changes nothing until it does; one that stays keeps its seed; health is theirs."""
    monkeypatch.setattr(encryptionfile, "_PLUGINS_S", 0.2)
    path = tmp_path / "config.yaml"
    path.write_text(text(IDENTITY))

    def plugin(name: str) -> dict[str, Any]:
        endpoint = f"unix://{tmp_path / name}"
        return {"kms": {"apiVersion": "v2", "name": name, "endpoint": endpoint, "timeout": "2s"}}

    async def body() -> None:
        async with followed(path) as server:
            assert await server.file.checks()["kms-providers"]() is None
            assert await server.prefix() == b"value"
            assert await server.write(text(plugin("first"), IDENTITY)) == "failure"
            assert await server.prefix() == b"value" == (await server.store.get(KEY)).value
            first, second = KmsPlugin(), KmsPlugin()
            await first.start(str(tmp_path / "first"))
            while await server.next() != "success":
                pass
            assert (await server.prefix()).startswith(b"k8s:enc:kms:v2:first:")
            await second.start(str(tmp_path / "second"))
            assert await server.write(text(plugin("second"), plugin("first"))) == "success"
            assert (await server.store.get(KEY)).value == b"value"
            assert (await server.prefix()).startswith(b"k8s:enc:kms:v2:second:")
            assert first.asked.count("Encrypt") == 1 and "Decrypt" not in first.asked
            assert await server.write(text(plugin("second"))) == "success"
            await first.stop()
            assert await server.file.checks()["kms-providers"]() is None
            assert await server.prefix() and (await server.store.get(KEY)).value == b"value"
            await second.stop()

    run(body())


def test_a_key_that_is_put_back(run: Any, tmp_path: Path) -> None:
    """Without it the value is not read, and the check of the datastore says so; with it both are well again."""
    path = tmp_path / "config.yaml"
    path.write_text(text(cipher("one")))

    async def body() -> None:
        async with followed(path) as server:
            await server.prefix()
            assert await server.write(text(cipher("two"))) == "success"
            with pytest.raises(Unavailable, match="encrypted with the key one of secretbox"):
                await server.store.get(KEY)
            assert "put the key back" in server.store.problem()
            assert await server.write(text(cipher("two"), cipher("one"))) == "success"
            assert server.store.problem() == "" and (await server.store.get(KEY)).value == b"value"

    run(body())


def test_checks_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    """Without plugins and without following there is no such health check."""
    path = tmp_path / "config.yaml"
    path.write_text(text(cipher("one")))
    assert not EncryptionFile(path, SystemClock(), SystemEntropy()).checks()
    kms = {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///run/none"}}
    path.write_text(text(IDENTITY, kms))
    assert list(EncryptionFile(path, SystemClock(), SystemEntropy()).checks()) == ["kms-providers"]


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    """Nothing starts; file and field are named."""
    path = tmp_path / "config.yaml"
    for content, told in ((None, "Cannot read"), ("{", "it is no YAML"), ("{}", "it is no EncryptionConfiguration")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=f"{path}.*" if content else told) as error:
            EncryptionFile(path, SystemClock(), SystemEntropy())
        assert told in str(error.value)


def test_who_writes_the_same_again_seals_it_anew(run: Any, tmp_path: Path) -> None:
    """`kubectl get secrets -o json | kubectl replace -f -` gives values another key; otherwise it writes nothing."""
    path = tmp_path / "config.yaml"
    path.write_text(text(IDENTITY, cipher("one"), cipher("two"), cipher("gcm", "aesgcm"), cipher("cbc", "aescbc")))

    async def body() -> None:
        file = EncryptionFile(path, SystemClock(), SystemEntropy())
        below = MemoryStore()
        await below.open()
        sealed = Sealed(below, file.keys)
        server = build(sealed)  # type: ignore[arg-type]
        await server.load()
        client = Client(LocalTransport(server.itself()))
        secret = builtin("v1", "Secret")
        meta = {"namespace": "default", "name": "a"}
        made = await client.create(secret, {"apiVersion": "v1", "kind": "Secret", "metadata": meta})
        space = await client.get(builtin("v1", "Namespace"), "", "default")

        async def stored() -> bytes:
            entry = await below.get(KEY)
            assert entry is not None
            return entry.value

        assert (await stored()).startswith(b"{")
        order = ["one", "two", "cbc", "gcm"]
        kinds = {"one": "secretbox", "two": "secretbox", "gcm": "aesgcm", "cbc": "aescbc"}
        for name in order:
            others = [cipher(other, kinds[other]) for other in order if other != name]
            path.write_text(text(cipher(name, kinds[name]), IDENTITY, *others))
            file.keys.replace(encryptionfile.rules_of(path))
            before = await stored()
            read = await sealed.get(KEY)
            assert read is not None and read.value.startswith(b"{")
            assert (await client.get(secret, "default", "a"))["metadata"]["name"] == "a"
            assert await stored() == before
            same = await client.update(secret, made)
            assert same["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
            assert (await stored()).startswith(f"k8s:enc:{kinds[name]}:v1:{name}:".encode())
            made = await client.update(secret, same)
            assert made["metadata"]["resourceVersion"] == same["metadata"]["resourceVersion"]
        path.write_text(text(IDENTITY, *(cipher(name, kinds[name]) for name in order)))
        file.keys.replace(encryptionfile.rules_of(path))
        await client.update(secret, made)
        assert (await stored()).startswith(b"{")
        revision = below.revision()
        await client.update(builtin("v1", "Namespace"), space)
        assert below.revision() == revision
        await server.stop()

    run(body())
