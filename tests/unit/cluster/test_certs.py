"""The cluster's certificates: chains that openssl accepts, modes, renewal, and starts that read but do not parse."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k3s.base.clock import SystemClock
from k3s.cluster import certs, pki
from k3s.cluster.certs import Certificates

Run = Callable[[Any], Any]
NAMES = certs.serving_names("cluster.local", "10.43.0.1", ["192.0.2.7", "host.example"], ["fd00::1"])
DAY = 86400.0


class Clock(SystemClock):
    """The machine's clock, moved by the test."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s

    def now(self) -> float:
        return super().now() + self.ahead_s


def made(
    folder: Path, run: Run, ahead_s: float = 0.0, names: tuple[str, ...] = NAMES
) -> tuple[Certificates, list[str]]:
    found = Certificates(folder, Clock(ahead_s), names)
    return found, list(run(found.ensure()).files)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("authority", "purpose"), [("client-ca", "sslclient"), ("server-ca", "sslserver")])
def test_chains_verify_with_openssl(tmp_path: Path, run: Run, authority: str, purpose: str) -> None:
    """Every leaf verifies against its authority, strictly and for its purpose."""
    folder = tmp_path / "tls"
    made(folder, run)
    leaves = folder.glob("client-*.crt" if purpose == "sslclient" else "serving-*.crt")
    wanted = [p for p in leaves if p.stem not in ("client-ca", "client-auth-proxy")]
    assert wanted
    for leaf in wanted:
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile"]
        subprocess.run([*command, folder / f"{authority}.crt", leaf], check=True, capture_output=True)


def test_modes_and_content(tmp_path: Path, run: Run) -> None:
    """Certificates are 0644, keys 0600, the folder 0700; a leaf's file ends with its authority."""
    found, files = made(tmp_path / "tls", run)
    assert len(files) == 9
    assert mode(found.folder) == 0o700
    for path in found.folder.iterdir():
        assert mode(path) == (0o644 if path.suffix == ".crt" else 0o600), path
    assert found.read("client-admin").endswith(found.read("client-ca"))
    admin = pki.facts(found.read("client-admin"))
    assert (admin.common_name, admin.organizations) == ("system:admin", ("system:masters",))
    serving = pki.facts(found.read(certs.SERVING))
    assert {"kubernetes.default.svc.cluster.local", "10.43.0.1", "192.0.2.7", "host.example", "fd00::1"} <= set(
        serving.names
    )
    assert b"BEGIN RSA PRIVATE KEY" in found.read(certs.SERVICE_KEY)
    assert certs.authority_names(found.path("client-ca")) == {pki.facts(found.read("client-ca")).common_name}


def test_restart_changes_nothing(tmp_path: Path, run: Run) -> None:
    """A start with valid certificates leaves every file alone."""
    folder = tmp_path / "tls"
    made(folder, run)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert made(folder, run)[1] == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_restart_does_not_load_the_library(tmp_path: Path, run: Run) -> None:
    """A start with valid certificates, with its TLS context, never imports `cryptography`."""
    made(tmp_path / "tls", run)
    program = (
        "import asyncio, sys, pathlib\n"
        "from k3s.base.clock import SystemClock\n"
        "from k3s.cluster.certs import Certificates\n"
        f"c = Certificates(pathlib.Path({str(tmp_path / 'tls')!r}), SystemClock(), {NAMES!r})\n"
        "assert not asyncio.run(c.ensure()).files\n"
        "c.server_context()\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_lost_memory_is_rebuilt(tmp_path: Path, run: Run) -> None:
    """Without the state file the certificates are parsed once and kept."""
    folder = tmp_path / "tls"
    made(folder, run)
    for content in (None, b"{"):
        (folder / "state.json").unlink()
        if content is not None:
            (folder / "state.json").write_bytes(content)
        assert made(folder, run)[1] == []


def test_renewal_window(tmp_path: Path, run: Run) -> None:
    """Leaves are renewed from 120 days before their end, with the same keys and authorities."""
    folder = tmp_path / "tls"
    found, _ = made(folder, run)
    keys = {path: path.read_bytes() for path in folder.glob("*.key")}
    authority = found.read("client-ca")
    old = found.read("client-admin")
    assert made(folder, run, ahead_s=244 * DAY)[1] == []
    assert len(made(folder, run, ahead_s=246 * DAY)[1]) == 9
    assert found.read("client-admin") != old
    assert found.read("client-ca") == authority
    assert {path: path.read_bytes() for path in folder.glob("*.key")} == keys


def test_new_name_renews_the_serving_certificate_only(tmp_path: Path, run: Run) -> None:
    """A name that the serving certificate lacks is added; one that is not wanted any more goes."""
    folder = tmp_path / "tls"
    made(folder, run)
    found, files = made(folder, run, names=certs.serving_names("cluster.local", "10.43.0.1", ["198.51.100.1"], []))
    assert files == [certs.SERVING]
    names = pki.facts(found.read(certs.SERVING)).names
    assert "198.51.100.1" in names
    assert "192.0.2.7" not in names


@pytest.mark.parametrize("damage", ["foreign", "garbage", "key", "missing"])
def test_bad_leaf_is_made_anew(tmp_path: Path, run: Run, damage: str) -> None:
    """A leaf of another authority, a broken file, a lost key, a lost certificate: a good one again after the start."""
    folder = tmp_path / "tls"
    found, _ = made(folder, run)
    path = found.path("client-admin")
    if damage == "foreign":
        foreign = pki.new_authority("foreign", Clock().now())
        key = found.read("client-admin.key")
        path.write_bytes(pki.issue(foreign, pki.Subject("system:admin", client=True), key, Clock().now()))
    elif damage == "garbage":
        path.write_bytes(b"nothing")
    else:
        (found.path("client-admin.key") if damage == "key" else path).unlink()
    assert made(folder, run)[1] == ["client-admin"]
    assert pki.verifies(path.read_bytes(), found.read("client-ca"), found.read("client-admin.key"))


def test_half_an_authority_is_refused(tmp_path: Path, run: Run) -> None:
    """An authority without its key is not replaced silently: every node would fall off."""
    folder = tmp_path / "tls"
    found, _ = made(folder, run)
    found.path("client-ca.key").unlink()
    with pytest.raises(ExceptionGroup) as caught:
        made(folder, run)
    assert "client-ca.key is missing" in str(caught.value.exceptions[0])


def test_given_authorities_are_used(tmp_path: Path, run: Run) -> None:
    """Authorities that lie there before the first start sign the leaves."""
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o755)
    own = pki.new_authority("My Own CA", Clock().now())
    (folder / "client-ca.crt").write_bytes(own.cert)
    (folder / "client-ca.key").write_bytes(own.key)
    found, _ = made(folder, run)
    assert pki.verifies(found.read("client-admin"), own.cert)
    assert mode(folder) == 0o700
    assert mode(folder / "client-ca.key") == 0o600


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Any, Any]:
    """Connects once; what each side learned about the other."""
    seen: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert"))
        writer.write(b"x")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    try:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        await reader.readexactly(1)
        peer = writer.get_extra_info("peercert")
        writer.close()
        return await seen, peer
    finally:
        listener.close()


