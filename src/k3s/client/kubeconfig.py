"""Kubeconfig files: where a cluster is, whom to trust and who one is. Pure: text in, text out.

Format: the Config kind of client-go's clientcmd API, version v1.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from k3s.api.object import encode


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One cluster and one identity. Of each `_pem` and `_file` pair at most one is set; PEM is text."""

    server: str
    ca_pem: str = ""
    ca_file: str = ""
    cert_pem: str = ""
    cert_file: str = ""
    key_pem: str = ""
    key_file: str = ""
    token: str = ""
    namespace: str = ""


def render(config: Kubeconfig) -> str:
    """The file's text; cluster, user and context are all called `default`, as k3s names them."""
    cluster = [_inline("certificate-authority", config.ca_pem, config.ca_file), ("server", config.server)]
    context = [("cluster", "default"), ("namespace", config.namespace), ("user", "default")]
    user = [
        _inline("client-certificate", config.cert_pem, config.cert_file),
        _inline("client-key", config.key_pem, config.key_file),
        ("token", config.token),
    ]
    lines = ["apiVersion: v1", "clusters:", "- cluster:", *_fields(cluster), "  name: default"]
    lines += ["contexts:", "- context:", *_fields(context), "  name: default"]
    lines += ["current-context: default", "kind: Config", "preferences: {}"]
    fields = _fields(user)
    lines += ["users:", "- name: default", "  user:" if fields else "  user: {}", *fields]
    return "\n".join(lines) + "\n"


def _inline(field: str, pem: str, file: str) -> tuple[str, str]:
    return (f"{field}-data", base64.b64encode(pem.encode()).decode()) if pem else (field, file)


def _fields(fields: list[tuple[str, str]]) -> list[str]:
    return [f"    {name}: {_scalar(value)}" for name, value in fields if value]


def _scalar(value: str) -> str:
    """Plain where YAML reads it back as the same text, quoted like JSON (which YAML contains) elsewhere."""
    plain = value[0].isalpha() and all(c.isalnum() or c in "+/=._-[]:" for c in value) and value[-1] != ":"
    reserved = value.lower() in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return value if plain and not reserved else encode(value).decode()


def load(text: str, folder: PurePath | None = None) -> Kubeconfig:
    """The current context of a kubeconfig; relative paths in it are relative to `folder`, where the file is.

    Raises ValueError, which names the field.
    """
    import yaml  # heavy, and only a few commands read a kubeconfig

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"Cannot read the kubeconfig: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("Cannot read the kubeconfig: it holds no mapping")
    context = _named(document, "contexts", "context", document.get("current-context", ""))
    cluster = _named(document, "clusters", "cluster", context.get("cluster", ""))
    user = _named(document, "users", "user", context.get("user", "")) if context.get("user") else {}
    if not cluster.get("server"):
        raise ValueError("Cannot use the kubeconfig: clusters[].cluster.server is missing")
    return Kubeconfig(
        server=str(cluster["server"]),
        ca_pem=_pem(cluster, "certificate-authority-data"),
        ca_file=_file(cluster, "certificate-authority", folder),
        cert_pem=_pem(user, "client-certificate-data"),
        cert_file=_file(user, "client-certificate", folder),
        key_pem=_pem(user, "client-key-data"),
        key_file=_file(user, "client-key", folder),
        token=str(user.get("token") or ""),
        namespace=str(context.get("namespace") or ""),
    )


def _named(document: dict[str, Any], plural: str, field: str, name: str) -> dict[str, Any]:
    for item in document.get(plural) or []:
        if isinstance(item, dict) and item.get("name") == name:
            return item.get(field) or {}
    raise ValueError(f"Cannot use the kubeconfig: {plural} has no entry named {name!r}")


def _pem(fields: dict[str, Any], name: str) -> str:
    try:
        return base64.b64decode(fields.get(name) or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot use the kubeconfig: {name} is not base64 of PEM text: {error}") from error


def _file(fields: dict[str, Any], name: str, folder: PurePath | None) -> str:
    # The inline form wins where both are given, as with kubectl.
    if not fields.get(name) or fields.get(f"{name}-data"):
        return ""
    path = str(fields[name])
    return str(folder / path) if folder is not None else path
