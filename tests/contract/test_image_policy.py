"""ImagePolicyWebhook against a real HTTP server on the loopback address: what it is asked, and what its answers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.clock import MovedClock
from tests.fakes.reader import FakeReader
from tests.unit.apiserver.admission_world import ACCOUNT, ADMIN, SPACE, pod

from k3s.api.errors import Forbidden
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import rbac_bootstrap
from k3s.apiserver.admission import defaults
from k3s.apiserver.admission.settings import SettingsError, settings
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Authorizer
from k3s.apiserver.nodeauthz import NodeAuthorizer
from k3s.apiserver.rbac import Rbac
from k3s.base.entropy import SeededEntropy

Answer = Callable[[Object], tuple[int, Any]]
_OLD = pod({"containers": [{"name": "c", "image": "old"}]})


class Policy:
    """A webhook, and the chain that asks it."""

    def __init__(self, folder: Path, **own: Any) -> None:
        self.folder, self.own = folder, own
        self.clock = MovedClock()
        self.asked: list[Object] = []
        self.answers: list[tuple[int, Any]] = []

    async def __aenter__(self) -> Policy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}/policy"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "x",
        }
        (self.folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        given = settings(["ImagePolicyWebhook"], (), written(self.folder, **self.own))
        reader = FakeReader([ACCOUNT, SPACE])
        authorizer = Authorizer(Rbac(reader), NodeAuthorizer(reader, rbac_bootstrap.node_rules()))
        self.chain = defaults.chain(reader, authorizer, self.clock, SeededEntropy(1), settings=given)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = next(int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length"))
                assert head.startswith("POST /policy HTTP/1.1\r\n")
                review = json.loads(await reader.readexactly(size))
                self.asked.append(review)
                status, said = self.answers.pop(0)
                data = json.dumps({**review, "status": said} if status == 200 else said).encode()
                lines = (
                    f"HTTP/1.1 {status} X",
                    "Content-Type: application/json",
                    f"Content-Length: {len(data)}",
                    "",
                    "",
                )
                writer.write("\r\n".join(lines).encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def ask(self, obj: Object, *answers: tuple[int, Any], **more: Any) -> AdmissionRequest:
        """Lets the chain judge a pod; the webhook answers so. Raises Forbidden."""
        self.answers = list(answers)
        operation, old, subresource = more.get("operation", "CREATE"), more.get("old"), more.get("subresource", "")
        request = AdmissionRequest(operation, builtin("v1", "Pod"), subresource, "a", "p", old, obj, ADMIN)
        later: Awaitable[None] = self.chain.validate(request)
        await later
        assert self.answers == [], "the webhook was asked less often than expected"
        return request


def written(folder: Path, **own: Any) -> str:
    """A configuration file with the plugin's fields."""
    policy = {"kubeConfigFile": str(folder / "kubeconfig"), **own}
    plugin = {"name": "ImagePolicyWebhook", "configuration": {"imagePolicy": policy}}
    whole = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]}
    (folder / "admission.yaml").write_text(json.dumps(whole))
    return str(folder / "admission.yaml")


YES, NO = (200, {"allowed": True}), (200, {"allowed": False, "reason": "too old"})


def test_what_is_asked(run: Any, tmp_path: Path) -> None:
    """Images, the annotations that are meant for it, the namespace; of ephemeral containers theirs alone."""

    async def steps() -> None:
        async with Policy(tmp_path) as policy:
            spec = {"initContainers": [{"name": "i", "image": "first"}], "containers": [{"name": "c", "image": "main"}]}
            notes = {"my.image-policy.k8s.io/ticket": "1", "other/note": "2"}
            await policy.ask(pod(spec, annotations=notes), YES)
            assert policy.asked[0]["apiVersion"] == "imagepolicy.k8s.io/v1alpha1"
            assert policy.asked[0]["kind"] == "ImageReview"
            assert policy.asked[0]["spec"] == {
                "containers": [{"image": "main"}, {"image": "first"}],
                "annotations": {"my.image-policy.k8s.io/ticket": "1"},
                "namespace": "a",
            }
            new = pod({"containers": [{"name": "c", "image": "new"}], "ephemeralContainers": [{"image": "debug"}]})
            await policy.ask(new, YES, operation="UPDATE", old=_OLD)
            await policy.ask(new, YES, operation="UPDATE", old=_OLD, subresource="ephemeralcontainers")
            assert [review["spec"] for review in policy.asked[1:]] == [
                {"containers": [{"image": "new"}], "namespace": "a"},
                {"containers": [{"image": "debug"}], "namespace": "a"},
            ]
            await policy.ask(new, operation="UPDATE", old=_OLD, subresource="status")

    run(steps())


