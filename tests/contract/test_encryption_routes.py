"""Who may see and change the encryption of Secrets over the supervisor's routes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from k3s.api.object import Object, decode, encode
from k3s.cluster.encryption import WrongStage
from k3s.cluster.supervisor import Answer, Supervisor


class Sender(NamedTuple):
    """Who asks."""

    name: str
    groups: tuple[str, ...]


SERVER, NODE = Sender("server", ("k3s:server",)), Sender("node", ("k3s:agent",))


class Encryption:
    """One that knows a single step."""

    def status(self) -> Object:
        """Its state."""
        return {"enable": True, "stage": "start"}

    async def change(self, asked: Object) -> Object:
        """A step."""
        if asked.get("stage") != "prepare":
            raise WrongStage("not now")
        return {"stage": "prepare"}


def routes(encryption: Encryption | None) -> Supervisor:
    nothing: Any = None
    return Supervisor(
        nothing,
        nothing,
        config=nothing,
        servers=nothing,
        is_ready=nothing,
        check_password=nothing,
        encryption=encryption,
    )


@pytest.mark.parametrize(
    ("user", "method", "part", "body", "status", "told"),
    [
        (SERVER, "GET", "status", {}, 200, {"enable": True, "stage": "start"}),
        (NODE, "GET", "status", {}, 403, "node is no server"),
        (None, "GET", "status", {}, 401, "Unauthorized"),
        (SERVER, "PUT", "config", {"stage": "prepare"}, 200, {"stage": "prepare"}),
        (SERVER, "PUT", "config", {"stage": "rotate"}, 400, "not now"),
        (SERVER, "PUT", "config", [], 400, "not now"),
        (NODE, "PUT", "config", {"stage": "prepare"}, 403, "node is no server"),
        (SERVER, "GET", "config", {}, 405, "method not allowed"),
        (SERVER, "PUT", "status", {}, 405, "method not allowed"),
    ],
)
def test_only_servers(run: Any, user: Any, method: str, part: str, body: Any, status: int, told: Any) -> None:
    """Nodes have no business with keys; a step that does not come next is refused with its reason."""
    answer: Answer = run(routes(Encryption()).handle(method, f"/v1-k3s/encrypt/{part}", {}, user, encode(body)))
    assert answer.status == status
    assert told in answer.body.decode() if isinstance(told, str) else told == decode(answer.body)


def test_without_encryption(run: Any) -> None:
    """The status is empty, and a step says how to get it."""
    assert run(routes(None).handle("GET", "/v1-k3s/encrypt/status", {}, SERVER, b"")).body == b"{}"
    answer = run(routes(None).handle("PUT", "/v1-k3s/encrypt/config", {}, SERVER, b"{}"))
    assert (answer.status, b"--secrets-encryption" in answer.body) == (400, True)
