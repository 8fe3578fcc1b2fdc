"""The values that expressions of webhooks and policies see of one write. Import this lazily: it needs the engine."""

from __future__ import annotations

from typing import Any

from k3s.api.cel import Lazy
from k3s.api.cel.admission import shown_namespace
from k3s.api.cel.library.authorizer import Answer, Authorizer, Question, ResourceCheck
from k3s.api.kinds import Kind
from k3s.api.object import Object
from k3s.apiserver import identity
from k3s.apiserver.admission.reviews import attributes
from k3s.apiserver.admits import AdmissionRequest
from k3s.apiserver.authz import Attributes, Authorizes
from k3s.base.aio import on_loop


def bindings(
    request: AdmissionRequest,
    kind: Kind,
    obj: Object | None,
    old: Object | None,
    authorizer: Authorizes,
    namespace: Object | None = None,
) -> dict[str, Any]:
    """The values of the variables for one write, as `kind` has its objects."""
    rights = Authorizer(lambda question: on_loop(lambda: _answer(authorizer, request.user, question)))
    own = Question(
        "",
        group=kind.group,
        resource=kind.plural,
        subresource=request.subresource,
        namespace=request.namespace,
        name=request.name,
    )
    return {
        "object": obj,
        "oldObject": old,
        "request": Lazy(lambda: attributes(request, kind)),
        "namespaceObject": None if namespace is None else Lazy(lambda: shown_namespace(namespace)),
        "authorizer": rights,
        "authorizer.requestResource": ResourceCheck(rights, own),
    }


def _answer(authorizer: Authorizes, user: identity.User, question: Question) -> Answer:
    if question.service_account is not None:
        space, name = question.service_account
        user = identity.User(identity.service_account_name(space, name), identity.service_account_groups(space))
    asked = Attributes(
        user,
        question.verb,
        question.group,
        "*",
        question.resource,
        question.subresource,
        question.namespace,
        question.name,
        question.path,
        not question.path,
        question.field_selector,
        question.label_selector,
    )
    decision = authorizer.authorize(asked)
    return Answer(decision.allowed, decision.reason, decision.error)
