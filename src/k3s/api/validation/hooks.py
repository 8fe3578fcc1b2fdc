"""How a webhook is reached: by a URL, or by a service. Source: the API documentation of WebhookClientConfig."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from k3s.api import names
from k3s.api.validation.causes import Causes, invalid, required

Spec = Mapping[str, Any]
_BLOCK = re.compile(rb"-----BEGIN ([^-\n]+)-----\n(.*?)\n-----END \1-----", re.DOTALL)
_ROOTS = "unable to load root certificates: "
_FORM = "; desired format: https://host[/path]"


def client(at: str, config: Spec) -> Causes:
    """One of both, with all that it needs."""
    where, service = config.get("url"), config.get("service")
    if (where is None) == (service is None):
        yield required(at, "exactly one of url or service is required")
    elif where is not None:
        yield from url(f"{at}.url", where)
    else:
        yield from _service(f"{at}.service", service or {})


def bad_bundle(text: str) -> str:
    """Why certificates (base64 of PEM) cannot be used as authorities; empty when they can, or when there are none."""
    if not text:
        return ""
    from cryptography import x509

    blocks = list(_BLOCK.finditer(base64.b64decode(text)))
    if not blocks:
        return f"{_ROOTS}unable to parse bytes as PEM block"
    certificates = [block for block in blocks if block[1] == b"CERTIFICATE"]
    if not certificates:
        return f"{_ROOTS}no valid certificate authority data seen"
    for block in certificates:
        try:
            x509.load_pem_x509_certificate(block[0] + b"\n")
        except ValueError:
            continue
        return ""
    return f"{_ROOTS}failed to parse certificate: x509: malformed certificate"


def url(at: str, text: str) -> Causes:
    """An https URL of a host and perhaps a path."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        yield required(at, f'url must be a valid URL: parse "{text}": {error}{_FORM}')
        return
    if parts.scheme != "https":
        yield invalid(at, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    user, _, host = parts.netloc.rpartition("@")
    if not host:
        yield invalid(at, host, f"host must be specified{_FORM}")
    if "@" in parts.netloc:
        yield invalid(at, user, "user information is not permitted in the URL")
    if parts.fragment:
        yield invalid(at, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield invalid(at, parts.query, "query parameters are not permitted in the URL")


def _service(at: str, service: Spec) -> Causes:
    # The reference server takes one for the other here: who leaves out the namespace is asked for the name.
    for missing, named in (("namespace", "name"), ("name", "namespace")):
        if not service.get(missing):
            yield required(f"{at}.{named}", f"service {named} is required")
    number = service.get("port", 443)
    if names.port_number(number):
        yield invalid(f"{at}.port", number, "port is not valid: " + ", ".join(names.port_number(number)))
    path = service.get("path") or ""
    if path in ("", "/"):
        return
    if path == "//":
        yield invalid(f"{at}.path", path, "segment[0] may not be empty")
        return
    if not path.startswith("/"):
        yield invalid(f"{at}.path", path, "must start with a '/'")
    for i, step in enumerate(path[1:].removesuffix("/").split("/")):
        for problem in [f": {p}" for p in names.dns_subdomain(step)] if step else [" may not be empty"]:
            yield invalid(f"{at}.path", path, f"segment[{i}]{problem}")
