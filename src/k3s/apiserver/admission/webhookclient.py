"""Asks webhooks: over HTTPS, at a URL or at a Service's pods, trusting the authority that the configuration names."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from k3s.api.errors import ApiError, OutcomeUnknown
from k3s.api.object import Object, decode
from k3s.apiserver import services
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.apiserver.cache import Reader
    from k3s.client.https import HttpsTransport

# Configurations change rarely: more transports than this are left over from old ones.
_MOST_TRANSPORTS = 64


class CallFailed(Exception):
    """A webhook could not be asked, or gave no answer; the text is upstream's where it has one."""


class WebhookClient:
    """Keeps a transport, with its connections, for each place that is asked."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._transports: dict[tuple[str, str], HttpsTransport] = {}

    async def ask(self, config: Object, body: Object, timeout_s: float) -> Any:
        """The answer of a webhook at a clientConfig. Raises CallFailed."""
        url = url_of(config)
        parts = urlsplit(url)
        query = {"timeout": f"{timeout_s:g}s"}
        shown = f'Post "{url}?timeout={timeout_s:g}s"'
        request = Request("POST", parts.path or "/", query, body, accept="application/json")
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._transport(config, url).send(request)
            if answer.status >= 300:  # CVE-2020-8561: what a redirect says or leads to is not the webhook's word
                raise CallFailed(f"the webhook answers {answer.status}: redirects are not followed")
            return _read(answer.body)
        except TimeoutError:
            raise CallFailed(f"{shown}: context deadline exceeded") from None
        except CallFailed as error:
            raise CallFailed(f"{shown}: {error}") from None
        except OutcomeUnknown as error:
            raise CallFailed(f"{shown}: {_inner(error) or 'EOF'}") from error
        except ApiError as error:
            if error.__cause__ is not None:
                raise CallFailed(f"{shown}: {_inner(error)}") from error
            raise CallFailed(_rejected(error)) from error

    def _transport(self, config: Object, url: str) -> HttpsTransport:
        from k3s.client.https import HttpsTransport
        from k3s.client.tls import Credentials

        bundle = str(config.get("caBundle") or "")
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        found = self._transports.get((base, bundle))
        if found is None:
            if len(self._transports) >= _MOST_TRANSPORTS:
                self._transports.clear()
            service = config.get("service")
            address = (lambda: self._address(service)) if service else None
            credentials = Credentials(ca_pem=_pem(bundle))
            found = self._transports[(base, bundle)] = HttpsTransport(base, credentials, address=address)
        return found

    def _address(self, service: Object) -> tuple[str, int]:
        try:
            return services.address(self._reader, service)
        except services.NoAddress as error:
            raise CallFailed(str(error)) from None


def _read(body: Any) -> Any:
    """The JSON of an answer, whatever its content type says."""
    if not isinstance(body, bytes):
        return body
    try:
        return decode(body)
    except ValueError as error:
        raise CallFailed(f"the answer is no JSON: {error}") from error


def url_of(config: Object) -> str:
    """Where a clientConfig points: its URL, or a Service's name inside the cluster."""
    service = config.get("service")
    if not service:
        return str(config.get("url") or "")
    path = "/" + str(service.get("path") or "").lstrip("/")
    return f"https://{service.get('name', '')}.{service.get('namespace', '')}.svc:{service.get('port') or 443}{path}"


def _pem(bundle: str) -> str:
    try:
        return base64.b64decode(bundle).decode()
    except (ValueError, binascii.Error):
        return ""


def _inner(error: BaseException) -> str:
    """What broke a connection, as Go words it."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {cause.verify_message}"
    if isinstance(cause, ConnectionRefusedError):
        return "dial tcp: connect: connection refused"
    return str(cause or error)


def _rejected(error: ApiError) -> str:
    """The text for an answer with an error code."""
    if error.code == 404:
        return "the server could not find the requested resource"
    if error.code == 401:
        return "the server has asked for the client to provide credentials"
    if error.code >= 500:
        text = error.message.replace('"', '\\"')
        return f'an error on the server ("{text}") has prevented the request from succeeding'
    return "the server rejected our request for an unknown reason"
