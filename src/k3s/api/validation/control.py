"""Rules for what steers the API server itself: webhooks, admission policies, API services, flow control, claims.

Expressions are looked at by whoever evaluates them, not here. Source: the API documentation of each kind.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import certificates, devices, flowcontrol, hooks, policies, resourceslices
from k3s.api.validation.causes import Causes, duplicate, each, invalid, joined, one_of, required, selector

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
        if name and name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)


def _webhook(at: str, hook: Spec) -> Causes:
    name = hook.get("name", "")
    problems = names.dns_subdomain(name)
    if not problems and name.count(".") < 2:
        problems = ["should be a domain with at least three segments separated by dots"]
    yield from joined(f"{at}.name", name, problems) if name else [required(f"{at}.name")]
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
    if hook.get("reinvocationPolicy") is not None:
        yield from one_of(f"{at}.reinvocationPolicy", hook["reinvocationPolicy"], ("IfNeeded", "Never"))
    yield from hooks.client(f"{at}.clientConfig", hook.get("clientConfig") or {})
    yield from policies.conditions(f"{at}.matchConditions", hook.get("matchConditions") or [], policy=False)
    yield from _reviews(f"{at}.admissionReviewVersions", hook.get("admissionReviewVersions") or [])


def _reviews(at: str, versions: list[str]) -> Causes:
    if not versions:
        yield required(at, "must specify one of v1, v1beta1")
        return
    for i, version in enumerate(versions):
        if version in versions[:i]:
            yield invalid(f"{at}[{i}]", version, "duplicate version")
        else:
            yield from each(f"{at}[{i}]", version, names.dns1035_label(version))
    if not set(versions) & {"v1", "v1beta1"}:
        yield invalid(at, versions, "must include at least one of v1, v1beta1")


def _rule(at: str, rule: Spec) -> Causes:
    operations = rule.get("operations") or ()
    if not operations:
        yield required(f"{at}.operations")
    if "*" in operations and len(operations) > 1:
        yield invalid(f"{at}.operations", operations, "if '*' is present, must not specify other operations")
    for i, operation in enumerate(operations):
        yield from one_of(f"{at}.operations[{i}]", operation, _OPERATIONS)
    for part, words in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(part) or ()
        if not values:
            yield required(f"{at}.{part}")
        elif "*" in values and len(values) > 1:
            yield invalid(f"{at}.{part}", values, f"if '*' is present, must not specify other {words}")
    for i, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield required(f"{at}.apiVersions[{i}]")
    yield from _resources(f"{at}.resources", rule.get("resources") or [])
    if rule.get("scope") is not None:
        yield from one_of(f"{at}.scope", rule["scope"], ("*", "Cluster", "Namespaced"))


def _resources(at: str, resources: list[str]) -> Causes:
    """Resources and their parts; nothing is said twice by a star."""
    if not resources:
        yield required(at)
    parts_of, part_of_all, plain = set(), set(), False
    for i, text in enumerate(resources):
        resource, slash, part = text.partition("/")
        if not text:
            yield required(f"{at}[{i}]")
        elif not slash:
            plain = text != "*"
        else:
            for starred, known in ((f"{resource}/*", resource in parts_of), (f"*/{part}", part in part_of_all)):
                if known:
                    yield invalid(f"{at}[{i}]", text, f"if '{starred}' is present, must not specify {text}")
            if part == "*":
                parts_of.add(resource)
            if resource == "*":
                part_of_all.add(part)
    if len(resources) > 1 and "*/*" in resources:
        yield invalid(at, resources, "if '*/*' is present, must not specify other resources")
    if "*" in resources and plain:
        yield invalid(at, resources, "if '*' is present, must not specify other resources without subresources")


def validating_policy(obj: Object) -> Causes:
    """A policy that validates."""
    spec = _spec(obj)
    yield from one_of("spec.failurePolicy", spec.get("failurePolicy", "Fail"), _FAILURE)
    yield from _policy(spec)
    yield from policies.validating(obj)


def mutating_policy(obj: Object) -> Causes:
    """A policy that mutates."""
    spec = _spec(obj)
    yield from one_of("spec.failurePolicy", spec.get("failurePolicy", "Fail"), _FAILURE)
    yield from _policy(spec)
    yield from policies.mutating(obj)
    again = spec.get("reinvocationPolicy", "")
    if not again:
        yield required("spec.reinvocationPolicy")
    else:
        yield from one_of("spec.reinvocationPolicy", again, ("IfNeeded", "Never"))


def _policy(spec: Spec) -> Causes:
    if spec.get("paramKind") is not None:
        yield from policies.param_kind("spec.paramKind", spec["paramKind"])
    match = spec.get("matchConstraints")
    if match is None:
        yield required("spec.matchConstraints")
        return
    yield from _matched("spec.matchConstraints", match)
    if not match.get("resourceRules"):
        yield required("spec.matchConstraints.resourceRules")


def _matched(at: str, match: Spec) -> Causes:
    """Which writes a policy or a binding is about."""
    yield from one_of(f"{at}.matchPolicy", match.get("matchPolicy", "Equivalent"), _MATCH)
    for part in ("namespaceSelector", "objectSelector"):
        yield from selector(f"{at}.{part}", match.get(part))
    for part in ("resourceRules", "excludeResourceRules"):
        for i, rule in enumerate(match.get(part) or ()):
            here, seen = f"{at}.{part}[{i}]", set()
            for j, name in enumerate(rule.get("resourceNames") or ()):
                yield from each(f"{here}.resourceNames[{j}]", name, names.path_segment(name))
                if name in seen:
                    yield duplicate(f"{here}.resourceNames[{j}]", name)
                seen.add(name)
            yield from _rule(here, rule)


def policy_binding(obj: Object) -> Causes:
    """What a policy applies to."""
    spec = _spec(obj)
    name = spec.get("policyName", "")
    if not name:
        yield required("spec.policyName")
    else:
        yield from each("spec.policyName", name, names.dns_subdomain(name))
    yield from policies.param_ref("spec.paramRef", spec.get("paramRef"))
    # The reference server misspells this field.
    yield from _matched("spec.matchResouces", spec.get("matchResources") or {})
    if obj.get("kind") == "ValidatingAdmissionPolicyBinding":
        yield from policies.actions("spec.validationActions", spec.get("validationActions") or [])


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
        if spec.get("caBundle"):
            size = f"{len(base64.b64decode(spec['caBundle']))} bytes"
            yield invalid("spec.caBundle", size, "local APIServices may not have a caBundle")
        if spec.get("insecureSkipTLSVerify"):
            yield invalid("spec.insecureSkipTLSVerify", True, "local APIServices may not have insecureSkipTLSVerify")
        return
    for part in ("namespace", "name"):
        if not service.get(part):
            yield required(f"spec.service.{part}")
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        yield invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present")


def api_service_status(obj: Object) -> Causes:
    """The conditions of a group version served by somebody else."""
    for i, value in enumerate((obj.get("status") or {}).get("conditions") or ()):
        yield from one_of(f"status.conditions[{i}].status", value.get("status", ""), ("False", "True", "Unknown"))


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
    "resourceclaims.resource.k8s.io": devices.claim,
    "resourceclaimtemplates.resource.k8s.io": devices.template,
    "deviceclasses.resource.k8s.io": devices.device_class,
    "resourceslices.resource.k8s.io": resourceslices.resource_slice,
}
