"""`k3s secrets-encrypt`: encryption of Secrets at rest, asked of and changed on the server that runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from k3s.cli.routes import Server

_STATUS, _CONFIG = "/v1-k3s/encrypt/status", "/v1-k3s/encrypt/config"
# Word -> (what is sent, what is said when it is done).
_STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "enable": ({"enable": True}, "secrets-encryption enabled"),
    "disable": ({"enable": False}, "secrets-encryption disabled"),
    "prepare": ({"stage": "prepare"}, "prepare completed successfully"),
    "rotate": ({"stage": "rotate"}, "rotate completed successfully"),
    "reencrypt": ({"stage": "reencrypt_request"}, "reencryption started"),
    "rotate-keys": ({"stage": "rotate_keys"}, "keys rotated, reencryption started"),
}


def main(args: Sequence[str]) -> int:
    """Answers the exit code."""
    given = _parser().parse_args(args)
    server = Server(given.server, given.data_dir, given.token)
    if given.step == "status":
        state = server.asked(given.step, "GET", _STATUS, {})
        print(_json(state) if given.output == "json" else table(state), end="")
        return 0
    body, said = _STEPS[given.step]
    server.asked(given.step, "PUT", _CONFIG, {**body, "force": given.force, "skip": given.skip})
    print(said)
    return 0


def table(state: dict[str, Any]) -> str:
    """The state as text."""
    if state.get("enable") is None:
        return "Encryption Status: Disabled, no configuration file found\n"
    lines = [f"Encryption Status: {'Enabled' if state['enable'] else 'Disabled'}"]
    lines.append(f"Current Rotation Stage: {state['stage']}")
    lines += ["Server Encryption Hashes: All hashes match", ""]
    rows = [(" *", *state["activekey"].split(" ", 1))] if state.get("activekey") else []
    rows += [("", *key.split(" ", 1)) for key in state.get("inactivekeys") or ()]
    rows = [("Active", "Key Type", "Name"), ("------", "--------", "----"), *rows]
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(2)]
    lines += [f"{row[0]:<{widths[0]}}{row[1]:<{widths[1]}}{row[2]}" for row in rows]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="k3s secrets-encrypt", description=__doc__)
    parser.add_argument("step", choices=["status", *_STEPS])
    parser.add_argument("-d", "--data-dir", default="", help="folder of all state")
    parser.add_argument("-s", "--server", default="https://127.0.0.1:6443", help="where the server listens")
    parser.add_argument("-t", "--token", default=os.environ.get("K3S_TOKEN", ""), help="the server's token")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.add_argument("-f", "--force", action="store_true", help="do a step out of turn")
    parser.add_argument("--skip", action="store_true", help="reencrypt: keep the keys that are not used any more")
    return parser


def _json(state: dict[str, Any]) -> str:
    import json

    return json.dumps(state, indent=2) + "\n"
