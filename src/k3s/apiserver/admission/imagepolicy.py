"""ImagePolicyWebhook: a service outside says of the images of each pod whether they may run.

Source: "ImagePolicyWebhook" in the Kubernetes documentation and the ImageReview type of imagepolicy.k8s.io/v1alpha1;
texts as upstream's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s.api.errors import ApiError, Forbidden, OutcomeUnknown
from k3s.api.object import Object, encode
from k3s.apiserver.admission.chain import CREATE, UPDATE, Plugin, refuse
from k3s.apiserver.admits import AdmissionRequest
from k3s.base.clock import Clock
from k3s.base.entropy import Entropy
from k3s.client.transport import Request, Transport

log = logging.getLogger(__name__)

NAME = "ImagePolicyWebhook"
_NOTE = ".image-policy.k8s.io/"
_AUDIT = "imagepolicywebhook.image-policy.k8s.io/"
_VERSION = "imagepolicy.k8s.io/v1alpha1"
_KEPT = 1024
_ASK_S = 30.0
# Upstream's client asks again what may have been a moment's trouble: so often, each wait longer by a half.
_ATTEMPTS, _GROWTH, _JITTER = 5, 1.5, 0.2
#: Field -> (what it is called in errors, seconds of a unit, default and the most that it may be, in seconds).
_TIMES = {
    "allowTTL": ("allow cache", 1.0, 300.0, 1800.0),
    "denyTTL": ("deny cache", 1.0, 30.0, 1800.0),
    "retryBackoff": ("backoff", 0.001, 0.5, 300.0),
}
_DEFAULT, _DISABLED = 0, -1


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the text names the field and says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`kubeconfig` says where to ask; times in seconds, 0 for answers that are not kept."""

    kubeconfig: Path
    allow_s: float
    deny_s: float
    backoff_s: float
    default_allow: bool = False


def configured(given: Object) -> Settings:
    """The plugin's configuration, `{imagePolicy: {...}}`, checked. Raises ConfigurationError."""
    own = given.get("imagePolicy")
    if not isinstance(own, dict) or not own.get("kubeConfigFile"):
        raise ConfigurationError(
            f"{NAME} needs imagePolicy.kubeConfigFile: name a file that has it by admission-control-config-file"
        )
    unknown = sorted(set(own) - {"kubeConfigFile", "defaultAllow", *_TIMES})
    if unknown:
        raise ConfigurationError(f"{NAME}: imagePolicy.{unknown[0]}: there is no such field")
    path = Path(str(own["kubeConfigFile"]))
    if not path.is_file():
        raise ConfigurationError(f"{NAME}: imagePolicy.kubeConfigFile: {path} does not exist")
    allow = own.get("defaultAllow", False)
    if not isinstance(allow, bool):
        raise ConfigurationError(f"{NAME}: imagePolicy.defaultAllow: {allow!r} is not true or false")
    times = {name: _seconds(name, own.get(name, _DEFAULT)) for name in _TIMES}
    return Settings(path, times["allowTTL"], times["denyTTL"], times["retryBackoff"], allow)


