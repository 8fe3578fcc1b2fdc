"""Encryption of Secrets on a real datastore: what stands in its file, and that no stop in between loses anything."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from k3s.apiserver.encryption.sealed import Sealed
from k3s.base import files
from k3s.base.clock import SystemClock
from k3s.base.entropy import SystemEntropy
from k3s.cluster.encryption import WrongStage
from k3s.run.encryption import Encryption
from k3s.store.interface import Compacted, Unavailable
from k3s.store.sql.sqlite import SqliteStore

SECRETS = {f"/registry/core/secrets/default/s{i}": b'{"data":"hidden-%d"}' % i for i in range(40)}
MAP = "/registry/core/configmaps/default/m"


class Killed(Exception):
    """The process ends here."""


class Dying(SqliteStore):
    """A datastore whose process ends when it is to forget history."""

    async def compact(self, revision: int) -> None:
        raise Killed


class Server:
    """The part of a server that encrypts, on files that stay."""

    def __init__(self, folder: Path, provider: str = "aescbc", store: type[SqliteStore] = SqliteStore) -> None:
        self.encryption = Encryption(folder / "cred", provider, SystemClock(), SystemEntropy())
        self.encryption.load()
        self.store = Sealed(store(folder / "db"), self.encryption.keys)
        self.encryption.sealed = self.store

    async def __aenter__(self) -> Server:
        await self.store.open()
        self.encryption.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.encryption.close()
        await self.store.close()

    async def write(self) -> None:
        for key, value in SECRETS.items():
            await self.store.put(key, value, 0)
        await self.store.put(MAP, b'{"data":"shown"}', 0)

    async def values(self) -> dict[str, bytes]:
        _, entries = await self.store.list("/registry/core/secrets/")
        return {entry.key: entry.value for entry in entries}

    async def finished(self) -> None:
        while len(self.encryption._tasks):
            await asyncio.gather(*self.encryption._tasks._tasks)


def names(server: Server) -> list[str]:
    state = server.encryption.status()
    return [state["activekey"], *state["inactivekeys"]]


def test_the_file_holds_no_secret(run: Any, tmp_path: Path) -> None:
    """Neither the database nor its log; the files of keys are the owner's only."""

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
            assert await server.values() == SECRETS
            events = await server.store.events("/registry/core/secrets/", 0)
            assert [event.value for event in events] == list(SECRETS.values())
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("db*"))
        assert b"hidden" not in stored and b"shown" in stored and b"k8s:enc:aescbc:v1:aescbckey:" in stored
        for path in (tmp_path / "cred").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with Server(tmp_path) as again:
            assert await again.values() == SECRETS

    run(body())


def test_keys_are_rotated_while_the_server_runs(run: Any, tmp_path: Path) -> None:
    """prepare, rotate, reencrypt; all at once; off and on again; another cipher: everything stays readable."""

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
            encryption = server.encryption
            with pytest.raises(WrongStage, match="rotate comes after prepare"):
                await encryption.change({"stage": "rotate"})
            assert (await encryption.change({"stage": "prepare"}))["stage"] == "prepare"
            assert names(server)[0] == "AES-CBC aescbckey" and len(names(server)) == 2
            new = names(server)[1]
            assert (await encryption.change({"stage": "rotate"}))["activekey"] == new
            await encryption.change({"stage": "reencrypt_request"})
            await server.finished()
            assert encryption.status()["stage"] == "reencrypt_finished" and names(server) == [new]
            assert await server.values() == SECRETS
            await encryption.change({"stage": "rotate_keys"})
            await server.finished()
            assert new not in names(server) and len(names(server)) == 1
            await encryption.change({"enable": False})
            await encryption.change({"stage": "reencrypt_request", "force": True, "skip": True})
            await server.finished()
            assert await server.store.reseal() == 0 and encryption.status()["enable"] is False
            assert await server.values() == SECRETS
            await encryption.change({"enable": True})
            await encryption.change({"stage": "reencrypt_request", "force": True})
            await server.finished()
        async with Server(tmp_path, "secretbox") as server:
            await server.encryption.change({"stage": "rotate_keys"})
            await server.finished()
            assert [name.split()[0] for name in names(server)] == ["XSalsa20-POLY1305"]
            assert await server.values() == SECRETS

    run(body())


