"""An authorizer elsewhere: asked by SubjectAccessReview, as the kubeconfig of a webhook says; answers are remembered.

Source: "Webhook Mode" and "Authorization" in the Kubernetes documentation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from k3s.api import fieldselectors, selectors
from k3s.api.errors import ApiError, BadRequest, OutcomeUnknown
from k3s.api.object import encode
from k3s.apiserver.authz import Attributes, Decision
from k3s.apiserver.pending import Pending, keep, kept
from k3s.base.clock import Clock
from k3s.client.transport import Request

if TYPE_CHECKING:
    from k3s.apiserver.authorization.meters import Meters
    from k3s.apiserver.authorization.settings import WebhookSettings
    from k3s.client.transport import Transport

log = logging.getLogger(__name__)

# A failure that may pass is met by asking again, after a while that grows.
_ATTEMPTS, _FIRST_S, _GROWTH = 5, 0.5, 1.5
_MAY_PASS = frozenset({429, 500, 504})
# So many answers are remembered, and only of questions that a client cannot make as large as it likes.
_MOST_ANSWERS, _LARGEST = 8192, 10_000
_SELECTS = frozenset({"list", "watch", "deletecollection"})
_OPERATORS: Mapping[str, str] = {
    **dict.fromkeys((selectors.EQUALS, selectors.DOUBLE_EQUALS, selectors.IN), "In"),
    **dict.fromkeys((selectors.NOT_EQUALS, selectors.NOT_IN), "NotIn"),
    selectors.EXISTS: "Exists",
    selectors.NOT_EXISTS: "DoesNotExist",
}


class Webhook:
    """One webhook; `name` is how metrics call it."""

    def __init__(self, name: str, given: WebhookSettings, transport: Transport, clock: Clock, meters: Meters) -> None:
        self.given = given
        self._name = name
        self._transport = transport
        self._clock = clock
        self._meters = meters
        self._answers: dict[Hashable, tuple[Decision, float]] = {}
        self._asking = 0
        self._retired = False

    def authorize(self, asked: Attributes) -> Decision:
        """What the webhook said not long ago. Raises Pending when it has to be asked."""
        spec = spec_of(asked)
        if self.given.conditions:
            decided = self._unconcerned(spec)
            if decided is not None:
                return decided
        key = (self, encode(spec))
        answer: Decision | None = kept(key)
        if answer is not None:
            return answer
        known = self._answers.get(key)
        if known is None or known[1] <= self._clock.monotonic():
            raise Pending(self._ask(key, spec, _cacheable(asked)))
        return known[0]

    async def retire(self) -> None:
        """Nobody asks any more: connections are closed once the last answer is there."""
        self._retired = True
        if not self._asking:
            await self._transport.close()

    def _unconcerned(self, spec: dict[str, Any]) -> Decision | None:
        """The decision without asking, when a condition is not true or cannot be told; else None."""
        from k3s.api.cel import EvaluationError
        from k3s.api.cel.authorization import condition

        problems = []
        began = self._clock.monotonic()
        for source in self.given.conditions:
            try:
                if condition(source).evaluate({"request": spec}) is not True:
                    self._meters.excluded(self._name)
                    return Decision(False)
            except EvaluationError as error:
                problems.append(f"cel evaluation error: expression '{source}' resulted in error: {error}")
        self._meters.matched(self._name, self._clock.monotonic() - began, len(problems))
        if not problems:
            return None
        return self._failed(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")

    def _failed(self, error: str) -> Decision:
        return Decision(False, denied=self.given.refuses, error=error)

    async def _ask(self, key: Hashable, spec: dict[str, Any], cacheable: bool) -> None:
        began = self._clock.monotonic()
        self._asking += 1
        try:
            status, error, result = await self._answer(spec)
        finally:
            self._asking -= 1
            if self._retired and not self._asking:
                await self._transport.close()
        self._meters.asked(self._name, result, self._clock.monotonic() - began)
        if status is None:
            log.error("Cannot ask the authorization webhook %s: %s", self._name, error)
            if not self.given.refuses:
                self._meters.failed_open(self._name, result)
            keep(key, self._failed(error))
            return
        decision = _decision(status)
        keep(key, decision)
        seconds = self.given.authorized_s if status.get("allowed") is True else self.given.unauthorized_s
        if seconds > 0 and cacheable:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[key] = decision, self._clock.monotonic() + seconds

    async def _answer(self, spec: dict[str, Any]) -> tuple[dict[str, Any] | None, str, str]:
        """The status; or None, why, and what metrics call that."""
        sent = _as_v1beta1(spec) if self.given.version == "v1beta1" else spec
        kind = {"apiVersion": f"authorization.k8s.io/{self.given.version}", "kind": "SubjectAccessReview"}
        request = Request("POST", "", {}, {**kind, "metadata": {}, "spec": sent})
        error: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_FIRST_S * _GROWTH ** (attempt - 1))
            try:
                async with asyncio.timeout(self.given.timeout_s):
                    answer = await self._transport.send(request)
            except TimeoutError:
                return None, f"no answer in {self.given.timeout_s:g} s", "timeout"
            except OutcomeUnknown as unknown:
                error = unknown
                continue
            except ApiError as failure:
                error = failure
                if failure.code in _MAY_PASS:
                    continue
                break
            believed = answer.status < 300 and isinstance(answer.body, dict)  # no redirect is followed
            status = answer.body.get("status") if believed else None
            if isinstance(status, dict):
                return status, "", "success"
            return None, f"the answer, {answer.status}, is no SubjectAccessReview with a status", "error"
        return None, str(error), "error"


def _decision(status: dict[str, Any]) -> Decision:
    allowed, denied = status.get("allowed") is True, status.get("denied") is True
    reason = str(status.get("reason") or "")
    if allowed and denied:
        return Decision(False, reason, True, "webhook subject access review returned both allow and deny response")
    return Decision(allowed, reason, denied)


def _cacheable(asked: Attributes) -> bool:
    return sum(map(len, (*asked[1:9], asked.fields, asked.labels))) < _LARGEST


def _as_v1beta1(spec: dict[str, Any]) -> dict[str, Any]:
    """There, groups have the name `group`."""
    return {("group" if key == "groups" else key): value for key, value in spec.items()}


def spec_of(asked: Attributes) -> dict[str, Any]:
    """The spec of the SubjectAccessReview that asks what is asked; what is empty is left out."""
    user = asked.user
    if asked.is_resource:
        names = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
        about = {name: getattr(asked, name) for name in names if getattr(asked, name)}
        if asked.verb in _SELECTS:
            for name, requirements in (
                ("fieldSelector", _fields(asked.fields)),
                ("labelSelector", _labels(asked.labels)),
            ):
                if requirements:
                    about[name] = {"requirements": requirements}
        spec: dict[str, Any] = {"resourceAttributes": about}
    else:
        spec = {"nonResourceAttributes": {name: value for name in ("path", "verb") if (value := getattr(asked, name))}}
    who = {
        "user": user.name,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
        "uid": user.uid,
    }
    return spec | {name: value for name, value in who.items() if value}


def _fields(text: str) -> list[dict[str, Any]]:
    """Selectors only narrow what is asked for, so one that cannot be read is not told: it selects less, or fails."""
    try:
        terms = fieldselectors.parse_fields(text).terms if text else ()
    except BadRequest:
        return []
    return [{"key": t.field, "operator": "In" if t.equal else "NotIn", "values": [t.value]} for t in terms]


def _labels(text: str) -> list[dict[str, Any]]:
    try:
        requirements = selectors.parse_labels(text).requirements if text else ()
    except BadRequest:
        return []
    found = []
    for one in requirements:
        operator = _OPERATORS.get(one.operator)
        if operator is not None:
            values = {"values": sorted(one.values)} if one.values else {}
            found.append({"key": one.key, "operator": operator, **values})
    return found
