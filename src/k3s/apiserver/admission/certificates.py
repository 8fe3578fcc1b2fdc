"""Who may approve and sign certificate requests, and what may not be asked for.

Source: "Certificates and Certificate Signing Requests" in the Kubernetes documentation.
"""

from __future__ import annotations

import base64
import binascii

from k3s.api.object import Object, get
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizes
from k3s.apiserver.identity import MASTERS, User

_RESOURCES = frozenset({"certificatesigningrequests.certificates.k8s.io"})
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def may_use_signer(authorizer: Authorizes, user: User, verb: str, signer: str) -> bool:
    """Whether `user` may `verb` (approve, sign, attest) with a signer: by its name, or by `<domain>/*`."""
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        asked = Attributes(user, verb, "certificates.k8s.io", "*", "signers", name=name)
        if authorizer.authorize(asked).allowed:
            return True
    return False


class CertificateApproval(Plugin):
    """Approving takes the verb approve on the signer."""

    name = "CertificateApproval"
    resources = _RESOURCES
    validates = frozenset({UPDATE})

    def __init__(self, authorizer: Authorizes) -> None:
        self._authorizer = authorizer

    def validate(self, request: AdmissionRequest) -> None:
        if request.subresource != "approval":
            return
        signer = str(get(request.old, "spec", "signerName", default=""))
        if not may_use_signer(self._authorizer, request.user, "approve", signer):
            raise refuse(request, f'user not permitted to approve requests with signerName "{signer}"')


class CertificateSigning(Plugin):
    """Setting a certificate or a condition in the status takes the verb sign on the signer."""

    name = "CertificateSigning"
    resources = _RESOURCES
    validates = frozenset({UPDATE})

    def __init__(self, authorizer: Authorizes) -> None:
        self._authorizer = authorizer

    def validate(self, request: AdmissionRequest) -> None:
        if request.subresource != "status" or _outcome(request.old) == _outcome(request.obj):
            return
        signer = str(get(request.old, "spec", "signerName", default=""))
        if not may_use_signer(self._authorizer, request.user, "sign", signer):
            raise refuse(request, f'user not permitted to sign requests with signerName "{signer}"')


class CertificateSubjectRestriction(Plugin):
    """Nobody becomes system:masters by a certificate request."""

    name = "CertificateSubjectRestriction"
    resources = _RESOURCES
    validates = frozenset({CREATE})

    def validate(self, request: AdmissionRequest) -> None:
        spec = (request.obj or {}).get("spec") or {}
        if request.subresource or spec.get("signerName") != _CLIENT_SIGNER:
            return
        if MASTERS in subject_of(spec.get("request", ""))[1]:
            why = f"use of {_CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
            raise refuse(request, why)


def _outcome(obj: Object | None) -> tuple[object, object]:
    return get(obj, "status", "certificate"), get(obj, "status", "conditions")


def subject_of(request: str) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of a base64 PEM signing request; empty when it does not parse."""
    from cryptography import x509

    try:
        subject = x509.load_pem_x509_csr(base64.b64decode(request)).subject
    except (ValueError, binascii.Error):
        return "", ()
    names = [str(a.value) for a in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)]
    return names[0] if names else "", tuple(groups)
