"""Removes bootstrap tokens (Secrets in kube-system) when they have expired.

Source: "Authenticating with Bootstrap Tokens" in the Kubernetes documentation. k3s switches this controller on.
"""

from __future__ import annotations

import base64
import binascii

from k3s.api import times
from k3s.controllers.actions import NOTHING, Decision, delete
from k3s.controllers.known import SECRET
from k3s.controllers.spec import ControllerSpec
from k3s.controllers.world import World

SPACE, TYPE = "kube-system", "bootstrap.kubernetes.io/token"


def decide(key: str, world: World, now: float) -> Decision:
    """Decides a Secret. One whose time cannot be read is nobody's token any more: it goes, as upstream removes it."""
    secret = world.get(SECRET, key)
    if secret is None or secret.get("type") != TYPE or secret["metadata"]["namespace"] != SPACE:
        return NOTHING
    text = (secret.get("data") or {}).get("expiration")
    if not text:
        return NOTHING
    try:
        left_s = times.parse(base64.b64decode(text).decode()) - now
    except (times.TimeError, binascii.Error, UnicodeDecodeError):
        left_s = 0
    if left_s > 0:
        return Decision(requeue_after_s=left_s)
    return Decision([delete(SECRET, secret)])


SPECS = (ControllerSpec(name="token-cleaner-controller", decide=decide, kind=SECRET, account="token-cleaner"),)
