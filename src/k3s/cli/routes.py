"""A running server, asked over its own routes by whoever holds its token."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k3s.cli.main import fail


class Server:
    """The server at `url` on this machine, whose state is in `data_dir` (empty: the default), with its token unless
    `token` is given."""

    def __init__(self, url: str, data_dir: str = "", token: str = "") -> None:
        from k3s.run.config import default_data_dir

        folder = Path(data_dir).absolute() if data_dir else default_data_dir(os.environ, os.geteuid() == 0)
        self.folder = folder / "server"
        self._url = url
        self._token = token

    def asked(self, doing: str, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of a route; ends the process when there is none, saying that `doing` cannot be done."""
        from k3s.api.object import decode, encode
        from k3s.cluster import tokens
        from k3s.cluster.fetch import Unreachable, fetch

        try:
            token = tokens.parse(self._token or (self.folder / "token").read_text())
            ca = (self.folder / "tls" / "server-ca.crt").read_bytes()
        except OSError as error:
            fail(
                f"Cannot read {error.filename}: {error.strerror}; run this on a server, as root, or give --data-dir", 1
            )
        except tokens.BadToken as error:
            fail(str(error), 1)
        pair = base64.b64encode(f"{tokens.SERVER_USER}:{token.secret}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}
        try:
            status, answer = asyncio.run(fetch(self._url, method, path, headers, encode(body), ca))
        except Unreachable as error:
            fail(str(error), 1)
        if status != 200:
            fail(f"Cannot {doing}: {answer.decode(errors='replace').strip()}", 1)
        found: dict[str, Any] = decode(answer)
        return found
