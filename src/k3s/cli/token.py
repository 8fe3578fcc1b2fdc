"""`k3s token`: bootstrap tokens, with which agents join for a while, over the API; and the exchange of the own token.

Source: the `k3s token` page of k3s' documentation, "Authenticating with Bootstrap Tokens" in the Kubernetes one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from k3s.api import times
from k3s.api.errors import AlreadyExists, ApiError, NotFound, OutcomeUnknown
from k3s.api.object import Object
from k3s.base.clock import SystemClock
from k3s.base.entropy import Entropy, SystemEntropy
from k3s.cli.main import fail
from k3s.cli.routes import Server

if TYPE_CHECKING:
    from k3s.client.client import Client
    from k3s.client.kubeconfig import Kubeconfig

SPACE, TYPE, PREFIX = "kube-system", "bootstrap.kubernetes.io/token", "bootstrap-token-"
GROUP = "system:bootstrappers:k3s:default-node-token"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_USAGES = ("authentication", "signing")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEADS = ("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")


def main(args: Sequence[str]) -> int:
    """Answers the exit code."""
    given = _parser().parse_args(args)
    if given.step == "generate":
        print(generate(SystemEntropy()))
        return 0
    if given.step == "rotate":
        server = Server(given.server, given.data_dir, given.token)
        server.asked("rotate the token", "PUT", "/v1-k3s/token", {"newToken": given.new_token})
        print(f"Token rotated, restart k3s nodes with new token; it is in {server.folder / 'token'}")
        return 0
    config = _kubeconfig(given.kubeconfig)
    try:
        return asyncio.run(_run(given, config))
    except (ApiError, OutcomeUnknown, OSError) as error:
        fail(f"Cannot {given.step} tokens: {error}", 1)


async def _run(given: argparse.Namespace, config: Kubeconfig) -> int:
    from k3s.client.client import Client
    from k3s.client.https import from_kubeconfig

    transport = from_kubeconfig(config)
    client, now = Client(transport), SystemClock().now()
    try:
        if given.step == "create":
            print(await _create(client, given, config, now))
        elif given.step == "delete":
            for name in given.tokens:
                await _delete(client, name)
        else:
            found = await _listed(client)
            print(shown(found, given.output) if given.output != "text" else table(found, now), end="")
    finally:
        await transport.close()
    return 0


async def _create(client: Client, given: argparse.Namespace, config: Kubeconfig, now: float) -> str:
    from k3s.api.kinds import builtin
    from k3s.cluster import tokens

    token = given.token or generate(SystemEntropy())
    made = secret(
        token, given.description, _list(given.groups) or [GROUP], _list(given.usages) or _USAGES, _ttl(given.ttl), now
    )
    try:
        await client.create(builtin("v1", "Secret"), made)
    except AlreadyExists:
        fail(
            f"Cannot create the token: a token with id {token[:6]!r} already exists; delete it, or leave the token out",
            1,
        )
    ca = config.ca_pem.encode() if config.ca_pem else Path(config.ca_file).read_bytes()
    return tokens.full(token, "", ca)


async def _delete(client: Client, name: str) -> None:
    from k3s.api.kinds import builtin

    match = _TOKEN.fullmatch(name.rpartition("::")[2])
    id = match[1] if match else name
    if not re.fullmatch(r"[a-z0-9]{6}", id):
        fail(f"Cannot delete {name[:6]!r}: give a token, or its id of six letters and digits")
    try:
        await client.delete(builtin("v1", "Secret"), SPACE, f"{PREFIX}{id}")
    except NotFound:
        fail(f"Cannot delete the token {id!r}: there is none; see k3s token list", 1)
    print(f'bootstrap token "{id}" deleted')


async def _listed(client: Client) -> list[Object]:
    from k3s.api.kinds import builtin

    found = await client.list(builtin("v1", "Secret"), SPACE, fields=f"type={TYPE}")
    return [row for obj in found.items if (row := of_secret(obj)) is not None]


def generate(entropy: Entropy) -> str:
    """A new token: id, full stop, secret."""
    letters = "".join(_LETTERS[byte % 36] for byte in entropy.secret(200) if byte < 252)[:22]
    return f"{letters[:6]}.{letters[6:]}"


def secret(
    token: str, description: str, groups: Sequence[str], usages: Sequence[str], ttl_s: float, now: float
) -> Object:
    """The Secret that makes a token good; `ttl_s` 0 for ever. Ends the process for what no token may have."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        fail("Cannot use the token: it has to be six letters or digits, a full stop, and sixteen, all in lower case")
    for group in groups:
        if not _GROUP.fullmatch(group):
            fail(f"Wrong value {group!r} for --groups: use names that begin with system:bootstrappers:")
    if unknown := sorted(set(usages) - set(_USAGES)):
        fail(f"Wrong value {unknown[0]!r} for --usages: use {' and '.join(_USAGES)}")
    data = {"token-id": match[1], "token-secret": match[2], **({"description": description} if description else {})}
    if ttl_s:
        data["expiration"] = times.format(now + ttl_s)
    data |= {f"usage-bootstrap-{usage}": "true" for usage in usages}
    if groups:
        data["auth-extra-groups"] = ",".join(groups)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{PREFIX}{match[1]}", "namespace": SPACE},
        "type": TYPE,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
    }


