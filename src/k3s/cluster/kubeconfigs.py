"""Kubeconfig files that the server writes: the admin's with everything inside, the components' with paths.

Written as text: the layout is fixed, and every value is quoted.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from k3s.base import files
from k3s.cluster.certs import ADMIN, SERVER_CA, Certificates

# file below `<data-dir>/server/cred` -> certificate
_COMPONENTS = {
    "admin": ADMIN,
    "controller": "client-controller",
    "scheduler": "client-scheduler",
    "api-server": "client-kube-apiserver",
    "cloud-controller": "client-cloud-controller",
}


def admin(certificates: Certificates, url: str) -> str:
    """The kubeconfig for people: certificates inline; cluster, user and context all called `default`."""
    data = {name: base64.b64encode(certificates.read(name)).decode() for name in (SERVER_CA, ADMIN, f"{ADMIN}.key")}
    return _text(
        [("certificate-authority-data", data[SERVER_CA]), ("server", url)],
        [("client-certificate-data", data[ADMIN]), ("client-key-data", data[f"{ADMIN}.key"])],
        "default",
    )


def with_paths(url: str, authority: Path, cert: Path, key: Path) -> str:
    """A kubeconfig for a component, which names the files of its certificate."""
    return _text(
        [("certificate-authority", str(authority)), ("server", url)],
        [("client-certificate", str(cert)), ("client-key", str(key))],
        "local",
    )


def write_components(certificates: Certificates, folder: Path, url: str) -> None:
    """Writes the kubeconfigs of the server's components to `<data-dir>/server/cred`, mode 0600."""
    files.folder(folder)
    for name, leaf in _COMPONENTS.items():
        text = with_paths(url, certificates.path(SERVER_CA), certificates.path(leaf), certificates.path(f"{leaf}.key"))
        files.write_changed(folder / f"{name}.kubeconfig", text)


def write_admin(certificates: Certificates, path: Path, url: str, mode: int = 0o600) -> bool:
    """Writes the admin's kubeconfig; tells whether it changed."""
    return files.write_changed(path, admin(certificates, url), mode)


def _text(cluster: list[tuple[str, str]], user: list[tuple[str, str]], name: str) -> str:
    quoted = json.dumps(name) if not name.isalpha() else name
    lines = ["apiVersion: v1", "clusters:", "- cluster:"]
    lines += [f"    {key}: {_scalar(value)}" for key, value in cluster]
    lines += [f"  name: {quoted}", "contexts:", "- context:", f"    cluster: {quoted}", f"    user: {quoted}"]
    lines += [f"  name: {quoted}", f"current-context: {quoted}", "kind: Config", "preferences: {}", "users:"]
    lines += [f"- name: {quoted}", "  user:", *(f"    {key}: {_scalar(value)}" for key, value in user)]
    return "\n".join(lines) + "\n"


def _scalar(value: str) -> str:
    """A value as YAML; base64, paths and URLs without odd characters need no quotes."""
    plain = all(char.isalnum() or char in "+/=.-_:" for char in value) and not value.endswith(":")
    return value if (plain and value[:1].isalnum()) or (plain and value[:1] == "/") else json.dumps(value)
