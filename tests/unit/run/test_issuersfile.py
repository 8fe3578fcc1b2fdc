"""The file with the issuers, changed while a server runs, with issuers over TLS."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.fakes.api import Pki
from tests.fakes.issuer import Issuer, over_tls
from tests.fakes.server import Caller, serving

from k3s.apiserver import tokensources
from k3s.apiserver.authn import Authenticator
from k3s.apiserver.tokensources import Sources
from k3s.base.clock import SystemClock
from k3s.base.metrics import Registry
from k3s.run.issuersfile import IssuersFile

Run = Callable[[Any], Any]
_HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"


def _config(pki: Pki, *urls: str, prefix: str = "", more: str = "") -> str:
    authority = "".join(f"      {line}\n" for line in pki.ca.read_text().splitlines())
    issuers = "".join(
        f"- issuer:\n    url: {url}\n    audiences: [k8s]\n    certificateAuthority: |\n{authority}"
        f"  claimMappings: {{username: {{claim: sub, prefix: '{prefix}'}}}}\n"
        for url in urls
    )
    return f"{_HEAD}jwt:\n{issuers}{more}" if urls else f"{_HEAD}{more}"


async def _who(port: int, token: str) -> str:
    """The name of a token's user, or the status of the refusal."""
    caller = Caller(port, token)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    status, found = await caller.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    caller.close()
    return str(found["status"]["userInfo"]["username"]) if status == 201 else str(status)


class Followed:
    """A server whose issuers come from a file; `outcome` waits for what becomes of a change."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.metrics = path, SystemClock(), Registry()
        given = tokensources.settings({"authentication-config": str(path)})
        self.sources = Sources(given, self.clock)
        self.authenticator: Authenticator | None = None
        self.file = IssuersFile(given, self.sources, self._use, self.clock)
        self.file.measure(self.metrics, "server")
        self._outcomes: asyncio.Queue[str] = asyncio.Queue()
        told = self.file._told
        self.file._told = lambda status: (told(status), self._outcomes.put_nowait(status))[1]

    def _use(self) -> None:
        assert self.authenticator is not None
        self.authenticator.use(self.sources.all())

    async def becomes(self, text: str) -> str:
        """Writes the file as editors do, by a new one in its place; success or failure."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)
        return await asyncio.wait_for(self._outcomes.get(), 20)


def _checked(run: Run, tmp_path: Path, steps: Callable[[Followed, int, Issuer, Issuer, Pki], Awaitable[None]]) -> None:
    """Runs the steps with a server and two issuers, of which the file names the first."""

    async def check() -> None:
        pki, one, two = Pki(tmp_path), Issuer(), Issuer()
        async with over_tls(one, pki) as url, over_tls(two, pki):
            path = tmp_path / "authentication.yaml"
            path.write_text(_config(pki, url))
            followed = Followed(path)
            made: list[Authenticator] = []
            async with serving(sources=followed.sources.all(), made=made) as server:
                (followed.authenticator,) = made
                service = asyncio.create_task(followed.file.run(lambda: None))
                await steps(followed, server.ports[0], one, two, pki)
                service.cancel()

    run(check())


def test_issuers_come_and_go(run: Run, tmp_path: Path) -> None:
    """Their tokens count from the change on, and no longer after it, whatever was known of them."""

    async def steps(followed: Followed, port: int, one: Issuer, two: Issuer, pki: Pki) -> None:
        first, second = (issuer.token(exp=4e9) for issuer in (one, two))
        assert (await _who(port, first), await _who(port, second)) == ("jane", "401")
        asked = len(one.fetched)
        assert await followed.becomes(_config(pki, one.url, two.url)) == "success"
        assert (await _who(port, first), await _who(port, second)) == ("jane", "jane")
        assert len(one.fetched) == asked, "who stays keeps the keys"
        assert await followed.becomes(_config(pki, two.url, prefix="two:")) == "success"
        assert (await _who(port, first), await _who(port, second)) == ("401", "two:jane")
        assert await followed.becomes(_config(pki)) == "success"
        assert (await _who(port, first), await _who(port, second)) == ("401", "401")
        (info,) = [line for line in followed.metrics.text().splitlines() if "last_config_info{" in line]
        assert hashlib.sha256(_config(pki).encode()).hexdigest() in info
        counted = [line for line in followed.metrics.text().splitlines() if "reloads_total{" in line]
        assert len(counted) == 1 and counted[0].endswith('status="success"} 3')

    _checked(run, tmp_path, steps)


def test_what_cannot_be_used_changes_nothing(run: Run, tmp_path: Path, caplog: Any) -> None:
    """A broken file, an issuer that does not answer, another rule for anonymous users: the log says why."""

    async def steps(followed: Followed, port: int, one: Issuer, two: Issuer, pki: Pki) -> None:
        token = one.token(exp=4e9)
        bad = _config(pki, one.url).replace("[k8s]", "[]")
        for text, why in (
            ("{", "the authentication configuration is no YAML"),
            (bad, "jwt[0].issuer.audiences: Required value"),
            (_config(pki, one.url, more="anonymous: {enabled: true}\n"), "anonymous: Forbidden: changed from initial"),
        ):
            assert await followed.becomes(text) == "failure"
            assert why in caplog.text and "the former configuration stays in use" in caplog.text
            assert await _who(port, token) == "jane"
        two.down = True
        assert await followed.becomes(_config(pki, two.url)) == "failure"
        assert f"the keys of {two.url} cannot be fetched" in caplog.text
        assert await _who(port, token) == "jane"
        two.down = False
        assert await followed.becomes(_config(pki, two.url, prefix="two:")) == "success"
        assert (await _who(port, token), await _who(port, two.token(exp=4e9))) == ("401", "two:jane")

    _checked(run, tmp_path, steps)
