"""A registry on the loopback that hands out the images of OCI archives: what pulls are tested against."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """Serves each archive's first image under a name such as `app:1`. Source: the OCI distribution specification."""

    def __init__(self, archives: Mapping[str, bytes]) -> None:
        self._blobs: dict[str, bytes] = {}
        self._tags: dict[str, bytes] = {}
        for name, archive in archives.items():
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                files = {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]
            digest = json.loads(files["index.json"])["manifests"][0]["digest"]
            self._tags[name] = files[f"blobs/{digest.replace(':', '/')}"]
            self._blobs |= {f"sha256:{path[13:]}": data for path, data in files.items() if path.startswith("blobs/")}

    def __enter__(self) -> Self:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """What stands before the names of its images."""
        return f"127.0.0.1:{self._server.server_port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        name, _, reference = request.path.removeprefix("/v2/").rpartition("/")
        found = self._blobs.get(reference) or self._tags.get(f"{name.removesuffix('/manifests')}:{reference}")
        request.send_response(200 if found is not None or request.path == "/v2/" else 404)
        content = found or b""
        request.send_header("Content-Type", _MANIFEST if "/manifests/" in request.path else "application/octet-stream")
        request.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)