def _seconds(name: str, value: Any) -> float:
    what, unit, default, most = _TIMES[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{NAME}: imagePolicy.{name}: {value!r} is no whole number")
    if value in (_DEFAULT, _DISABLED):
        return default if value == _DEFAULT else 0.0
    least = 0.0 if name == "retryBackoff" else 1.0
    if not least < value * unit <= most:
        unit_name = "milliseconds" if name == "retryBackoff" else "seconds"
        raise ConfigurationError(
            f"{NAME}: imagePolicy.{name} ({what}): use more than {least / unit:g} and at most {most / unit:g} "
            f"{unit_name}, 0 for the default, -1 for none; it is {value}"
        )
    return value * unit


class ImagePolicyWebhook(Plugin):
    """Asks about the images of new pods, changed ones, and ephemeral containers; keeps answers for a while."""

    name = NAME
    resources = frozenset({"pods"})
    validates = frozenset({CREATE, UPDATE})

    def __init__(self, settings: Settings, transport: Transport, url: str, clock: Clock, entropy: Entropy) -> None:
        self._settings = settings
        self._transport = transport
        self._url = url
        self._clock = clock
        self._entropy = entropy
        self._kept: OrderedDict[bytes, tuple[float, Object]] = OrderedDict()

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        if request.obj is None or request.subresource not in ("", "ephemeralcontainers"):
            return None
        spec = _asked(request)
        key = encode(spec)
        kept = self._kept.get(key)
        if kept is not None and kept[0] > self._clock.monotonic():
            self._kept.move_to_end(key)
            self._judge(request, kept[1])
            return None
        return self._ask(request, spec, key)

    async def _ask(self, request: AdmissionRequest, spec: Object, key: bytes) -> None:
        try:
            status = await self._answer(spec)
        except Unanswered as error:
            if not self._settings.default_allow:
                raise refuse(request, str(error)) from error
            log.warning("The image policy webhook does not answer, the pod is let in: %s", error)
            request.audit[f"{_AUDIT}failed-open"] = "true"
            return
        ttl = self._settings.allow_s if status.get("allowed") is True else self._settings.deny_s
        if ttl > 0:
            self._kept[key] = (self._clock.monotonic() + ttl, status)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._judge(request, status)

    def _judge(self, request: AdmissionRequest, status: Mapping[str, Any]) -> None:
        for name, value in (status.get("auditAnnotations") or {}).items():
            request.audit[f"{_AUDIT}{name}"] = str(value)
        if status.get("allowed") is True:
            return
        raise _denial(request, str(status.get("reason") or ""))

    async def _answer(self, spec: Object) -> Object:
        """The status of the webhook's review. Raises Unanswered."""
        body = {"apiVersion": _VERSION, "kind": "ImageReview", "metadata": {}, "spec": spec, "status": {}}
        wait_s = self._settings.backoff_s
        for attempt in range(_ATTEMPTS):
            try:
                async with asyncio.timeout(_ASK_S):
                    answer = (await self._transport.send(Request("POST", "", {}, body))).body
                status = answer.get("status") if isinstance(answer, dict) else None
                if not isinstance(status, dict):
                    raise Unanswered(f'Post "{self._url}": the answer is no ImageReview')
                return status
            except (ApiError, OutcomeUnknown, TimeoutError) as error:
                if attempt == _ATTEMPTS - 1 or not _passes(error):
                    raise Unanswered(_told(self._url, error)) from error
                log.info("The image policy webhook is asked again: %s", error)
                await asyncio.sleep(wait_s * (1 + _JITTER * self._entropy.fraction()))
                wait_s *= _GROWTH
        raise AssertionError("unreachable")


class Unanswered(Exception):
    """The webhook gave no answer; the text says why."""


def _denial(request: AdmissionRequest, reason: str) -> Forbidden:
    if reason:
        return refuse(request, f"image policy webhook backend denied one or more images: {reason}")
    return refuse(request, "one or more images rejected by webhook backend")


def _asked(request: AdmissionRequest) -> Object:
    """The spec of the review: images, the annotations that are for the webhook, the namespace."""
    pod = request.obj or {}
    parts = ("containers", "initContainers") if not request.subresource else ("ephemeralContainers",)
    containers = [c for part in parts for c in (pod.get("spec") or {}).get(part) or ()]
    notes = {k: v for k, v in (pod["metadata"].get("annotations") or {}).items() if _NOTE in k}
    spec: Object = {"containers": [{"image": c.get("image", "")} for c in containers]}
    return {**spec, **({"annotations": notes} if notes else {}), "namespace": request.namespace}


def _passes(error: Exception) -> bool:
    """Whether asking again may help: upstream's DefaultShouldRetry."""
    return isinstance(error, OutcomeUnknown) or (isinstance(error, ApiError) and error.code in (429, 500, 504))


def _told(url: str, error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, ConnectionRefusedError):
        return f'Post "{url}": dial tcp: connect: connection refused'
    if isinstance(error, TimeoutError):
        return f'Post "{url}": context deadline exceeded'
    return f'Post "{url}": {cause or error}' if cause or isinstance(error, OutcomeUnknown) else str(error)


def from_settings(settings: Settings, clock: Clock, entropy: Entropy) -> ImagePolicyWebhook:
    """The plugin with the transport that its kubeconfig names. Raises ConfigurationError."""
    from k3s.client.https import from_kubeconfig
    from k3s.client.kubeconfig import load

    try:
        config = load(settings.kubeconfig.read_text(), settings.kubeconfig.parent)
        return ImagePolicyWebhook(settings, from_kubeconfig(config), config.server, clock, entropy)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{NAME}: imagePolicy.kubeConfigFile: {settings.kubeconfig}: {error}") from error
