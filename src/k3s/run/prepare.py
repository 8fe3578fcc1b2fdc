"""What has to exist before the server's parts are made: folders, certificates, tokens, kubeconfigs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from k3s.base import files
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.kubeconfig import Kubeconfig, render
from k3s.cluster import tokens
from k3s.cluster.certs import ADMIN, SERVER_CA, Certificates, Renewed, serving_names
from k3s.cluster.tokens import BadToken, Secrets
from k3s.run.config import ConfigError
from k3s.run.server import ServerConfig

# Kubeconfigs in server/cred, by certificate (spec 2.2).
_COMPONENTS = {
    "admin": ADMIN,
    "controller": "client-controller",
    "scheduler": "client-scheduler",
    "api-server": "client-kube-apiserver",
    "cloud-controller": "client-cloud-controller",
}


@dataclass(frozen=True, slots=True)
class AdminFile:
    """Where the admin kubeconfig goes, and who may read it."""

    path: Path
    mode: int = 0o600
    group: str = ""


async def prepare(
    config: ServerConfig,
    clock: Clock,
    entropy: Entropy,
    addresses: Sequence[str],
    sans: Sequence[str],
    token: str,
    agent_token: str,
    admin: AdminFile,
) -> tuple[Certificates, Secrets]:
    """Makes what is missing; a restart only reads. Raises ConfigError, OSError."""
    server = files.folder(config.server_dir)
    os.chmod(server, 0o700)
    names = serving_names(config.cluster_domain, config.service_ip, addresses, sans)
    certificates = Certificates(server / "tls", clock, names)
    await certificates.ensure()
    try:
        secrets = tokens.ensure(server, certificates.read(SERVER_CA), entropy, token, agent_token)
    except BadToken as error:
        raise ConfigError(f"Wrong value for --token: {error}") from error
    url = f"https://127.0.0.1:{config.port}"

    def write_kubeconfigs(renewed: Renewed) -> None:
        for name, certificate in _COMPONENTS.items():
            text = _kubeconfig(certificates, certificate, url)
            files.write_changed(server / "cred" / f"{name}.kubeconfig", text)
        _write_admin(admin, _kubeconfig(certificates, ADMIN, url))

    write_kubeconfigs(Renewed(()))
    certificates.on_renewed(write_kubeconfigs)
    return certificates, secrets


def _kubeconfig(certificates: Certificates, certificate: str, url: str) -> str:
    return render(
        Kubeconfig(
            server=url,
            ca_pem=certificates.read(SERVER_CA).decode(),
            cert_pem=certificates.read(certificate).decode(),
            key_pem=certificates.read(f"{certificate}.key").decode(),
        )
    )


def _write_admin(admin: AdminFile, text: str) -> None:
    admin.path.parent.mkdir(parents=True, exist_ok=True)
    files.write_changed(admin.path, text, admin.mode)
    if admin.group:
        import grp

        try:
            os.chown(admin.path, -1, grp.getgrnam(admin.group).gr_gid)
        except KeyError as error:
            raise ConfigError(
                f"Wrong value {admin.group!r} for --write-kubeconfig-group: there is no such group"
            ) from error
