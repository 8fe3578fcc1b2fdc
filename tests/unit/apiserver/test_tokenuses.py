"""Uses of service-account tokens: what the audit log, the sender, the metrics and the Secret learn of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.fakes.clock import MovedClock
from tests.fakes.server import Caller, serving

from k3s.api.object import Object, decode
from k3s.apiserver.audit.settings import auditor, settings
from k3s.apiserver.cache import Cache
from k3s.apiserver.tokenissuer import Issuer
from k3s.apiserver.tokenkeys import Signer
from k3s.apiserver.tokens import Verifier
from k3s.apiserver.tokens import settings as token_settings
from k3s.apiserver.tokenuses import TokenUses, date
from k3s.base import metrics
from k3s.base.entropy import SeededEntropy
from k3s.client.client import Client
from k3s.client.local import LocalTransport

Run = Callable[[Any], Any]
PEM = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SECRETS = "/api/v1/namespaces/default/secrets"
WARNING = (
    "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated "
    "secret-based tokens."
)


class Uses:
    """A server with an account, and what was told of its tokens."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.metrics, self.entropy = MovedClock(1_767_225_600.0), metrics.Registry(), SeededEntropy(3)
        self.uses, self.own, self.signer = TokenUses(self.metrics, self.clock), token_settings("c"), Signer(PEM)
        policy, self._log = folder / "policy", folder / "log"
        rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
        policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}))
        said = settings({"audit-policy-file": str(policy), "audit-log-path": str(self._log)})
        assert said is not None
        self.auditor = auditor(said, self.clock, self.entropy)

    def tokens(self, cache: Cache) -> tuple[Issuer, Verifier]:
        """Who makes and who checks them."""
        self.issuer = Issuer(cache, self.signer, self.own, self.clock, self.entropy)
        return self.issuer, Verifier(cache, [self.signer.public], self.own, self.clock, self.uses)

    @property
    def server(self) -> dict[str, Any]:
        """What a server is made with."""
        return {"clock": self.clock, "metrics": self.metrics, "auditor": self.auditor, "tokens": self.tokens}

    def notes(self, path: str = "selfsubjectreviews") -> Object:
        """The annotations of the last request of a path, without those of authorization."""
        events = [json.loads(line) for line in self._log.read_text().splitlines()]
        found = next(event for event in reversed(events) if event["requestURI"].endswith(path))["annotations"]
        return {key: text for key, text in found.items() if not key.startswith("authorization")}

    def count(self, name: str) -> str:
        """A metric's value."""
        lines = self.metrics.text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"serviceaccount_{name} "))


async def _ask(port: int, token: str) -> tuple[int, str]:
    """Who am I: the status, and the warning."""
    caller = Caller(port, token)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    await caller.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    status, headers, _ = await caller.answer()
    caller.close()
    return status, headers.get("warning", "")


async def _account(admin: Caller, secret: str = "") -> Object:
    body: Object = {"metadata": {"name": "s"}, **({"secrets": [{"name": secret}]} if secret else {})}
    status, account = await admin.call("POST", "/api/v1/namespaces/default/serviceaccounts", body)
    assert status == 201
    return account


