"""What has to exist before the server's parts are made: folders, certificates, tokens, kubeconfigs."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
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
from k3s.run.config import CannotStart, ConfigError
from k3s.run.lock import hold
from k3s.run.serverconfig import ServerConfig

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
    server = config.server_dir
    bound = () if ipaddress.ip_address(config.bind_address).is_unspecified else (config.bind_address,)
    names = serving_names(config.cluster_domain, config.service_ip, (*addresses, *bound), sans)
    certificates = Certificates(server / "tls", clock, names)
    await certificates.ensure()
    try:
        _check_token(server, token)
        secrets = tokens.ensure(server, certificates.read(SERVER_CA), entropy, token, agent_token)
    except BadToken as error:
        raise ConfigError(f"Wrong value for --token or --agent-token: {error}") from error
    url = config.local_url

    def write_kubeconfigs(renewed: Renewed) -> None:
        for name, certificate in _COMPONENTS.items():
            text = _kubeconfig(certificates, certificate, url)
            files.write_changed(server / "cred" / f"{name}.kubeconfig", text)
        _write_admin(admin, _kubeconfig(certificates, ADMIN, url))

    write_kubeconfigs(Renewed(()))
    certificates.on_renewed(write_kubeconfigs)
    return certificates, secrets


def _check_token(server: Path, token: str) -> None:
    """Refuses a token that is not this cluster's: nodes that joined with the old one would be shut out."""
    known = tokens.read(server)
    if token and known is not None and tokens.parse(token).secret != known.server:
        raise ConfigError(
            f"Wrong value for --token: the cluster in {server} was made with another token, see {server / 'token'}; "
            "leave --token out, or use that one"
        )


def claim(config: ServerConfig) -> int:
    """Makes sure that this is the only server of its data folder and that its port is free.

    Answers the descriptor that holds the folder's lock: it has to stay open. Raises ConfigError, CannotStart.
    """
    try:
        os.chmod(files.folder(config.server_dir), 0o700)
        lock = hold(config.server_dir)
    except OSError as error:
        raise ConfigError(
            f"Wrong value {str(config.data_dir)!r} for --data-dir: {error.strerror} ({error.filename}); "
            "name a folder that may be written, or run as root"
        ) from error
    if lock is None:
        raise CannotStart(
            f"Cannot start: another k3s server works on {config.data_dir}; stop it, or use another --data-dir"
        )
    try:
        _check_port(config.bind_address, config.port)
    except (CannotStart, ConfigError):
        os.close(lock)
        raise
    return lock


def _check_port(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address, port))
            made.listen()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                why = f"Wrong value {address!r} for --bind-address: this machine has no such address; name one it has"
                raise ConfigError(why) from error
            if error.errno == errno.EACCES:
                why = f"Wrong value {port} for --https-listen-port: ports below 1024 need root; use a higher one"
                raise ConfigError(why) from error
            raise CannotStart(
                f"Cannot listen on {address} port {port}: {error.strerror}; stop the program that listens there "
                f"(ss -ltnp 'sport = :{port}' names it), or use another --https-listen-port"
            ) from error


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
    try:
        admin.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_changed(admin.path, text, admin.mode)
    except OSError as error:
        raise ConfigError(
            f"Wrong value {str(admin.path)!r} for --write-kubeconfig: {error.strerror}; name a file that may be written"
        ) from error
    if admin.group:
        import grp

        try:
            os.chown(admin.path, -1, grp.getgrnam(admin.group).gr_gid)
        except KeyError as error:
            raise ConfigError(
                f"Wrong value {admin.group!r} for --write-kubeconfig-group: there is no such group"
            ) from error
