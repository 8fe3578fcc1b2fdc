"""Who sent this request? Client certificates, service-account tokens, token files, k3s tokens, bootstrap tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from k3s.apiserver.identity import User


class PeerCertificate(NamedTuple):
    """What TLS verified about the client's certificate: which CA it verified against is told by `issuer`."""

    common_name: str
    organizations: tuple[str, ...]
    issuer: str
    serial: str


def peer_certificate(parsed: Mapping[str, Any] | None) -> PeerCertificate | None:
    """The certificate of `ssl.SSLObject.getpeercert()` (its parsed form); None when the client sent none."""
    if not parsed:
        return None
    subject = [pair for relative in parsed.get("subject", ()) for pair in relative]
    issuer = [pair for relative in parsed.get("issuer", ()) for pair in relative]
    return PeerCertificate(
        next((value for key, value in subject if key == "commonName"), ""),
        tuple(value for key, value in subject if key == "organizationName"),
        next((value for key, value in issuer if key == "commonName"), ""),
        str(parsed.get("serialNumber", "")),
    )


class Authenticates(Protocol):
    """The question that the pipeline asks once per request."""

    def authenticate(self, headers: Mapping[str, str], peer: PeerCertificate | None) -> User | None:
        """The sender; None without credentials; raises Unauthorized for bad ones. Header names are lower case."""
