"""The client's side of TLS: whom it trusts and its own certificate, read again when the files change."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass

from k3s.api.errors import ServiceUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Trust and identity as files or as PEM text; all empty: the system's authorities and no certificate.

    Without `verify` any server is taken for the right one.
    """

    ca_pem: str = ""
    ca_file: str = ""
    cert_pem: str = ""
    cert_file: str = ""
    key_pem: str = ""
    key_file: str = ""
    verify: bool = True


class TlsContext:
    """The newest SSLContext; certificates are renewed while connections live, so it is asked for each new one."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._context: ssl.SSLContext | None = None
        self._stamp: tuple[object, ...] = ()

    def current(self) -> ssl.SSLContext:
        """The context for the files as they are now; the same one for as long as they do not change.

        A pair that does not fit (certificate new, key not yet) keeps the one before. Raises ServiceUnavailable when
        there is none to keep.
        """
        stamp = self._files()
        if self._context is not None and stamp == self._stamp:
            return self._context
        try:
            self._context = _build(self._credentials)
            self._stamp = stamp
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = ", ".join(filter(None, (self._credentials.ca_file, self._credentials.cert_file))) or "given as text"
            if self._context is None:
                raise ServiceUnavailable(f"Cannot use the certificates ({names}): {error}") from error
            log.warning("Cannot use the changed certificates (%s), the ones before stay in use: %s", names, error)
        return self._context

    def _files(self) -> tuple[object, ...]:
        known = self._credentials
        stamps: list[object] = []
        for path in (known.ca_file, known.cert_file, known.key_file):
            if path:
                try:
                    found = os.stat(path)
                    stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
                except OSError:
                    stamps.append(None)
        return tuple(stamps)


def _build(known: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not known.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif known.ca_pem or known.ca_file:
        context.load_verify_locations(cafile=known.ca_file or None, cadata=known.ca_pem or None)
    else:
        context.load_default_certs()
    if known.cert_file:
        context.load_cert_chain(known.cert_file, known.key_file or None)
    elif known.cert_pem:
        _load_text(context, known.cert_pem + "\n" + known.key_pem)
    return context


def _load_text(context: ssl.SSLContext, pem: str) -> None:
    """The ssl module takes a certificate and key from a path only: this one never reaches a disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
