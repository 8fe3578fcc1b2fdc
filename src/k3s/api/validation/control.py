"""Rules for what steers the API server itself: webhooks, admission policies, API services, flow control, claims.

Expressions are looked at by whoever evaluates them, not here. Source: the API documentation of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import certificates, flowcontrol, hooks
from k3s.api.validation.causes import Causes, duplicate, each, invalid, name_of, one_of, required, selector

Spec = Mapping[str, Any]
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_FAILURE = ("Fail", "Ignore")
_MATCH = ("Equivalent", "Exact")


def _spec(obj: Object) -> Spec:
    return obj.get("spec") or {}


def webhooks(obj: Object) -> Causes:
    """A configuration of webhooks."""
    seen: set[str] = set()
    for i, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{i}]"
        yield from _webhook(at, hook)
        name = hook.get("name", "")
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)


def _webhook(at: str, hook: Spec) -> Causes:
    name = hook.get("name", "")
    problems = names.dns_subdomain(name)
    if not problems and name.count(".") < 2:
        problems = ["should be a domain with at least three segments separated by dots"]
    yield from each(f"{at}.name", name, problems)
    for i, rule in enumerate(hook.get("rules") or ()):
        yield from _rule(f"{at}.rules[{i}]", rule)
    yield from one_of(f"{at}.failurePolicy", hook.get("failurePolicy", "Fail"), _FAILURE)
    yield from one_of(f"{at}.matchPolicy", hook.get("matchPolicy", "Exact"), _MATCH)
    effects = hook.get("sideEffects")
    if effects is None:
        yield required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun")
    else:
        yield from one_of(f"{at}.sideEffects", effects, ("None", "NoneOnDryRun"))
    seconds = hook.get("timeoutSeconds", 10)
    if not 1 <= seconds <= 30:
        yield invalid(f"{at}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds")
    yield from selector(f"{at}.namespaceSelector", hook.get("namespaceSelector"))
    yield from selector(f"{at}.objectSelector", hook.get("objectSelector"))
    yield from hooks.client(f"{at}.clientConfig", hook.get("clientConfig") or {})
    conditions: set[str] = set()
    for i, condition in enumerate(hook.get("matchConditions") or ()):
        here, title = f"{at}.matchConditions[{i}]", condition.get("name", "")
        if not title:
            yield required(f"{here}.name")
        if not condition.get("expression", "").strip():
            yield required(f"{here}.expression")
        if title in conditions:
            yield duplicate(f"{here}.name", title)
        conditions.add(title)
    versions = hook.get("admissionReviewVersions")
    if not versions:
        yield required(f"{at}.admissionReviewVersions", "must specify one of v1, v1beta1")
    elif not set(versions) & {"v1", "v1beta1"}:
        yield invalid(f"{at}.admissionReviewVersions", versions, "must include at least one of v1, v1beta1")


def _rule(at: str, rule: Spec) -> Causes:
    operations = rule.get("operations") or ()
    if not operations:
        yield required(f"{at}.operations")
    elif "*" in operations and len(operations) > 1:
        yield invalid(f"{at}.operations", operations, "if '*' is present, must not specify other operations")
    for i, operation in enumerate(operations):
        yield from one_of(f"{at}.operations[{i}]", operation, _OPERATIONS)
    for part, words in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(part) or ()
        if not values:
            yield required(f"{at}.{part}")
        elif "*" in values and len(values) > 1:
            yield invalid(f"{at}.{part}", values, f"if '*' is present, must not specify other {words}")
    resources = rule.get("resources") or ()
    if not resources:
        yield required(f"{at}.resources")
    elif "*/*" in resources and len(resources) > 1:
        yield invalid(f"{at}.resources", resources, "if '*/*' is present, must not specify other resources")
    if rule.get("scope") is not None:
        yield from one_of(f"{at}.scope", rule["scope"], ("*", "Cluster", "Namespaced"))


def validating_policy(obj: Object) -> Causes:
    """A policy that validates."""
    spec = _spec(obj)
    yield from one_of("spec.failurePolicy", spec.get("failurePolicy", "Fail"), _FAILURE)
    yield from _policy(spec)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        why = "validations or auditAnnotations must contain at least one item"
        yield required("spec.validations", why)
        yield required("spec.auditAnnotations", why)
    for i, rule in enumerate(spec.get("validations") or ()):
        at = f"spec.validations[{i}]"
        if not rule.get("expression", "").strip():
            yield required(f"{at}.expression", "expression is not specified")
        if rule.get("reason") is not None:
            yield from one_of(f"{at}.reason", rule["reason"], ("Forbidden", "Invalid", "RequestEntityTooLarge"))


def mutating_policy(obj: Object) -> Causes:
    """A policy that mutates."""
    spec = _spec(obj)
    yield from one_of("spec.failurePolicy", spec.get("failurePolicy", "Fail"), _FAILURE)
    yield from _policy(spec)
    if not spec.get("mutations"):
        yield required("spec.mutations", "mutations must contain at least one item")
    for i, rule in enumerate(spec.get("mutations") or ()):
        kinds = ("ApplyConfiguration", "JSONPatch")
        yield from one_of(f"spec.mutations[{i}].patchType", rule.get("patchType", ""), kinds)
    again = spec.get("reinvocationPolicy", "")
    if not again:
        yield required("spec.reinvocationPolicy")
    else:
        yield from one_of("spec.reinvocationPolicy", again, ("IfNeeded", "Never"))


def _policy(spec: Spec) -> Causes:
    kind = spec.get("paramKind")
    if kind is not None:
        for part in ("apiVersion", "kind"):
            if not kind.get(part):
                yield required(f"spec.paramKind.{part}")
    match = spec.get("matchConstraints")
    if match is None:
        yield required("spec.matchConstraints")
        return
    if not match.get("resourceRules"):
        yield required("spec.matchConstraints.resourceRules")
    for i, rule in enumerate(match.get("resourceRules") or ()):
        yield from _rule(f"spec.matchConstraints.resourceRules[{i}]", rule)
    for part in ("namespaceSelector", "objectSelector"):
        yield from selector(f"spec.matchConstraints.{part}", match.get(part))


def policy_binding(obj: Object) -> Causes:
    """What a policy applies to."""
    spec = _spec(obj)
    if not spec.get("policyName"):
        yield required("spec.policyName")
    if obj.get("kind") == "ValidatingAdmissionPolicyBinding":
        actions = spec.get("validationActions") or ()
        if not actions:
            yield required("spec.validationActions", "at least one validation action is required")
        for i, action in enumerate(actions):
            yield from one_of(f"spec.validationActions[{i}]", action, ("Audit", "Deny", "Warn"))
        if "Deny" in actions and "Warn" in actions:
            why = "must not contain both Deny and Warn (repeating the same validation failure information"
            more = "in the API response and headers serves no purpose)"
            yield invalid("spec.validationActions", list(actions), f"{why} {more}")


def api_service(obj: Object) -> Causes:
    """A group version served by somebody else."""
    spec = _spec(obj)
    group, version = spec.get("group", ""), spec.get("version", "")
    name = (obj.get("metadata") or {}).get("name", "")
    wanted = f"{version}.{group}"
    if name != wanted:
        yield invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"')
    if group:
        yield from each("spec.group", group, names.dns_subdomain(group))
    elif version != "v1":
        yield required("spec.group", "only v1 may have an empty group and it better be legacy kube")
    yield from each("spec.version", version, names.dns1035_label(version))
    for part, limit in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(part, 0)
        if not 0 < value <= limit:
            yield invalid(f"spec.{part}", value, f"must be positive and less than {limit}")
    service = spec.get("service")
    if service is None:
        for part in ("caBundle", "insecureSkipTLSVerify"):
            if spec.get(part):
                yield invalid(f"spec.{part}", spec[part], f"local APIServices may not have {part}")
        return
    for part in ("namespace", "name"):
        if not service.get(part):
            yield required(f"spec.service.{part}")
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        yield invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present")


def resource_claim(obj: Object) -> Causes:
    """A claim for devices."""
    yield from _devices("spec.devices", _spec(obj).get("devices") or {})


def resource_claim_template(obj: Object) -> Causes:
    """A template of claims for devices."""
    yield from _devices("spec.spec.devices", (_spec(obj).get("spec") or {}).get("devices") or {})


def _devices(at: str, devices: Spec) -> Causes:
    seen: set[str] = set()
    for i, request in enumerate(devices.get("requests") or ()):
        here, name = f"{at}.requests[{i}]", request.get("name", "")
        yield from name_of(f"{here}.name", name, names.dns_label)
        if name in seen:
            yield duplicate(f"{here}.name", name)
        seen.add(name)
        exactly, first = request.get("exactly"), request.get("firstAvailable")
        if (exactly is None) == (not first):
            yield required(here, "exactly one of `exactly` or `firstAvailable` is required")
        if exactly is not None:
            yield from _device(f"{here}.exactly", exactly)
        for j, inner in enumerate(first or ()):
            yield from _device(f"{here}.firstAvailable[{j}]", inner)
            seen.add(f"{name}/{inner.get('name', '')}")
    for i, constraint in enumerate(devices.get("constraints") or ()):
        yield from _constraint(f"{at}.constraints[{i}]", constraint, seen)


def _device(at: str, request: Spec) -> Causes:
    name = request.get("deviceClassName", "")
    if not name:
        yield required(f"{at}.deviceClassName")
    else:
        yield from each(f"{at}.deviceClassName", name, names.dns_subdomain(name))
    yield from one_of(f"{at}.allocationMode", request.get("allocationMode", "All"), ("All", "ExactCount"))


def _constraint(at: str, constraint: Spec, known: set[str]) -> Causes:
    for i, name in enumerate(constraint.get("requests") or ()):
        if name not in known:
            why = "must be the name of a request in the claim or the name of a request and a subrequest separated by"
            yield invalid(f"{at}.requests[{i}]", name, f"{why} '/'")
    attribute = constraint.get("matchAttribute")
    if attribute is None:
        yield required(f"{at}.matchAttribute")
    elif "/" not in attribute:
        why = "a fully qualified name must be a domain and a name separated by a slash"
        yield invalid(f"{at}.matchAttribute", attribute, why)


CREATE: dict[str, Callable[[Object], Causes]] = {
    "validatingwebhookconfigurations.admissionregistration.k8s.io": webhooks,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": webhooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": validating_policy,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": mutating_policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": policy_binding,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": policy_binding,
    "apiservices.apiregistration.k8s.io": api_service,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": flowcontrol.priority_level,
    "flowschemas.flowcontrol.apiserver.k8s.io": flowcontrol.flow_schema,
    "certificatesigningrequests.certificates.k8s.io": certificates.create,
    "resourceclaims.resource.k8s.io": resource_claim,
    "resourceclaimtemplates.resource.k8s.io": resource_claim_template,
}
