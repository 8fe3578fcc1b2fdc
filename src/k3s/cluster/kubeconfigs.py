"""Kubeconfig files that the server writes: the admin's with everything inside, the components' with paths."""

from __future__ import annotations

from pathlib import Path

from k3s.base import files
from k3s.client.kubeconfig import Kubeconfig, render
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
    """The kubeconfig for people, with the certificates inside."""
    ca, cert, key = (certificates.read(name).decode() for name in (SERVER_CA, ADMIN, f"{ADMIN}.key"))
    return render(Kubeconfig(url, ca_pem=ca, cert_pem=cert, key_pem=key))


def with_paths(url: str, authority: Path, cert: Path, key: Path) -> str:
    """A kubeconfig for a component, which names the files of its certificate."""
    return render(Kubeconfig(url, ca_file=str(authority), cert_file=str(cert), key_file=str(key)))


def write_components(certificates: Certificates, folder: Path, url: str) -> None:
    """Writes the kubeconfigs of the server's components to `<data-dir>/server/cred`, mode 0600."""
    files.folder(folder)
    for name, leaf in _COMPONENTS.items():
        text = with_paths(url, certificates.path(SERVER_CA), certificates.path(leaf), certificates.path(f"{leaf}.key"))
        files.write_changed(folder / f"{name}.kubeconfig", text)


def write_admin(certificates: Certificates, path: Path, url: str, mode: int = 0o600) -> bool:
    """Writes the admin's kubeconfig; tells whether it changed."""
    return files.write_changed(path, admin(certificates, url), mode)