@pytest.mark.parametrize("after", range(7))
def test_a_stop_between_any_two_steps_loses_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Killed after so many writes of the files, in the middle of writing Secrets again too: the next start goes on."""
    write, left = files.write_changed, [after]

    def limited(*args: Any, **named: Any) -> bool:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return write(*args, **named)

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
            monkeypatch.setattr(files, "write_changed", limited)
            try:
                await server.encryption.change({"stage": "rotate_keys"})
                await server.finished()
            except Killed:
                pass
            monkeypatch.setattr(files, "write_changed", write)
        async with Server(tmp_path) as again:
            assert await again.values() == SECRETS
            await again.finished()
            assert await again.values() == SECRETS
            await again.encryption.change({"stage": "rotate_keys", "force": True})
            await again.finished()
            assert await again.values() == SECRETS and len(names(again)) == 1
            assert again.encryption.status()["stage"] == "reencrypt_finished"

    run(body())


def test_history_of_a_key_goes_before_the_key(run: Any, tmp_path: Path) -> None:
    """Until a rotation is over all history is read; after it what the old key has sealed counts as compacted (410)."""
    first = "/registry/core/secrets/default/s0"

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
            old = server.store.revision()
            await server.store.put(first, b"newer", 1)
            await server.encryption.change({"stage": "prepare"})
            await server.encryption.change({"stage": "rotate"})
            await server.store.put("/registry/core/secrets/default/s1", b"by the new key", 2)
            assert (await server.store.get(first, old)).value == SECRETS[first]
            assert (await server.store.list("/registry/core/secrets/", old))[1][0].value == SECRETS[first]
            events = await server.store.events("/registry/core/secrets/", 0)
            assert [events[0].value, events[-1].value] == [SECRETS[first], b"by the new key"]
            await server.encryption.change({"stage": "reencrypt_request"})
            await server.finished()
            assert len(names(server)) == 1
            for history in (
                server.store.get(first, old),
                server.store.list("/registry/core/secrets/", old),
                server.store.events("/registry/core/secrets/", old),
            ):
                with pytest.raises(Compacted):
                    await history
            now = server.store.revision()
            await server.store.delete(first, (await server.store.get(first)).revision)
            (event,) = await server.store.events("/registry/core/secrets/", now)
            assert event.value is None and event.previous.value == b"newer"
            assert (await server.store.get(first, now)).value == b"newer"
            assert server.store.problem() == ""

    run(body())


def test_a_key_stays_until_its_history_is_gone(run: Any, tmp_path: Path) -> None:
    """A stop before the history is forgotten keeps the old key; the next start forgets first."""

    async def body() -> None:
        async with Server(tmp_path, store=Dying) as server:
            await server.write()
            old = server.store.revision()
            await server.encryption.change({"stage": "rotate_keys"})
            with pytest.raises(Killed):
                await server.finished()
            assert len(names(server)) == 2 and server.encryption.status()["stage"] == "reencrypt_active"
            _, entries = await server.store.list("/registry/core/secrets/", old)
            assert {entry.key: entry.value for entry in entries} == SECRETS
        async with Server(tmp_path) as again:
            await again.finished()
            assert len(names(again)) == 1 and await again.values() == SECRETS
            with pytest.raises(Compacted):
                await again.store.list("/registry/core/secrets/", old)

    run(body())


def test_keys_that_stay_keep_their_history(run: Any, tmp_path: Path) -> None:
    """With --skip nothing is dropped, so nothing has to be forgotten."""

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
            old = server.store.revision()
            await server.encryption.change({"stage": "prepare"})
            await server.encryption.change({"stage": "rotate"})
            await server.encryption.change({"stage": "reencrypt_request", "skip": True})
            await server.finished()
            assert len(names(server)) == 2
            _, entries = await server.store.list("/registry/core/secrets/", old)
            assert {entry.key: entry.value for entry in entries} == SECRETS

    run(body())


def test_a_missing_key_is_told(run: Any, tmp_path: Path) -> None:
    """Reads fail with the name of the key; the check of the datastore says so."""

    async def body() -> None:
        async with Server(tmp_path) as server:
            await server.write()
        (tmp_path / "cred" / "encryption-config.json").unlink()
        async with Server(tmp_path, "secretbox") as server:
            with pytest.raises(Unavailable, match="encrypted with the key aescbckey of aescbc"):
                await server.values()
            assert "put the key back" in server.store.problem()

    run(body())
