"""Who sent a request, by certificates, front proxies and token files; and where a token stands."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from typing import Any

import pytest
from tests.unit.apiserver.test_authn import OURS, World

from k3s.api.errors import Unauthorized
from k3s.apiserver.authn import Credentials, PeerCertificate, parse_token_file
from k3s.apiserver.identity import User
from k3s.apiserver.rsa import b64
from k3s.base.message import peer_certificate


def certificate(name: str, *organizations: str, issuer: str = OURS) -> PeerCertificate:
    return PeerCertificate(name, organizations, issuer, "1")


def test_certificates() -> None:
    """Name and organizations of a client certificate are user and groups; other authorities are no identity."""
    world = World(Credentials(authorities=frozenset({OURS})))
    user = world.authenticator.authenticate({}, certificate("system:node:n", "system:nodes"))
    assert user == User("system:node:n", ("system:nodes", "system:authenticated"))
    assert world.authenticator.authenticate({}, certificate("system:admin", "system:masters", issuer="front")) is None
    assert world.authenticator.authenticate({}, certificate("", "system:masters")) is None
    assert world.authenticator.authenticate({}, None) is None


def test_ids_of_certificates() -> None:
    """The user id in the subject, the certificate's digest as id of the credential; of two ids neither can be right."""
    world = World(Credentials(authorities=frozenset({OURS})))
    peer = certificate("jane", "devs")._replace(uids=("u-1",), digest="ab12")
    user = world.authenticator.authenticate({}, peer)
    assert user == User("jane", ("devs", "system:authenticated"), "u-1")
    assert user is not None and user.extra == {"authentication.kubernetes.io/credential-id": ("X509SHA256=ab12",)}
    for uids in (("u-1", "u-2"), ("",)):
        with pytest.raises(Unauthorized):
            world.authenticator.authenticate({}, peer._replace(uids=uids))


def test_subjects_are_read_as_upstream_reads_them() -> None:
    """From a real certificate: the last common name, every organization, the user id by Kubernetes' own number."""
    import hashlib
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    parts = [(NameOID.COMMON_NAME, "first"), (NameOID.ORGANIZATION_NAME, "a"), (NameOID.COMMON_NAME, "jane")]
    parts += [(NameOID.ORGANIZATION_NAME, "b"), (x509.ObjectIdentifier("1.3.6.1.4.1.57683.2"), "u-1")]
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])
    day = datetime.timedelta(days=1)
    cert = x509.CertificateBuilder(subject, subject, key.public_key(), 7, now - day, now + day).sign(key, SHA256())
    pem = cert.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    peer = peer_certificate(*handshake(ssl, pem, secret))
    digest = hashlib.sha256(cert.public_bytes(Encoding.DER)).hexdigest()
    assert peer == PeerCertificate("jane", ("a", "b"), "jane", "07", ("u-1",), digest)


def handshake(ssl: Any, pem: bytes, secret: bytes) -> tuple[dict[str, Any], bytes]:
    """What TLS knows of a client's certificate after a handshake in memory, in which both sides have the same one."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + secret)
        file.flush()
        client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (client, server):
            context.load_cert_chain(file.name)
            context.load_verify_locations(cadata=pem.decode())
    client.check_hostname, server.verify_mode = False, ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for end in (*ends, *ends, *ends):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        ends[1].read(1)
    return ends[1].getpeercert(), ends[1].getpeercert(True)


def test_a_front_proxy_says_who_asks() -> None:
    """Only with a certificate of the request-header authority for the proxy's own name; from anyone else the headers
    are nothing. A group is one header's value, whole."""
    world = World(Credentials(authorities=frozenset({OURS}), proxies=frozenset({"front"}), anonymous=True))
    headers = {
        "x-remote-user": "carol",
        "x-remote-group": "devs\nx,system:masters",
        "x-remote-uid": "u-1",
        "x-remote-extra-acme.com%2fscopes": "read\nwrite",
    }
    user = world.authenticator.authenticate(headers, certificate("system:auth-proxy", issuer="front"))
    assert user == User("carol", ("devs", "x,system:masters", "system:authenticated"), "u-1")
    assert user is not None and user.extra == {"acme.com/scopes": ("read", "write")}
    assert world.authenticator.authenticate({}, certificate("system:auth-proxy", issuer="front")) is None
    assert world.authenticator.authenticate(headers, certificate("somebody", issuer="front")) is None
    assert world.authenticator.authenticate(headers, None) is None
    front = certificate("system:auth-proxy", issuer="front")
    for name, group in (("system:anonymous", ""), ("carol", "system:unauthenticated")):
        user = world.authenticator.authenticate({"x-remote-user": name, "x-remote-group": group}, front)
        assert user is not None and "system:authenticated" not in user.groups, name
    own = world.authenticator.authenticate(headers, certificate("system:auth-proxy"))
    assert own is not None and own.name == "system:auth-proxy"


def test_token_file() -> None:
    """The static token file: quoted groups as they stand there, comments; of equal tokens the last line counts, one
    without a token is passed over, and one that is too short is told."""
    users = parse_token_file('t1,alice,1\n# note\nt2,bob,2,"devs,ops"\n,nobody,0\n#3,carl,3\nt1,ann,1,"a, b"\n')
    world = World(Credentials(static=users))
    assert world.user("t1") == User("ann", ("a", " b", "system:authenticated"), "1")
    assert world.user("t2") == User("bob", ("devs", "ops", "system:authenticated"), "2")
    assert world.user("#3") == User("carl", ("system:authenticated",), "3")
    assert world.refused("t3") and len(users) == 3
    with pytest.raises(ValueError, match="line 2"):
        parse_token_file("t1,alice,1\nt2,bob")


def test_where_a_token_stands() -> None:
    """The second word of the header; without one the sender has no credentials. A browser's WebSocket sends it as a
    subprotocol, beside another one."""
    world = World(Credentials(static={"good": User("alice")}))

    def who(authorization: str = "", protocols: str = "", upgrade: str = "websocket") -> str:
        headers = {"authorization": authorization, "sec-websocket-protocol": protocols, "upgrade": upgrade}
        try:
            user = world.authenticator.authenticate({key: text for key, text in headers.items() if text}, None)
        except Unauthorized:
            return "refused"
        return user.name if user else "nobody"

    for text in ("Bearer good", " bearer good", "BEARER good and more"):
        assert who(text) == "alice", text
    for text in ("Bearer", "Bearer ", "Bearer  good", "Basic good", "good"):
        assert who(text) == "nobody", text
    assert who("Bearer bad") == "refused"
    mark = "base64url.bearer.authorization.k8s.io."
    good = mark + b64(b"good")
    assert who(protocols=f"{good}, v4.channel.k8s.io") == who(protocols=f"v4.channel.k8s.io,{good}") == "alice"
    assert who(protocols=f"{good}, v4.channel.k8s.io", upgrade="") == who(protocols="v4.channel.k8s.io") == "nobody"
    assert who("Bearer good", f"{mark}{b64(b'bad')}, v4.channel.k8s.io") == "alice"
    for bad in (good, f"{good},{good},v4.channel.k8s.io", f"{mark}===,v4", f"{mark},v4", f"{mark}{b64(b'bad')},v4"):
        assert who(protocols=bad) == "refused", bad