def test_what_answers_do(run: Any, tmp_path: Path) -> None:
    """A refusal with and without a reason, notes for the audit log; upstream's words."""

    async def steps() -> None:
        async with Policy(tmp_path) as policy:
            with pytest.raises(Forbidden) as refused:
                await policy.ask(pod(), NO)
            start = 'pods "p" is forbidden: '
            assert refused.value.message == f"{start}image policy webhook backend denied one or more images: too old"
            policy.clock.at = 31
            with pytest.raises(Forbidden) as refused:
                await policy.ask(pod(), (200, {"allowed": False}))
            assert refused.value.message == f"{start}one or more images rejected by webhook backend"
            policy.clock.at = 62
            told = {"allowed": True, "auditAnnotations": {"checked-by": "me"}}
            found = await policy.ask(pod(), (200, told))
            assert found.audit["imagepolicywebhook.image-policy.k8s.io/checked-by"] == "me"

    run(steps())


def test_answers_are_kept_for_a_while(run: Any, tmp_path: Path) -> None:
    """Yes for allowTTL, no for denyTTL, by what was asked; -1 keeps none."""

    async def steps() -> None:
        async with Policy(tmp_path, allowTTL=60, denyTTL=-1) as policy:
            await policy.ask(pod(), YES)
            policy.clock.at = 59
            await policy.ask(pod())
            with pytest.raises(Forbidden):
                await policy.ask(pod({"containers": [{"name": "c", "image": "other"}]}), NO)
            with pytest.raises(Forbidden):
                await policy.ask(pod({"containers": [{"name": "c", "image": "other"}]}), NO)
            policy.clock.at = 60
            await policy.ask(pod(), YES)

    run(steps())


def test_no_answer(run: Any, tmp_path: Path) -> None:
    """What may be a moment's trouble is asked again; then defaultAllow decides, and the audit log is told."""
    broken = (500, {"kind": "Status", "message": "oops", "code": 500})

    async def steps() -> None:
        async with Policy(tmp_path, retryBackoff=1) as policy:
            await policy.ask(pod(), broken, broken, YES)
            policy.clock.at = 301
            with pytest.raises(Forbidden) as refused:
                await policy.ask(pod(), *[broken] * 5)
            assert refused.value.message == 'pods "p" is forbidden: oops'
            policy._server.close()
            await policy._server.wait_closed()
        async with Policy(tmp_path, defaultAllow=True) as policy:
            found = await policy.ask(pod(), (403, {"kind": "Status", "message": "no", "code": 403}))
            assert found.audit["imagepolicywebhook.image-policy.k8s.io/failed-open"] == "true"
            await policy.ask(pod(), YES)  # that it failed is not kept

    run(steps())


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"allowTTL": 1801}, "imagePolicy.allowTTL"),
        ({"denyTTL": 1}, "imagePolicy.denyTTL"),
        ({"retryBackoff": 300001}, "milliseconds"),
        ({"retryBackoff": "1s"}, "is no whole number"),
        ({"defaultAllow": "yes"}, "is not true or false"),
        ({"kubeConfigFile": "/none"}, "/none does not exist"),
        ({"kubeconfig": "x"}, "imagePolicy.kubeconfig: there is no such field"),
    ],
)
def test_wrong_configurations(tmp_path: Path, own: Any, says: str) -> None:
    """Each is told by its field when the server starts."""
    (tmp_path / "kubeconfig").write_text("{}")
    with pytest.raises(SettingsError, match=says):
        settings(["ImagePolicyWebhook"], (), written(tmp_path, **own))
    with pytest.raises(SettingsError, match=r"needs imagePolicy\.kubeConfigFile"):
        settings(["ImagePolicyWebhook"])
