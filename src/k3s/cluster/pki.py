"""Making and reading X.509 certificates: authorities, leaves, signing requests.

Bytes in, bytes out; the files are the business of `certs`. `cryptography` is imported inside the functions, because
it costs 60 ms and 10 MB that a process with valid certificates never needs.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

DAY_S = 86400
CA_DAYS = 3650
LEAF_DAYS = 365
# A node whose clock is a little behind must still find a new certificate valid.
_SKEW_S = 300


class BadCertificate(ValueError):
    """A certificate, key or signing request that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a leaf is for and what it may be used for. Names that are IP addresses go to `ips`."""

    common_name: str
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    server: bool = False
    client: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority; `cert` may carry a chain, its first certificate is the one that signs."""

    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What matters of a leaf; times in seconds since the epoch."""

    common_name: str
    organizations: tuple[str, ...]
    not_before: float
    not_after: float
    names: tuple[str, ...]


def new_key() -> bytes:
    """A new ECDSA P-256 private key as PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def new_rsa_key(bits: int = 2048) -> bytes:
    """A new RSA private key as PKCS#1 PEM; takes 20 to 300 ms, so call it on a thread."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return _key_pem(rsa.generate_private_key(65537, bits))


def new_authority(common_name: str, now: float, key: bytes = b"") -> Authority:
    """A self-signed authority for ten years, with a new key unless one is given."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = key or new_key()
    private = load_key(key)
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    usage = _usage(cert_sign=True)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - _SKEW_S))
        .not_valid_after(_time(now + CA_DAYS * DAY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    return Authority(_cert_pem(cert), key)


def issue(authority: Authority, subject: Subject, key: bytes, now: float, days: int = LEAF_DAYS) -> bytes:
    """A leaf for the private key `key`, as PEM followed by the authority's certificates."""
    return _issue(authority, subject, load_key(key).public_key(), now, days)


def sign_request(authority: Authority, request: bytes, subject: Subject, now: float, days: int = LEAF_DAYS) -> bytes:
    """A leaf for the public key of a signing request (PEM or DER).

    Only the key is taken from the request: who the certificate is for is decided by the signer. Raises BadCertificate
    when the request does not parse, is not signed with its own key, or has a weak kind of key.
    """
    return _issue(authority, subject, request_key(request), now, days)


def request_key(request: bytes) -> PublicKey:
    """The public key of a signing request whose signature proves possession of it; raises BadCertificate."""
    return _checked_key(load_request(request))


def load_request(request: bytes) -> x509.CertificateSigningRequest:
    """Parses a signing request in PEM or DER; raises BadCertificate."""
    from cryptography import x509

    try:
        pem = request.lstrip().startswith(b"-----")
        return x509.load_pem_x509_csr(request) if pem else x509.load_der_x509_csr(request)
    except ValueError as error:
        raise BadCertificate(f"Cannot read the certificate signing request: {error}") from None


def _checked_key(request: x509.CertificateSigningRequest) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if not request.is_signature_valid:
        raise BadCertificate("Cannot sign the certificate request: it is not signed with its own key")
    key = request.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1"):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    raise BadCertificate(
        "Cannot sign the certificate request: the key must be ECDSA on a NIST curve or RSA of 2048 bits or more"
    )


def new_request(key: bytes, subject: Subject) -> bytes:
    """A signing request (PEM) made on the machine where the key stays."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(subject))
    names = _general_names(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(load_key(key), hashes.SHA256()).public_bytes(Encoding.PEM)


def facts(cert: bytes) -> Facts:
    """What the first certificate of a PEM text says; raises BadCertificate."""
    from cryptography import x509

    loaded = load_cert(cert)
    try:
        san = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(san.get_values_for_type(x509.DNSName)) + tuple(
            str(ip) for ip in san.get_values_for_type(x509.IPAddress)
        )
    except x509.ExtensionNotFound:
        names = ()
    return Facts(
        _first(loaded.subject, x509.NameOID.COMMON_NAME),
        tuple(str(a.value) for a in loaded.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)),
        loaded.not_valid_before_utc.timestamp(),
        loaded.not_valid_after_utc.timestamp(),
        names,
    )


def verifies(cert: bytes, authority: bytes, key: bytes = b"") -> bool:
    """Whether a leaf was signed by the first certificate of `authority` and, if a key is given, belongs to that key."""
    from cryptography.exceptions import InvalidSignature

    try:
        leaf, signer = load_cert(cert), load_cert(authority)
        leaf.verify_directly_issued_by(signer)
        return not key or leaf.public_key() == load_key(key).public_key()
    except (BadCertificate, ValueError, TypeError, InvalidSignature):
        return False


def load_cert(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text; raises BadCertificate."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise BadCertificate(f"Cannot read the certificate: {error}") from None


def load_key(pem: bytes) -> PrivateKey:
    """An ECDSA or RSA private key; raises BadCertificate."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"Cannot read the private key: {error}") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise BadCertificate("Cannot use the private key: it is neither ECDSA nor RSA")
    return key


def is_ip(text: str) -> bool:
    """Whether a subject alternative name is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def split_names(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """DNS names and IP addresses (in their shortest form) of a mixed list, each once, in order."""
    dns: dict[str, None] = {}
    ips: dict[str, None] = {}
    for name in names:
        if is_ip(name):
            ips[str(ipaddress.ip_address(name))] = None
        elif name:
            dns[name] = None
    return tuple(dns), tuple(ips)


def _issue(authority: Authority, subject: Subject, public: PublicKey, now: float, days: int) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = load_cert(authority.cert)
    uses = []
    if subject.server:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if subject.client:
        uses.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(signer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(signer.not_valid_before_utc)
        .not_valid_after(min(_time(now + days * DAY_S), signer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(_authority_key_id(signer), critical=False)
    )
    names = _general_names(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _cert_pem(builder.sign(load_key(authority.key), hashes.SHA256())) + authority.cert


def _authority_key_id(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    from cryptography import x509

    try:
        own = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]


def _usage(*, cert_sign: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(subject: Subject) -> x509.Name:
    from cryptography import x509

    organizations = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, o) for o in subject.organizations]
    return x509.Name([*organizations, x509.NameAttribute(x509.NameOID.COMMON_NAME, subject.common_name)])


def _general_names(subject: Subject) -> list[x509.GeneralName]:
    from cryptography import x509

    dns: list[x509.GeneralName] = [x509.DNSName(name) for name in subject.dns]
    return dns + [x509.IPAddress(ipaddress.ip_address(ip)) for ip in subject.ips]


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return next((str(a.value) for a in name.get_attributes_for_oid(oid)), "")


def _time(epoch_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(epoch_s), datetime.UTC)


def _cert_pem(cert: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM)


def _key_pem(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