def test_tokens_without_an_end(run: Run, tmp_path: Path) -> None:
    """The day of the use is written once; a token made with its account warns; one that is marked is refused."""
    given = Uses(tmp_path)

    async def check() -> None:
        async with serving(**given.server) as server:
            service = asyncio.create_task(
                given.uses.run(Client(LocalTransport(server.itself())), server.cache, lambda: None)
            )
            admin, port = Caller(server.ports[0]), server.ports[0]
            account = await _account(admin, "auto")
            for name in ("auto", "manual"):
                notes = {"kubernetes.io/service-account.name": "s"}
                made: Object = {"metadata": {"name": name, "namespace": "default", "annotations": notes}}
                token = given.issuer.legacy(account, made)
                data = {"token": base64.b64encode(token.encode()).decode()}
                made |= {"type": "kubernetes.io/service-account-token", "data": data}
                assert (await admin.call("POST", SECRETS, made))[0] == 201
                seen = server.cache.revision
                status, warning = await _ask(port, token)
                assert (status, warning) == (201, f'299 - "{WARNING}"' if name == "auto" else "")
                kind = "autogenerated" if name == "auto" else name
                assert given.notes() == {
                    "authentication.k8s.io/legacy-token": "system:serviceaccount:default:s",
                    f"authentication.k8s.io/legacy-token-{kind}-secret": name,
                }
                await server.cache.reached(seen + 1)
                _, found = await admin.call("GET", f"{SECRETS}/{name}")
                assert found["metadata"]["labels"] == {"kubernetes.io/legacy-token-last-used": "2026-01-01"}
                before = server.cache.revision
                assert (await _ask(port, token))[0] == 201 and not given.uses._used
                assert server.cache.revision == before
            marks = {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-02"}}}
            await admin.call("PATCH", f"{SECRETS}/manual", marks, Content_Type="application/merge-patch+json")
            given.clock.at += 2 * 86400
            seen = server.cache.revision
            assert (await _ask(port, token))[0] == 401
            assert given.notes()["authentication.k8s.io/legacy-token-invalidated"] == "manual/default"
            await server.cache.reached(seen + 1)
            _, found = await admin.call("GET", f"{SECRETS}/manual")
            assert found["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"] == "2026-01-03"
            names = (
                "legacy_tokens",
                "legacy_auto_token_uses",
                "legacy_manual_token_uses",
                "invalid_legacy_auto_token_uses",
            )
            assert [given.count(f"{name}_total") for name in names] == ["5", "2", "2", "1"]
            admin.close()
            service.cancel()

    run(check())


def test_the_day_from_which_uses_are_known(run: Run, tmp_path: Path) -> None:
    """It is written down once, and again when somebody removes it or makes it unreadable."""
    given, path = Uses(tmp_path), "/api/v1/namespaces/kube-system/configmaps"
    name = "kube-apiserver-legacy-service-account-token-tracking"

    async def check() -> None:
        async with serving(**given.server) as server:
            admin, cache = Caller(server.ports[0]), server.cache
            if (await admin.call("GET", "/api/v1/namespaces/kube-system"))[0] == 404:
                await admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
            seen = cache.revision
            service = asyncio.create_task(given.uses.run(Client(LocalTransport(server.itself())), cache, lambda: None))
            await cache.reached(seen + 1)
            for change in ("", "soon", "2026-13-01", "2026-1-1"):
                given.clock.at += 86400
                seen = cache.revision
                if change:
                    patch = {"data": {"since": change}}
                    await admin.call("PATCH", f"{path}/{name}", patch, Content_Type="application/merge-patch+json")
                else:
                    await admin.call("DELETE", f"{path}/{name}")
                await cache.reached(seen + 2)
                _, found = await admin.call("GET", f"{path}/{name}")
                assert found["data"] == {"since": date(given.clock.now())}
            admin.close()
            service.cancel()

    run(check())


def test_extended_tokens(run: Run, tmp_path: Path) -> None:
    """One that should have been renewed is told, and how late it is; each token's id stands in the log when it is made
    and in the identity of whoever uses it."""
    given = Uses(tmp_path)
    pod = {"spec": {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "s"}, "metadata": {"name": "p"}}

    async def check() -> None:
        async with serving(**given.server) as server:
            admin, port = Caller(server.ports[0]), server.ports[0]
            await _account(admin)
            status, made = await admin.call("POST", "/api/v1/namespaces/default/pods", pod)
            assert status == 201, made
            ref = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
            body = {"spec": {"expirationSeconds": 3607, "boundObjectRef": ref}}
            status, made = await admin.call("POST", "/api/v1/namespaces/default/serviceaccounts/s/token", body)
            token = made["status"]["token"]
            claims = decode(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
            wanted = {"authentication.kubernetes.io/issued-credential-id": f"JTI={claims['jti']}"}
            assert given.notes("serviceaccounts/s/token") == wanted
            assert await _ask(port, token) == (201, "") and given.notes() == {}
            given.clock.at += 3607 + 30
            assert await _ask(port, token) == (201, "")
            text = "subject: system:serviceaccount:default:s, seconds after warning threshold: 30"
            assert given.notes() == {"authentication.k8s.io/stale-token": text}
            assert (given.count("valid_tokens_total"), given.count("stale_tokens_total")) == ("1", "1")
            admin.close()

    run(check())
