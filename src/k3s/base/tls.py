"""How listeners speak TLS: versions and cipher suites by the names that flags of Kubernetes give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

#: The suites of TLS 1.2, all with forward secrecy and authenticated encryption; those of TLS 1.3 are always on.
SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
#: Older names of the same suites, and those that TLS 1.3 uses whatever is chosen.
_ALIASES = {
    f"TLS_ECDHE_{key}_WITH_CHACHA20_POLY1305": f"TLS_ECDHE_{key}_WITH_CHACHA20_POLY1305_SHA256"
    for key in ("ECDSA", "RSA")
}
_ALWAYS = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
VERSIONS = ("VersionTLS12", "VersionTLS13")

#: The flags, with what they take.
FLAGS = {
    "tls-cipher-suites": f"suites of TLS 1.2, separated by commas: {', '.join(SUITES)}",
    "tls-min-version": " or ".join(VERSIONS),
}


@dataclass(frozen=True, slots=True)
class Listening:
    """The least version, and the suites of TLS 1.2 by their names in `SUITES`."""

    version: str = VERSIONS[0]
    suites: tuple[str, ...] = tuple(SUITES)

    def apply(self, context: ssl.SSLContext) -> None:
        """Makes a listener's context keep to this."""
        import ssl

        newer = self.version == VERSIONS[1]
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if newer else ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(SUITES[name] for name in self.suites))


#: What holds when nothing is said.
UNSAID = Listening()


def listening(args: Mapping[str, str]) -> Listening:
    """From the flags. Raises ValueError that names flag, value and remedy."""
    version = args.get("tls-min-version", VERSIONS[0])
    if version not in VERSIONS:
        raise ValueError(f"tls-min-version: {version!r} is none of {', '.join(VERSIONS)}")
    if "tls-cipher-suites" not in args:
        return Listening(version)
    names = [name.strip() for name in args["tls-cipher-suites"].split(",")]
    chosen = [_ALIASES.get(name, name) for name in names if name not in _ALWAYS]
    unknown = [name for name in chosen if name not in SUITES]
    if unknown or not chosen:
        what = f"{unknown[0]!r} is not offered" if unknown else "no suite of TLS 1.2 is named"
        raise ValueError(f"tls-cipher-suites: {what}; choose from {', '.join(SUITES)}")
    return Listening(version, tuple(dict.fromkeys(chosen)))
