"""Rules for certificate signing requests: what is asked for, how it is decided, what is issued.

Source: the CertificateSigningRequest documentation; order and wording as upstream's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    forbidden,
    invalid,
    one_of,
    required,
    too_long,
)

Spec = Mapping[str, Any]
_USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_DECIDED = ("Approved", "Denied")
_FINAL = (*_DECIDED, "Failed")
_LEGACY = "kubernetes.io/legacy-unknown"
_LONGEST_DOMAIN = 253
_LONGEST_SIGNER = 571
_BLOCK = re.compile(rb"-----BEGIN ([^-\n]+)-----\s(.*?)-----END \1-----", re.DOTALL)


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def create(obj: Object) -> Causes:
    """A new request."""
    yield from _request(obj, None)


def update(old: Object, new: Object, subresource: str) -> Causes:
    """A changed request: decisions come by one path, certificates by another, and neither is taken back."""
    yield from _request(new, old)
    at, before, after = "status.conditions", _by_type(old), _by_type(new)
    for kind in _FINAL:
        if len(after.get(kind, ())) < len(before.get(kind, ())):
            yield forbidden(at, f'updates may not remove a condition of type "{kind}"')
    for kind in _DECIDED if subresource != "approval" else ():
        was, now = before.get(kind, []), after.get(kind, [])
        if len(now) > len(was):
            yield forbidden(at, f'updates may not add a condition of type "{kind}"')
        elif len(now) == len(was) and now != was:
            yield forbidden(at, f'updates may not modify a condition of type "{kind}"\n')
    issued, had = (((obj.get("status") or {}).get("certificate") or "") for obj in (new, old))
    if issued != had:
        if subresource != "status":
            yield forbidden("status.certificate", "updates may not set certificate content")
        elif had:
            yield forbidden("status.certificate", "updates may not modify existing certificate content")


def _by_type(obj: Object) -> dict[str, list[Spec]]:
    found: dict[str, list[Spec]] = {}
    for condition in (obj.get("status") or {}).get("conditions") or ():
        found.setdefault(condition.get("type", ""), []).append(condition)
    return found


def _request(obj: Object, old: Object | None) -> Causes:
    spec = _spec(obj)
    problem = _bad_request(spec.get("request", ""))
    if problem:
        yield invalid("spec.request", spec.get("request"), problem)
    usages = spec.get("usages") or []
    if not usages:
        yield required("spec.usages")
    for i, usage in enumerate(usages):
        yield from one_of(f"spec.usages[{i}]", usage, _USAGES)
    for i, usage in enumerate(usages):
        if usage in usages[:i]:
            yield duplicate(f"spec.usages[{i}]", usage)
    signer = spec.get("signerName", "")
    if signer == _LEGACY and old is None:
        yield invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
    else:
        yield from _signer("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        yield invalid("spec.expirationSeconds", seconds, why)
    yield from _conditions(obj, old)
    issued = (obj.get("status") or {}).get("certificate") or ""
    if old is not None and issued and issued != (old.get("status") or {}).get("certificate"):
        problem = _bad_certificate(issued)
        if problem:
            yield invalid("status.certificate", "<certificate data>", problem)


def _conditions(obj: Object, old: Object | None) -> Causes:
    both = old is not None and set(_DECIDED) <= _by_type(old).keys()
    conditions = (obj.get("status") or {}).get("conditions") or ()
    seen: set[str] = set()
    for i, condition in enumerate(conditions):
        at, kind, status = f"status.conditions[{i}]", condition.get("type", ""), condition.get("status", "")
        if not kind:
            yield required(f"{at}.type")
        if not status:
            yield required(f"{at}.status")
        else:
            yield from one_of(f"{at}.status", status, ("True",) if kind in _FINAL else ("False", "True", "Unknown"))
        if not both and kind in _DECIDED and seen & (set(_DECIDED) - {kind}):
            yield invalid(f"{at}.type", kind, "Approved and Denied conditions are mutually exclusive")
        if kind in seen:
            yield duplicate(f"{at}.type", kind)
        seen.add(kind)


def _signer(at: str, signer: str) -> Causes:
    """A domain, a slash and a path."""
    if not signer:
        yield required(at)
        return
    domain, slash, path = signer.partition("/")
    if not slash or "/" in path:
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield invalid(at, signer, why)
        return
    if len(domain) > _LONGEST_DOMAIN:
        yield too_long(at, _LONGEST_DOMAIN)
    labels = domain.split(".")
    yield from _labels(at, domain, labels, names.dns_label)
    if len(labels) < 2:
        yield invalid(at, domain, "should be a domain with at least two segments separated by dots")
    yield from _labels(at, path, path.split("."), names.dns_subdomain)
    if len(signer) > _LONGEST_SIGNER:
        yield too_long(at, _LONGEST_SIGNER)


def _labels(at: str, value: str, labels: Sequence[str], check: Any) -> Causes:
    for label in labels:
        problems = check(label)
        for problem in problems:
            yield invalid(at, value, f'validating label "{label}": {problem}')
        if problems:
            return


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (ValueError, binascii.Error):
        return b""


def _bad_request(text: str) -> str:
    """What is wrong with a signing request, empty when nothing is."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    found = _BLOCK.search(_bytes(text))
    if found is None or found[1] != b"CERTIFICATE REQUEST":
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        if not x509.load_pem_x509_csr(found[0] + b"\n").is_signature_valid:
            return "crypto/rsa: verification error"
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return "asn1: structure error: tags don't match"
    return ""


def _bad_certificate(text: str) -> str:
    """What is wrong with issued certificates, empty when nothing is."""
    from cryptography import x509

    blocks = list(_BLOCK.finditer(_bytes(text)))
    if not blocks:
        return "must contain at least one CERTIFICATE PEM block"
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block[1].decode(errors="replace")}"'
        if b":" in block[2]:
            return "no PEM block headers are permitted"
        try:
            x509.load_pem_x509_certificate(block[0] + b"\n")
        except ValueError:
            return "x509: malformed certificate"
    return ""
