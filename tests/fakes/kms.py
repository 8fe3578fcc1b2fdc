"""A KMS v2 plugin: keeps keys, encrypts seeds with AES-GCM. Also a program: `python -m tests.fakes.kms SOCKET`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from k3s.apiserver.encryption.kms import CODEC, SERVICE
from k3s.base.grpc import GrpcCodec


class _Server(Server):
    """One whose end is that of its connections, as with a process."""

    def __init__(self, service: Any) -> None:
        super().__init__([service], codec=GrpcCodec())
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        self._protocols.append(made)
        return made

    def close(self) -> None:
        super().close()
        for protocol in self._protocols:
            protocol.connection.close()


class KmsPlugin:
    """`key_id` names the key in use; what it answers can be bent."""

    def __init__(self, key_id: str = "key-1") -> None:
        self.key_id = key_id
        self.healthz = "ok"
        self.version = "v2"
        self.annotations: dict[str, bytes] = {"version.example.com": b"1"}
        self.encrypts_with = ""  # another key than Status says
        self.asked: list[str] = []
        self.stuck: asyncio.Event | None = None  # answers wait for it
        self._server: Server | None = None

    def _cipher(self, key_id: str) -> AESGCM:
        return AESGCM(hashlib.sha256(b"kek " + key_id.encode()).digest())

    async def start(self, socket: str) -> None:
        self._server = _Server(self)
        await self._server.start(path=socket)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def __mapping__(self) -> dict[str, Handler]:
        return {SERVICE + method: self._handler(method) for method in ("Status", "Encrypt", "Decrypt")}

    def _handler(self, method: str) -> Handler:
        async def handle(stream: Any) -> None:
            asked = await stream.recv_message()
            self.asked.append(method)
            if self.stuck is not None:
                await self.stuck.wait()
            await stream.send_message(getattr(self, method.lower())(asked))

        types = (CODEC, f"{method}Request"), (CODEC, f"{method}Response")
        return Handler(handle, Cardinality.UNARY_UNARY, *types)

    def status(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"version": self.version, "healthz": self.healthz, "key_id": self.key_id}

    def encrypt(self, asked: dict[str, Any]) -> dict[str, Any]:
        key_id, nonce = self.encrypts_with or self.key_id, os.urandom(12)
        sealed = nonce + self._cipher(key_id).encrypt(nonce, asked["plaintext"], None)
        return {"ciphertext": sealed, "key_id": key_id, "annotations": self.annotations}

    def decrypt(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["annotations"] != self.annotations or not asked["uid"]:
            raise GRPCError(Status.INVALID_ARGUMENT, "not as it was encrypted")
        sealed = asked["ciphertext"]
        try:
            return {"plaintext": self._cipher(asked["key_id"]).decrypt(sealed[:12], sealed[12:], None)}
        except InvalidTag:
            raise GRPCError(Status.INVALID_ARGUMENT, "no key of mine") from None


async def serve(socket: str) -> None:
    await KmsPlugin().start(socket)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