def of_secret(obj: Object) -> Object | None:
    """What a Secret says of a token; None when it is none that can be read."""
    try:
        data = {key: base64.b64decode(text).decode() for key, text in (obj.get("data") or {}).items()}
    except ValueError:
        return None
    if not data.get("token-id") or not data.get("token-secret"):
        return None
    found: Object = {"token": f"{data['token-id']}.{data['token-secret']}"}
    found |= {
        key: data[name] for key, name in (("description", "description"), ("expires", "expiration")) if data.get(name)
    }
    usages = sorted(usage for usage in _USAGES if data.get(f"usage-bootstrap-{usage}") == "true")
    groups = [group for group in data.get("auth-extra-groups", "").split(",") if group]
    return found | ({"usages": usages} if usages else {}) | ({"groups": groups} if groups else {})


def table(found: Sequence[Object], now: float) -> str:
    """The tokens as text."""
    rows = [
        (
            one["token"],
            _left(one.get("expires", ""), now),
            one.get("expires", "<never>"),
            ",".join(one.get("usages") or ()) or "<none>",
            one.get("description", "<none>"),
            ",".join(one.get("groups") or ()) or "<none>",
        )
        for one in found
    ]
    widths = [max(len(row[at]) for row in (_HEADS, *rows)) + 3 for at in range(len(_HEADS) - 1)]
    lines = [
        "".join(f"{text:<{width}}" for text, width in zip(row, [*widths, 0], strict=True)) for row in (_HEADS, *rows)
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def shown(found: Sequence[Object], form: str) -> str:
    """The tokens as JSON or YAML."""
    if form == "yaml":
        import yaml

        return str(yaml.safe_dump(list(found), sort_keys=False))
    import json

    return json.dumps(list(found), indent=2) + "\n"


def _left(expires: str, now: float) -> str:
    """How long a token is good, in the largest unit that fits."""
    if not expires:
        return "<forever>"
    try:
        seconds = int(times.parse(expires) - now)
    except times.TimeError:
        return "<invalid>"
    if seconds < 0:
        return "<invalid>"
    units = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"))
    return next((f"{seconds // size}{unit}" for size, unit in units if seconds >= size), f"{seconds}s")


def _ttl(text: str) -> float:
    try:
        seconds = times.duration(text)
    except times.TimeError as error:
        fail(f"Wrong value {text!r} for --ttl: use a duration such as 24h, or 0 for ever ({error})")
    if seconds < 0:
        fail(f"Wrong value {text!r} for --ttl: use a duration such as 24h, or 0 for ever")
    return seconds


def _list(given: Sequence[str]) -> list[str]:
    return [item.strip() for text in given for item in text.split(",") if item.strip()]


def _kubeconfig(given: str) -> Kubeconfig:
    from k3s.cli.kubectl import kubeconfig
    from k3s.client.kubeconfig import load

    path = given or os.environ.get("KUBECONFIG", "") or kubeconfig()
    if not path:
        fail("Cannot find a kubeconfig: run this on a server, or give --kubeconfig", 1)
    try:
        return load(Path(path).read_text(), Path(path).parent)
    except (OSError, ValueError) as error:
        fail(f"Cannot use the kubeconfig {path}: {error}; run this on a server, as root, or give --kubeconfig", 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="k3s token", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    create = steps.add_parser("create", help="make a token and print it as agents are given it")
    create.add_argument("token", nargs="?", default="", help="the token (default: a new one)")
    create.add_argument("--description", default="", help="what it is for")
    create.add_argument("--groups", action="append", default=[], help=f"extra groups of its user (default: {GROUP})")
    create.add_argument("--ttl", default="24h", help="how long it is good; 0 for ever")
    create.add_argument("--usages", action="append", default=[], help="signing, authentication (default: both)")
    delete = steps.add_parser("delete", help="remove tokens")
    delete.add_argument("tokens", nargs="+", help="tokens, or their ids")
    steps.add_parser("generate", help="print a new token that nobody knows yet")
    listed = steps.add_parser("list", help="list the tokens")
    listed.add_argument("-o", "--output", choices=["text", "json", "yaml"], default="text")
    rotate = steps.add_parser("rotate", help="exchange the token with which servers and agents join")
    rotate.add_argument("-t", "--token", default=os.environ.get("K3S_TOKEN", ""), help="the present token")
    rotate.add_argument("--new-token", default="", help="the one that replaces it (default: a random one)")
    rotate.add_argument("-s", "--server", default="https://127.0.0.1:6443", help="where the server listens")
    rotate.add_argument("-d", "--data-dir", default="", help="folder of all state")
    for step in (create, delete, listed):
        step.add_argument(
            "--kubeconfig", default="", help="the cluster (default: KUBECONFIG, or that of the server here)"
        )
    return parser
