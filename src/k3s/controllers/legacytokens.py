"""Tokens without an end that nobody uses are marked, and later removed.

Only tokens that were made with an account, unasked, go: such a Secret is named by its account. Source: KEP-2799, and
"Legacy ServiceAccount token cleaner" in the Kubernetes documentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from k3s.api import object as objects
from k3s.api import times
from k3s.api.object import Object
from k3s.api.references import of_pod
from k3s.controllers.actions import NOTHING, Decision, Patch, delete
from k3s.controllers.known import CONFIG_MAP, POD, SECRET, SERVICE_ACCOUNT
from k3s.controllers.serviceaccount_token import ACCOUNT_NAME, ACCOUNT_UID, TYPE
from k3s.controllers.spec import ControllerSpec, Watch
from k3s.controllers.world import World

SPACE, NAME = "kube-system", "kube-apiserver-legacy-service-account-token-tracking"
LAST_USED, INVALID_SINCE = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"
_SINCE = "since"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_S = 86400.0
#: Tokens go when they were not used for so long, and then for as long again while they were marked: a year.
UNUSED_S = 365 * _DAY_S


def specs(unused_s: float = UNUSED_S) -> tuple[ControllerSpec, ...]:
    """The controller; tokens that were not used for `unused_s` seconds are marked, and after as long again removed."""

    def clean(key: str, world: World, now: float) -> Decision:
        """Decides a Secret."""
        secret = world.get(SECRET, key)
        if secret is None or not _was_made_unasked(secret, world):
            return NOTHING
        tracking = world.get(CONFIG_MAP, f"{SPACE}/{NAME}")
        since = _day(((tracking or {}).get("data") or {}).get(_SINCE, ""))
        last = objects.labels(secret).get(LAST_USED)
        used = _day(last) if last is not None else 0.0
        if since is None or used is None:
            return NOTHING  # nobody knows
        made = times.parse(secret["metadata"]["creationTimestamp"])
        due = max(since + _DAY_S, made, used + _DAY_S if last is not None else 0.0) + unused_s
        if now <= due:
            return Decision(requeue_after_s=due - now + 1)
        name = objects.name(secret)
        if any(("secrets", name) in of_pod(pod) for pod in world.list(POD, objects.namespace(secret))):
            return Decision(requeue_after_s=_DAY_S)
        marked = _day(objects.labels(secret).get(INVALID_SINCE, ""))
        if marked is None:
            meta = {"uid": objects.uid(secret), "labels": {INVALID_SINCE: _date(now)}}
            return Decision([Patch(SECRET, objects.namespace(secret), name, {"metadata": meta})])
        if now <= marked + _DAY_S + unused_s:
            return Decision(requeue_after_s=marked + _DAY_S + unused_s - now + 1)
        return Decision([delete(SECRET, secret, revision=int(secret["metadata"]["resourceVersion"]))])

    return (
        ControllerSpec(
            name="legacy-serviceaccount-token-cleaner-controller",
            decide=clean,
            kind=SECRET,
            watches=(Watch(SERVICE_ACCOUNT, _named), Watch(CONFIG_MAP, _all)),
            reads=(POD,),
            account="legacy-service-account-token-cleaner",
        ),
    )


def _was_made_unasked(secret: Object, world: World) -> bool:
    notes = objects.annotations(secret)
    if secret.get("type") != TYPE or objects.is_deleting(secret) or not notes.get(ACCOUNT_NAME):
        return False
    account = world.get(SERVICE_ACCOUNT, f"{objects.namespace(secret)}/{notes[ACCOUNT_NAME]}")
    if account is None or notes.get(ACCOUNT_UID, objects.uid(account)) != objects.uid(account):
        return False
    return any(ref.get("name") == objects.name(secret) for ref in account.get("secrets") or ())


def _day(text: str) -> float | None:
    """When a day began, in seconds since 1970; None when the text is no day."""
    try:
        return times.parse(f"{text}T00:00:00Z") if _DATE.fullmatch(text) else None
    except times.TimeError:
        return None


def _date(at: float) -> str:
    return times.format(at)[:10]


def _all(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    """Every Secret that holds a token, when it becomes known since when uses are written down."""
    if new is None or objects.key(new) != f"{SPACE}/{NAME}":
        return ()
    return [objects.key(secret) for secret in world.list(SECRET) if secret.get("type") == TYPE]


def _named(old: Object | None, new: Object | None, world: World) -> Sequence[str]:
    """The Secrets that an account names."""
    refs = (new or {}).get("secrets") or ()
    return [f"{objects.namespace(new)}/{ref['name']}" for ref in refs if new is not None and ref.get("name")]
