"""Which service-account tokens are used: counted by upstream's names, told to the audit log, and written down for those
without an end, so that one that nobody uses any more can be found.

Source: KEP-2799 (reduction of secret-based tokens) and "Managing Service Accounts" in the Kubernetes documentation;
metrics and annotations by upstream's names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from k3s.api import object as objects
from k3s.api import times
from k3s.api.errors import ApiError, Conflict, NotFound
from k3s.api.kinds import builtin
from k3s.api.object import Object, evolve
from k3s.base import metrics
from k3s.base.aio import Mailbox
from k3s.base.clock import Clock
from k3s.client.client import Client

if TYPE_CHECKING:
    from k3s.apiserver.cache import Cache, Change

log = logging.getLogger(__name__)

LAST_USED = "kubernetes.io/legacy-token-last-used"
_SECRET, _CONFIG_MAP = builtin("v1", "Secret"), builtin("v1", "ConfigMap")
# Says since when uses are written down: namespace, name, and no uid.
_TRACKING = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking", "")
_DAY_S = 86400
_COUNTERS = {
    "legacy": ("serviceaccount_legacy_tokens_total", "Tokens without audiences that were used."),
    "auto": ("serviceaccount_legacy_auto_token_uses_total", "Uses of tokens that were made for an account unasked."),
    "manual": ("serviceaccount_legacy_manual_token_uses_total", "Uses of tokens in Secrets that somebody made."),
    "invalid": ("serviceaccount_invalid_legacy_auto_token_uses_total", "Uses of tokens that are marked as invalid."),
    "stale": ("serviceaccount_stale_tokens_total", "Uses of extended tokens that should have been renewed."),
    "valid": ("serviceaccount_valid_tokens_total", "Uses of extended tokens in their time."),
}

#: Hears an annotation for the audit log, its text, and a warning for the sender (empty: none).
Remark = Callable[[str, str, str], None]


def unheard(note: str, text: str, warning: str) -> None:
    """For those who do not want to know."""


class Uses(Protocol):
    """Who is told of uses."""

    def count(self, what: str) -> None:
        """A token was used: legacy, auto, manual, invalid, stale or valid."""

    def used(self, secret: Object) -> None:
        """The token in a Secret was used."""


class TokenUses:
    """Counts uses; a service that writes into a Secret on which day its token was last used, once a day."""

    def __init__(self, registry: metrics.Registry, clock: Clock) -> None:
        self._counters = {what: registry.counter(name, text) for what, (name, text) in _COUNTERS.items()}
        self._clock = clock
        self._used: Mailbox[tuple[str, str, str]] = Mailbox()

    def count(self, what: str) -> None:
        """A token was used; see `Uses`."""
        self._counters[what].add()

    def used(self, secret: Object) -> None:
        """The token in a Secret was used: its label is to say so, unless it does. Servers' days may be one apart."""
        now = self._clock.now()
        if objects.labels(secret).get(LAST_USED) not in (date(now), date(now + _DAY_S)):
            self._used.put((objects.namespace(secret), objects.name(secret), objects.uid(secret)))

    async def run(self, client: Client, cache: Cache, ready: Callable[[], None]) -> None:
        """Writes until cancelled: the labels, and since when they are written, again when that is changed."""
        cache.listen(_CONFIG_MAP, self._changed)
        self._used.put(_TRACKING)
        ready()
        while True:
            space, name, uid = key = await self._used.take()
            try:
                if key == _TRACKING:
                    await self._track(client)
                else:
                    meta = {"uid": uid, "labels": {LAST_USED: date(self._clock.now())}}
                    await client.patch(_SECRET, space, name, {"metadata": meta})
            except (NotFound, Conflict):
                continue  # it went, or somebody else wrote it
            except ApiError as error:
                log.warning("Cannot write that a token was used into %s/%s: %s", space, name, error)

    def _changed(self, change: Change) -> None:
        if change.item.name == _TRACKING[1] and change.item.namespace == _TRACKING[0]:
            self._used.put(_TRACKING)

    async def _track(self, client: Client) -> None:
        """Keeps the ConfigMap that says since when uses are written down."""
        space, name, _ = _TRACKING
        data = {"since": date(self._clock.now())}
        try:
            found = await client.get(_CONFIG_MAP, space, name)
        except NotFound:
            meta = {"name": name, "namespace": space}
            await client.create(_CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
            return
        kept = found.get("data") or {}
        if not is_date(kept.get("since", "")):
            await client.update(_CONFIG_MAP, evolve(found, ("data",), {**kept, **data}))


def is_date(text: str) -> bool:
    """Whether a text is a day as labels tell it."""
    try:
        return date(times.parse(f"{text}T00:00:00Z")) == text
    except times.TimeError:
        return False


def date(at: float) -> str:
    """The day of a time in seconds since 1970, as labels tell it."""
    return times.format(at)[:10]
