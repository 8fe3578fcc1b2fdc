"""The cluster token: what a node shows to join, and by what it recognises the cluster it joins.

A full token is `K10<sha256 of the server CA>::<user>:<secret>`; a short one only the secret, and then the server is
taken at its word. Source: the "token" page of k3s' documentation.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from k3s.base import files
from k3s.base.entropy import Entropy

SERVER_USER, AGENT_USER = "server", "node"
SERVER_GROUP, AGENT_GROUP = "k3s:server", "k3s:agent"
_FULL = re.compile(r"K10([0-9a-f]{64})?::(.*)", re.DOTALL)
_BOOTSTRAP = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class BadToken(ValueError):
    """A token that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token; `ca_hash` is empty for a short one, `user` for a short one or a bootstrap token."""

    secret: str
    user: str = ""
    ca_hash: str = ""

    @property
    def is_bootstrap(self) -> bool:
        """Whether the secret is a Kubernetes bootstrap token, which is sent as bearer token."""
        return _BOOTSTRAP.fullmatch(self.secret) is not None

    def __repr__(self) -> str:
        return f"Token(user={self.user!r}, ca_hash={self.ca_hash[:8]!r})"


def parse(text: str) -> Token:
    """Reads a short or a full token; raises BadToken."""
    text = text.strip()
    if not text:
        raise BadToken("Cannot use the token: it is empty; give --token, --token-file or K3S_TOKEN")
    if not text.startswith("K10"):
        return Token(text)
    match = _FULL.fullmatch(text)
    if match is None or not match[2]:
        raise BadToken("Cannot use the token: it begins with K10 but is not K10<64 hex digits>::<user>:<secret>")
    ca_hash, rest = match[1] or "", match[2]
    if _BOOTSTRAP.fullmatch(rest):
        return Token(rest, "", ca_hash)
    user, colon, secret = rest.partition(":")
    if not colon or not secret:
        raise BadToken("Cannot use the token: nothing follows the user name; it should end in <user>:<secret>")
    return Token(secret, user, ca_hash)


def full(secret: str, user: str, ca: bytes) -> str:
    """The full token for a secret; one that is already full is made anew for this CA."""
    if _BOOTSTRAP.fullmatch(secret):
        return f"K10{ca_hash(ca)}::{secret}"
    return f"K10{ca_hash(ca)}::{user}:{secret}"


def ca_hash(ca: bytes) -> str:
    """What a full token says of the server CA: SHA-256 of the PEM text, or of the root (DER) when it is a chain."""
    certs = _PEM.findall(ca)
    if len(certs) > 1:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certs[-1].decode())).hexdigest()
    return hashlib.sha256(ca).hexdigest()


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a cluster: joining servers show the first, agents either."""

    server: str
    agent: str

    def passwords(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Accepted secrets and groups by user name, for the authenticator of the supervisor routes."""
        return {
            SERVER_USER: ((self.server,), (SERVER_GROUP,)),
            AGENT_USER: ((self.agent, self.server), (AGENT_GROUP,)),
        }

    def __repr__(self) -> str:
        return "Secrets(***)"


def ensure(server: Path, ca: bytes, entropy: Entropy, token: str = "", agent_token: str = "") -> Secrets:
    """The cluster's secrets: as given, else as on disk, else new; writes the token files and the passwd file.

    `server` is `<data-dir>/server`. Raises BadToken when a full token names another CA.
    """
    known = read(server)
    secret = _checked(token, ca) if token else (known.server if known else entropy.secret(16).hex())
    agent = _checked(agent_token, ca) if agent_token else ""
    if not agent:
        kept = known is not None and known.agent != known.server and not token
        agent = known.agent if known is not None and kept else secret
    secrets = Secrets(secret, agent)
    files.write_changed(server / "cred" / "passwd", _passwd(secrets))
    files.write_changed(server / "token", full(secret, SERVER_USER, ca) + "\n")
    link = server / "node-token"
    if agent == secret:
        _link(link, "token")
        (server / "agent-token").unlink(missing_ok=True)
    else:
        files.write_changed(server / "agent-token", full(agent, AGENT_USER, ca) + "\n")
        _link(link, "agent-token")
    return secrets


def rotate(server: Path, ca: bytes, entropy: Entropy, new: str = "") -> Secrets:
    """Exchanges the token of servers for `new` (empty: a random one); agents' own one stays, where they have one.

    Raises BadToken for one that cannot be used, or is the same.
    """
    known = read(server)
    secret = _checked(new, ca) if new else entropy.secret(16).hex()
    if any(char.isspace() for char in secret) or ":" in secret or _BOOTSTRAP.fullmatch(secret):
        raise BadToken("Cannot use the new token: no spaces or colons, and not of the form of a bootstrap token")
    if known is not None and known.server == secret:
        raise BadToken("Cannot use the new token: it is the present one")
    own = known is not None and known.agent != known.server
    return ensure(server, ca, entropy, secret, known.agent if known is not None and own else "")


def read(server: Path) -> Secrets | None:
    """The secrets of the passwd file; None before the first start. Raises BadToken when the file is damaged."""
    path = server / "cred" / "passwd"
    try:
        rows = list(csv.reader(path.read_text().splitlines()))
    except FileNotFoundError:
        return None
    found = {row[1]: row[0] for row in rows if len(row) >= 3}
    if SERVER_USER not in found or AGENT_USER not in found:
        raise BadToken(f"Cannot read {path}: a line for {SERVER_USER} and one for {AGENT_USER} are needed")
    return Secrets(found[SERVER_USER], found[AGENT_USER])


def _checked(text: str, ca: bytes) -> str:
    token = parse(text)
    if token.ca_hash and token.ca_hash != ca_hash(ca):
        raise BadToken(
            "Cannot use the token: it is for a cluster with another certificate authority; "
            "give the secret alone, or restore that cluster's certificates"
        )
    return token.secret


def _passwd(secrets: Secrets) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([secrets.server, SERVER_USER, SERVER_USER, SERVER_GROUP])
    writer.writerow([secrets.agent, AGENT_USER, AGENT_USER, AGENT_GROUP])
    return out.getvalue()


def _link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