def test_tls_asks_for_certificates_and_reloads(tmp_path: Path, run: Run) -> None:
    """Clients may come without certificate; a renewed serving certificate is served without a new context."""
    clock = Clock()
    found = Certificates(tmp_path / "tls", clock, NAMES)
    run(found.ensure())
    context = found.server_context()
    plain = certs.client_context(found.read("server-ca"))
    assert run(handshake(context, plain))[0] in (None, {})
    named = certs.client_context(found.read("server-ca"), found.path("client-admin"), found.path("client-admin.key"))
    seen, before = run(handshake(context, named))
    assert (("commonName", "system:admin"),) in seen["subject"]
    told: list[tuple[str, ...]] = []
    found.on_renewed(lambda renewed: told.append(renewed.files))
    clock.ahead_s = 246 * DAY
    found.refresh()
    assert certs.SERVING in told[0]
    after = run(handshake(context, plain))[1]
    assert after["notAfter"] != before["notAfter"]


def test_foreign_client_certificate_fails_the_handshake(tmp_path: Path, run: Run) -> None:
    """A certificate of an unknown authority does not get through TLS."""
    found, _ = made(tmp_path / "tls", run)
    foreign = pki.new_authority(pki.facts(found.read("client-ca")).common_name, Clock().now())
    key = pki.new_key()
    cert = pki.issue(foreign, pki.Subject("system:admin", ("system:masters",), client=True), key, Clock().now())
    (tmp_path / "c.crt").write_bytes(cert)
    (tmp_path / "c.key").write_bytes(key)
    client = certs.client_context(found.read("server-ca"), tmp_path / "c.crt", tmp_path / "c.key")
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        run(asyncio.wait_for(handshake(found.server_context(), client), 5))


def test_renewal_waits_for_its_moment(tmp_path: Path, run: Run) -> None:
    """The renewal coroutine wakes when a certificate enters its window: at once when it already has."""
    clock = Clock()
    found = Certificates(tmp_path / "tls", clock, NAMES)
    run(found.ensure())
    assert abs(found.next_renewal() - (clock.now() + 245 * DAY)) < 60
    clock.ahead_s = 246 * DAY

    async def until_renewed() -> None:
        renewed = asyncio.Event()
        found.on_renewed(lambda _: renewed.set())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.renew(lambda: None))
            await renewed.wait()
            task.cancel()

    run(until_renewed())
    assert found.next_renewal() > clock.now()


def test_signing_requests(tmp_path: Path) -> None:
    """Only the key of a request counts; weak or unproven keys are refused."""
    authority = pki.new_authority("ca", Clock().now())
    key = pki.new_key()
    request = pki.new_request(key, pki.Subject("system:admin", ("system:masters",), ("evil.example",)))
    subject = pki.Subject("system:node:n", ("system:nodes",), client=True)
    cert = pki.sign_request(authority, request, subject, Clock().now())
    said = pki.facts(cert)
    assert (said.common_name, said.organizations, said.names) == ("system:node:n", ("system:nodes",), ())
    assert pki.verifies(cert, authority.cert, key)
    weak = tmp_path / "weak.pem"
    command = ["openssl", "req", "-new", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-keyout", os.devnull]
    subprocess.run([*command, "-out", weak], check=True, capture_output=True)
    for bad in (
        weak.read_bytes(),
        b"",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
    ):
        with pytest.raises(pki.BadCertificate):
            pki.sign_request(authority, bad, subject, Clock().now())
